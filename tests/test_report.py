"""The report page, opened in a real headless Chromium by the W3C WebDriver protocol."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from markupsafe import escape
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread
from synthetic import history, make_other, make_report, make_run

import sweeps
from sweeps.judge.hypotheses import evaluate
from sweeps.runs.errors import InputError
from sweeps.show import inline, payload, report
from sweeps.show.dark import PAGE, on_dark
from sweeps.show.draw import render
from sweeps.show.figures import figure
from sweeps.show.importance import importance
from sweeps.study import file

STUDY = file.read(str(ROOT / "conf" / "study" / "report.yaml"))

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def in_browser(test):
    missing = not (CHROMIUM and DRIVER)
    return pytest.mark.browser(pytest.mark.skipif(missing, reason="needs chromium and chromedriver")(test))


class Browser:
    """One Chromium window; every request and every console message is on record."""

    FLAGS = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --force-color-profile=srgb"
    )

    def __init__(self, url, profile):
        self._url = url
        options = {"binary": CHROMIUM, "args": [*self.FLAGS.split(), f"--user-data-dir={profile}"]}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._url += (
            "/session/" + self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        )

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page, state=""):
        self._call("POST", "/url", {"url": "about:blank"})  # a change of the fragment alone would not load it again
        self._call("POST", "/url", {"url": page.as_uri() + state})
        return self

    def run(self, script, *args):
        return self._call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def devtools(self, command, **params):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def size(self, width, height, scheme="light"):
        phone = width < 500
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, *keys):
        """Send keys to the focused element."""
        codes = {
            "Tab": "\ue004",
            "Enter": "\ue007",
            "Space": "\ue00d",
            "Left": "\ue012",
            "Right": "\ue014",
            "Home": "\ue011",
        }
        actions = [{"type": kind, "value": codes.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def drag(self, *places):
        """From the first place of the window to the last with the mouse; of one place, a press."""
        (x, y), *others = places
        steps = [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0}]
        steps += [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 20} for x, y in others]
        actions = [{"type": "pointer", "id": "mouse", "actions": [*steps, {"type": "pointerUp", "button": 0}]}]
        self._call("POST", "/actions", {"actions": actions})

    def set(self, name, value):
        """A control's value, as its user would set it; of a box, whether it is ticked."""
        self.run(
            "const control = document.getElementById(arguments[0]);"
            "if (control.type === 'checkbox') { if (control.checked !== arguments[1]) control.click(); return; }"
            "control.value = arguments[1];"
            "for (const kind of ['input', 'change']) control.dispatchEvent(new Event(kind, { bubbles: true }))",
            name,
            value,
        )

    def click(self, name):
        self.run("document.getElementById(arguments[0]).click()", name)

    def tick(self, name, label):
        """The box of a label in a list of boxes."""
        self.run(
            "[...document.getElementById(arguments[0]).querySelectorAll('label')]"
            ".find((label) => label.textContent.trim() === arguments[1]).querySelector('input').click()",
            name,
            label,
        )

    def text(self, name):
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def state(self):
        """The address's fragment, with all that was done."""
        return self.run("saveAddress(); return location.hash")

    def errors(self):
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """The addresses asked for since the last call, without what the page carries in itself."""
        events = [
            json.loads(entry["message"])["message"] for entry in self._call("POST", "/se/log", {"type": "performance"})
        ]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def screenshot(self, path):
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.devtools("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(image))

    def close(self):
        self._call("DELETE", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with open(folder / "log", "wb") as log:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = next(line for line in driver.stdout if "successfully on port" in line)
        browser = Browser(f"http://127.0.0.1:{line.rstrip('. ' + chr(10)).split()[-1]}", folder / "profile")
        yield browser
        browser.close()
    finally:
        driver.terminate()
        driver.communicate(timeout=10)


HOSTILE = '</script><script>window.hacked=1</script>"><img src=x onerror="window.hacked=2"><!-- {{data}} {% raw %} \''
LONG = 10**6


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """The report's 21 configurations, two seeds; a diverged run with hostile texts wherever text can be."""
    out = tmp_path_factory.mktemp("out")
    make_report(out, epochs=5, seeds=2)
    make_run(out, lr=0.1, seed=7, rows=history(2), target=5, state="diverged", error="the loss became nan")
    loaded = sweeps.load(out)
    runs = loaded.runs.copy()
    for column in runs.select_dtypes(["str", "object"]).columns:
        if column not in ("run", "state", "updated"):
            runs[column] = runs[column].where(runs["seed"] != 7, HOSTILE)
    runs["optim.note"] = [HOSTILE if activ == "gelu" else None for activ in runs["activ"]]
    runs["config." + "x" * LONG] = ["y" * LONG if activ == "tanh" else "z" for activ in runs["activ"]]
    runs["blas"] = "\x00\x1b\u2028=1+1"
    for metric in ("train_loss", "train_acc", "test_acc", "best_valid_acc"):  # synthetic runs of a seed are all alike
        runs[metric] -= 1e-4 * np.random.default_rng(0).permutation(len(runs))
    return replace(loaded, runs=runs, problems=(f"outputs/runs/{HOSTILE}: empty",))


@pytest.fixture(scope="module")
def page(collection, tmp_path_factory):
    return report.write(collection, tmp_path_factory.mktemp("written"), STUDY)


@pytest.fixture
def opened(browser, page):
    """The page, newly opened on a desktop's screen; nothing may have gone wrong when the test is over."""
    browser.size(1280, 900)
    browser.open(page)
    browser.run("localStorage.clear()")
    browser.open(page)
    browser.errors()
    yield browser
    assert browser.errors() == []


def test_it_is_one_file_that_the_same_data_make_again(collection, page, tmp_path):
    assert list(page.parent.iterdir()) == [page]
    assert report.write(collection, tmp_path, STUDY).read_bytes() == page.read_bytes()


def test_it_has_every_hypothesis_table_and_figure_of_the_study(collection, page):
    text = page.read_text()
    assert f"<h1>{STUDY.title}</h1>" in text
    figures = len(STUDY.figures) + 1  # and the forest of comparisons
    assert text.count("<figure>") == text.count('src="data:image/svg+xml,') == figures == 9
    for finding in evaluate(STUDY, collection):
        assert f"<summary>{report._code(finding.text)}</summary>" in text
        assert report._code(finding.detail) in text
    for spec in [*STUDY.tables.values(), *STUDY.figures.values()]:
        assert escape(spec.title if spec.name in STUDY.tables else spec.caption) in text
    assert f"mlp-sweeps report study={STUDY.word}" in text


def test_without_a_study_there_is_nothing_of_the_course_report(collection):
    text = report.page(collection)
    assert "<figure>" not in text
    assert [section for section in ("hypotheses", "tables", "figures") if f'id="{section}"' in text] == []
    for word in (STUDY.title, "Table 1", "Hinge", "ReLU", "study=", "course"):
        assert word not in text, word
    assert "valid accuracy, best epoch" in text  # of networks, whose metrics are known


def test_no_run_at_all_is_an_input_error(collection, tmp_path):
    empty = replace(collection, runs=collection.runs.head(0), epochs=collection.epochs.head(0))
    with pytest.raises(InputError, match="no runs to report"):
        report.write(empty, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_cut_and_the_page_says_so(collection, monkeypatch):
    monkeypatch.setattr(payload, "MOST_RUNS", 20)
    monkeypatch.setattr(report, "MOST_RUNS", 20)
    monkeypatch.setattr(payload, "_FEWEST_POINTS", 3)
    monkeypatch.setattr(payload, "MOST_NUMBERS", 0)
    text = report.page(collection)
    data = read(text)
    assert (data["count"], data["epochs"]["grid"]) == (20, [1, 2, 5])
    assert "The first 20 of 43 runs are here; runs.csv has all." in text
    assert "Of the 5 epochs 3 are here" in text


def test_a_name_or_text_of_a_million_characters_is_cut(collection):
    text = payload.payload(collection)
    assert len(text) < LONG // 2
    assert "y" * 1000 + "… (1,000,000 characters)" in text


def read(text):
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def values(column, count):
    if "values" not in column:
        return [column["same"]] * count
    return [column["words"][i] for i in column["values"]] if "words" in column else column["values"]


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_data_are_the_collections(collection):
    data = json.loads(payload.payload(collection))
    columns = {column["name"]: column for column in data["columns"]}
    cut = {name for name in collection.runs.columns if len(name) < 80}
    assert cut - set(columns) == {"path", "test_loss", "test_acc", "best_test_loss", "best_test_acc"}  # said already
    assert values(columns["run"], data["count"]) == list(collection.runs["run"])
    assert values(columns["valid_acc"], data["count"]) == pytest.approx(list(collection.runs["valid_acc"]), rel=1e-6)
    assert values(columns["lr"], data["count"]) == list(collection.runs["lr"])
    assert data["epochs"]["counts"] == list(collection.runs["epoch"])
    assert numbers(data["epochs"]["columns"]["valid_acc"]) == pytest.approx(collection.epochs["valid_acc"], rel=1e-6)
    assert "test_acc" not in data["epochs"]["columns"]  # the same as valid_acc without a validation split
    spent = collection.epochs[["seconds", "eval_seconds"]].sum(axis=1).groupby(collection.epochs["run"]).cumsum()
    assert numbers(data["epochs"]["elapsed"]) == pytest.approx(spent, rel=1e-6)
    assert data["judged"] == "best_valid_acc"
    assert data["t"][1] == pytest.approx(4.302653, rel=1e-6)


def test_numbers_that_a_script_cannot_hold_are_texts(tmp_path):
    for seed in (2**60, 2**60 + 1):
        make_other(tmp_path, {"seed": seed, "lr": 0.1 + 0.2}, {"loss": [1e308, -1e308]}, metric="loss", maximize=False)
    data = json.loads(payload.payload(sweeps.load(tmp_path)))
    columns = {column["name"]: column for column in data["columns"]}
    assert sorted(values(columns["seed"], 2)) == [str(2**60), str(2**60 + 1)]
    assert values(columns["lr"], 2) == [0.1 + 0.2] * 2
    assert np.isfinite(numbers(data["epochs"]["columns"]["loss"])).all()


def test_data_of_one_s_own_go_by_their_files_names(small_npz, tmp_path, command):
    other = tmp_path / "other.npz"
    with np.load(small_npz) as arrays:
        np.savez(other, **{name: arrays[name][:100] for name in arrays})
    for path in (small_npz, other):
        done = command("data=npz", f"data.path={path}", "model.hidden=[4]", "bsz=50", "epochs=1", f"out={tmp_path}/out")
        assert done.returncode == 0, done.stderr
    columns = {column["name"]: column for column in read(report.page(sweeps.load(tmp_path / "out")))["columns"]}
    assert "data.checksums" not in columns
    assert sorted(columns["data.path"]["words"]) == ["clouds.npz", "other.npz"]


def test_words_in_the_page_s_text(tmp_path):
    """One seed is no number of seeds, backticks are code, quotations are in their language."""
    make_run(tmp_path, seed=5)
    text = report.page(sweeps.load(tmp_path))
    assert "<dt>Seed</dt><dd>5</dd>" in text
    text = report.page(sweeps.load(tmp_path), STUDY)
    assert f'<q lang="{STUDY.language}">' in text
    assert all(
        part.rpartition("<q")[2].startswith(' lang="zh"') for part in text.split("「")[1:] for part in [part[:40]]
    )
    plain = text.split('id="data"')[0]
    assert "`" not in plain.split("</style>")[1]
    assert "<code>mlp-sweeps" in plain


# -- in a browser ----------------------------------------------------------------------------------------------------


@in_browser
def test_nothing_is_fetched_and_no_hostile_text_runs(opened, page):
    opened.requests()
    opened.open(page)
    opened.click("choose-all")
    opened.run("state.cols = columns.map((column) => column.name); change()")
    opened.run("for (const button of [...document.querySelectorAll('#run-table tbody .open')]) button.click()")
    opened.run("document.querySelectorAll('details').forEach((element) => { element.open = true })")
    for view in ("scatter", "parallel", "difference", "curves"):
        opened.click(f"tab-{view}")
    opened.set("lines", "runs")
    opened.set("rows", "runs")
    opened.run("for (const button of [...document.querySelectorAll('#run-table tbody .open')]) button.click()")
    assert opened.run("return window.hacked ?? null") is None
    assert opened.run("return document.body.textContent.split('window.hacked=2').length") > 10  # it is there, as text
    assert opened.run("return document.querySelectorAll('img').length") == 9
    assert opened.run("return document.querySelectorAll('script').length") == 2
    assert set(opened.requests()) <= {page.as_uri(), "about:blank"}


@in_browser
def test_the_policy_keeps_out_a_script_that_gets_in(browser, page):
    browser.open(page)
    browser.errors()
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.hacked = 3';"
        "document.body.append(script); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hacked=4>')"
    )
    assert browser.run("return window.hacked ?? null") is None
    assert any("Content Security Policy" in message for message in browser.errors())


def points(path):
    """The points of a path of straight lines, wherever it is relative."""
    found, at = [], np.zeros(2)
    for command, numbers in re.findall(r"([MLl])([^MLlz]*)", path):
        for pair in np.reshape([float(number) for number in re.findall(r"-?(?:\d*\.)?\d+", numbers)], (-1, 2)):
            at = at + pair if command == "l" else pair
            found.append(at)
    return np.array(found)


def test_a_picture_in_the_page_is_the_figure(collection):
    drawn = figure(STUDY, STUDY.figures["fig5"], collection)
    whole = render(drawn, "svg").decode()
    small = unquote(inline.address(drawn).removeprefix("data:image/svg+xml,"))
    assert len(small) < len(whole) / 1.5
    before, after = (
        [path.get("d", "") for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
        for svg in (whole, small)
    )
    straight = [(old, new) for old, new in zip(before, after, strict=True) if not re.search("[QC]", old)]
    assert len(straight) > 50
    for old, new in straight:
        assert points(old) == pytest.approx(points(new), abs=0.051)
    for color, dark in re.findall(r"light-dark\((#\w+),(#\w+)\)", small):
        assert to_hex(on_dark(color)) == dark
    assert not re.search(r": #[0-9a-f]{6}", small)


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_the_page_s_colours(opened, scheme, tmp_path):
    opened.size(1280, 900, scheme)
    place = "const box = document.querySelector('#figures img').getBoundingClientRect();"
    x, y = opened.run(place + "return [box.left + 4, box.top + scrollY + 4]")
    opened.screenshot(tmp_path / "page.png")
    seen = imread(tmp_path / "page.png")[round(y), round(x), :3]
    assert seen == pytest.approx(to_rgb({"light": "white", "dark": PAGE}[scheme]), abs=0.01)


@in_browser
def test_figures_show(opened):
    assert opened.run("return [...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    assert opened.run("return [...document.images].every((image) => image.alt.length > 20)")


@in_browser
def test_tables_sort_by_keyboard(opened):
    def column():
        return opened.run(
            "const table = document.querySelector('#tables table');"
            "return [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value))"
        )

    opened.run("document.querySelector('#tables table').tHead.rows[0].cells[1].querySelector('button').focus()")
    opened.press("Enter")
    assert column() == sorted(column())
    opened.press("Space")
    assert column() == sorted(column(), reverse=True)
    assert len(set(column())) > 1
    sort = opened.run("return document.querySelector('#tables table').tHead.rows[0].cells[1].ariaSort")
    assert sort == "descending"


@in_browser
def test_everything_is_reached_by_tab(opened):
    reached = set()
    for _ in range(400):
        opened.press("Tab")
        reached.add(opened.run("return document.activeElement.id || document.activeElement.tagName"))
        if "at" in reached:
            break
    wanted = {"theme", "by", "rows", "filter", "only", "next", "choose-best", "save-table", "tab-curves", "save-svg"}
    assert wanted | {"metric", "x", "lines", "smooth", "logx", "logy", "zoom-in", "curves", "at"} <= reached


ROWS = "#run-table tbody tr"
CHOSEN = "#run-table tbody input:checked"


@in_browser
def test_the_first_view_says_which_is_best_and_how_sure_that_is(opened, collection):
    runs = collection.runs.groupby([c for c in collection.runs if c in ("model", "activ", "loss", "lr", "wd", "mo")])
    best = runs["best_valid_acc"].mean().max()
    said = opened.text("answer")
    assert f"{best:.2f}" in said
    assert "95 % interval of 2 runs" in said
    assert "cannot be told from it" in said
    assert opened.count(ROWS) == 12
    assert opened.count(CHOSEN) == opened.count("#curves .curve") == 6
    assert opened.count("#run-table svg.strip .seeds") == 12
    assert opened.text("run-count").endswith("of 22 configurations, 6 chosen")


@in_browser
@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("lr=0.1", 3),
        ("state=diverged", 1),
        ("activ=gelu,tanh seed=1", 4),
        ("lr<=0.001 seed!=1", 2),
        ("valid_acc>1000", 0),
        ('"activ"="gelu" seed=1', 2),
        ("nothing-like-it", 0),
    ],
)
def test_runs_are_filtered_as_on_the_command_line(opened, words, count):
    opened.set("rows", "runs")
    opened.set("filter", words)
    assert opened.count(ROWS) == count


@in_browser
def test_rows_are_paged_sorted_and_opened(opened):
    opened.set("rows", "runs")
    ids = "return [...document.querySelectorAll('#run-table tbody tr')].map((row) => row.dataset.run)"
    first = opened.run(ids)
    opened.run("document.getElementById('next').focus()")
    opened.press("Enter")
    assert len(first) == len(opened.run(ids)) == 12
    assert not set(first) & set(opened.run(ids))
    opened.run("[...document.querySelectorAll('#run-table th button')].find((b) => b.textContent === 'lr').focus()")
    opened.press("Enter")
    opened.press("Enter")
    headings = "return [...document.querySelectorAll('#run-table thead th')].map((th) => [th.textContent, th.ariaSort])"
    place, sort = next((i, sort) for i, (text, sort) in enumerate(opened.run(headings)) if text == "lr")
    assert sort == "descending"
    cells = "return [...document.querySelectorAll('#run-table tbody tr')].map((row) => row.cells[PLACE].textContent)"
    lr = list(map(float, opened.run(cells.replace("PLACE", str(place)))))
    assert lr == sorted(lr, reverse=True)
    assert lr[0] == 0.1
    opened.run("document.querySelector('#run-table tbody .open').focus()")
    opened.press("Enter")
    shown = opened.run("return document.querySelector('#run-table .detail').textContent")
    assert all(key in shown for key in ("source_sha256", "git_commit", "cpu", "init_std"))
    opened.press("Enter")
    assert opened.count("#run-table .detail") == 0


@in_browser
def test_a_group_opens_to_its_runs(opened):
    opened.run("document.querySelector('#run-table tbody .open').focus()")
    opened.press("Enter")
    assert opened.count("#run-table .nested") == 2
    assert opened.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    opened.run("document.querySelector('#run-table .nested .open').click()")
    assert "source_sha256" in opened.run("return document.querySelector('#run-table .detail').textContent")


@in_browser
def test_groups_are_by_any_keys(opened):
    for _ in range(opened.count("#group-boxes input:checked")):
        opened.run("document.querySelector('#group-boxes input:checked').click()")
    assert opened.count(ROWS) == 1
    assert "43 runs" in opened.run("return document.querySelector('#run-table tbody').textContent")
    opened.tick("group-boxes", "lr")
    assert opened.count(ROWS) == 4
    assert "4 groups" in opened.text("run-count")


@in_browser
def test_columns_are_of_choice(opened):
    opened.tick("column-boxes", "cpu")
    assert "cpu" in opened.run("return document.querySelector('#run-table thead').textContent")


@in_browser
def test_curves_are_of_the_chosen_rows_and_can_be_read(opened):
    opened.run("document.querySelector('#run-table tbody input').focus()")
    opened.press("Space")
    assert opened.count("#curves .curve") == 5
    opened.click("choose-all")
    assert opened.count("#curves .curve") == 21 + 1  # the diverged run's hostile configuration is one of its own
    assert opened.count("#curves .stop") == 1
    opened.click("choose-best")
    opened.run("document.getElementById('at').focus()")
    opened.press("Home")
    assert opened.text("at-value") == "epoch 1"
    opened.press("Right")
    value = "return document.querySelector('#legend .value').textContent"
    second = opened.run(value)
    mean = opened.run("return meanCurve(chosenRows()[0], 'valid_acc', 'epoch')[1].y")
    assert float(second.split(" ±")[0]) == pytest.approx(mean, abs=0.01)
    assert "±" in second
    opened.set("metric", "train_loss")
    assert opened.run(value) != second


@in_browser
def test_a_line_that_ended_says_its_last_value(opened):
    opened.set("rows", "runs")
    opened.set("filter", "activ=relu loss=ce lr=0.1")
    opened.click("choose-all")
    opened.set("filter", "")
    opened.set("rows", "runs")
    opened.set("filter", "lr=0.1")
    opened.click("choose-all")
    assert "(ended at epoch 2)" in opened.text("legend")
    assert "–" not in opened.text("legend").replace("−", "")


@in_browser
def test_curves_zoom_smooth_and_change_their_axes(opened):
    path = "return document.querySelector('#curves .curve').getAttribute('d')"
    seen = [opened.run(path)]
    for name, value in (("smooth", "0.6"), ("x", "time"), ("logy", False), ("logx", True), ("lines", "runs")):
        opened.set(name, value)
        seen.append(opened.run(path))
    assert len(set(seen)) == len(seen)
    assert opened.count("#curves .curve") == 12
    assert opened.run(
        "return [...document.querySelectorAll('#curves text')].some((t) => t.textContent === 'seconds of training')"
    )
    opened.run("document.getElementById('curves').scrollIntoView({ block: 'center' })")
    box = opened.run(
        "const b = document.getElementById('curves').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    left, top, width, height = box
    opened.drag((left + 0.4 * width, top + 0.3 * height), (left + 0.7 * width, top + 0.7 * height))
    zoom = opened.run("return state.zoom.split('_').map(Number)")
    assert len(zoom) == 4
    assert opened.run(path) != seen[-1]
    opened.run("document.getElementById('curves').focus()")
    opened.press("+")
    closer = opened.run("return state.zoom.split('_').map(Number)")
    assert zoom[0] < closer[0] < closer[1] < zoom[1]
    opened.press("0")
    assert opened.run("return state.zoom") == ""


@in_browser
def test_pointing_at_the_plot_reads_the_nearest_epoch(opened):
    opened.run(
        "const chart_ = document.getElementById('curves'), box = chart_.getBoundingClientRect();"
        "const at = { clientX: box.left + chart.x.at(3) + 2, clientY: box.top + 9 };"
        "chart_.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    assert opened.text("at-value") == "epoch 3"


@in_browser
def test_the_scatter_is_of_any_columns_and_chooses(opened):
    opened.click("tab-scatter")
    points = "return scatter.points.length"
    assert opened.run(points) == 22
    for name, value in (("sx", "epoch_seconds"), ("sy", "train_loss"), ("color", "activ")):
        opened.set(name, value)
    assert opened.run(points) == 22
    assert opened.count("#scatter .ring") == 6
    assert "tanh" in opened.text("scatter-colors")
    opened.run("document.getElementById('scatter').scrollIntoView({ block: 'center' })")
    place = opened.run(
        "const box = document.getElementById('scatter').getBoundingClientRect(), point = scatter.points[0];"
        "return [box.left + point.px, box.top + point.py]"
    )
    opened.drag(place)
    assert opened.run("return state.chosen.filter(Boolean).length") in (5, 7)
    assert opened.count("#scatter .ring") in (5, 7)


@in_browser
def test_brushing_parallel_coordinates_filters_the_table(opened):
    opened.click("tab-parallel")
    assert opened.count("#parallel .axis") >= 6
    opened.run("document.getElementById('parallel').scrollIntoView({ block: 'center' })")
    axis = (
        "const box = document.getElementById('parallel').getBoundingClientRect();"
        "const axis = parallel.axes.find((a) => a.column.name === arguments[0]);"
        "return arguments[1].map((v) => [box.left + axis.x, box.top + axis.scale.at(v)])"
    )
    opened.drag(*opened.run(axis, "lr", [0.0005, 0.02]))
    assert opened.run("return state.filter").startswith("lr>=0.000")
    assert opened.run(
        "return rows.every((row) => row.value(columnOf.get('lr')) >= 0.0005 && row.value(columnOf.get('lr')) <= 0.02)"
    )
    assert 0 < opened.run("return rows.length") < 22
    assert opened.count("#parallel .brush") == 1
    assert opened.count("#parallel .others") == 1
    words = opened.run("return parallel.axes.find((a) => a.column.name === 'activ').words")
    gelu = words.index("gelu")
    opened.drag(*opened.run(axis, "activ", [gelu - 0.3, gelu + 0.3]))
    assert opened.run("return state.filter").endswith(" activ=gelu")
    opened.drag(*opened.run(axis, "lr", [0.01]))
    assert opened.run("return state.filter") == "activ=gelu"
    assert opened.run("return document.getElementById('filter').value") == "activ=gelu"


@in_browser
def test_hostile_values_can_be_brushed(opened):
    opened.run("state.cols = ['optim.note', state.by]; change()")
    opened.click("tab-parallel")
    condition = opened.run(
        "const axis = parallel.axes[0]; return brushed(axis, axis.scale.at(-0.4), axis.scale.at(0.4))"
    )
    opened.set("filter", condition[0])
    assert 0 < opened.run("return rows.length") < 22


@in_browser
def test_the_difference_is_what_differs_side_by_side(opened):
    opened.set("filter", "activ=relu,tanh loss=ce lr=0.01 wd=0.001 mo=0.9")
    opened.click("choose-all")
    opened.click("tab-difference")
    text = opened.text("difference-table")
    assert "activ" in text
    assert "model" in text
    headings = opened.run(
        "return [...document.querySelectorAll('#difference-table tbody th')].map((th) => th.textContent)"
    )
    assert "lr" not in headings
    assert "lr" in opened.text("same")
    a, b = opened.run("return chosenRows().slice(0, 2).map((row) => row.stat(byColumn()).mean)")
    gap = opened.run("return difference(chosenRows()[1].stat(byColumn()), chosenRows()[0].stat(byColumn()))")
    assert gap["mean"] == pytest.approx(b - a)
    assert opened.count("#difference-table .gap") > 3


@in_browser
def test_intervals_in_the_page_are_the_library_s(opened):
    from sweeps.judge.statistics import estimate
    from sweeps.read.summary import half_width, interval

    rng = np.random.default_rng(3)
    for n in (2, 3, 10, 31, 200):
        a, b = rng.normal(size=n), rng.normal(0.3, 2, size=n + 1)
        found = opened.run("return interval(arguments[0])", list(a))
        assert (found["mean"], found["half"]) == pytest.approx(interval(a), rel=1e-4)
        gap = opened.run("return difference(interval(arguments[0]), interval(arguments[1]))", list(a), list(b))
        low, high = estimate(tuple(a), tuple(b)).interval(0.95)
        assert gap["mean"] == pytest.approx((low + high) / 2)
        assert gap["half"] >= (high - low) / 2 * 0.9999  # degrees of freedom are rounded down
        assert gap["half"] == pytest.approx((high - low) / 2, rel=0.6 if n < 4 else 0.1)
    assert opened.run("return quantile(1000)") * 1001**-0.5 == pytest.approx(float(half_width(1.0, 1001)), rel=1e-5)


@in_browser
def test_a_link_shows_what_its_sender_saw(opened, page):
    opened.set("filter", "loss=ce")
    opened.run("document.querySelector('#run-table tbody input').click()")
    opened.set("metric", "train_loss")
    opened.set("x", "time")
    opened.set("smooth", "0.3")
    opened.set("lines", "both")
    opened.run("zoomBy(0.5)")
    opened.run("document.querySelector('#run-table tbody .open').click()")
    opened.run("[...document.querySelectorAll('#run-table th button')].find((b) => b.textContent === 'lr').click()")
    seen = "return [document.getElementById('run-table').outerHTML, document.getElementById('view-curves').outerHTML]"
    mine, address = opened.run(seen), opened.state()
    opened.open(page, address)
    assert opened.run(seen) == mine
    assert opened.run("return document.getElementById('filter').value") == "loss=ce"
    opened.open(
        page, "#by=nothing&rows=x&view=y&metric=z&x=q&zoom=1_2&group=nothing&cols=nothing&chosen=nothing&page=-3"
    )
    assert opened.count("#run-table thead th") >= 1


@in_browser
def test_runs_without_any_metric_leave_the_address_alone(browser, tmp_path):
    make_other(tmp_path, {"lr": 0.1}, {}, metric="loss", state="running", target=5)
    browser.open(report.write(sweeps.load(tmp_path), tmp_path), "#compare")
    assert browser.state() == "#compare"
    assert "No run has a value" in browser.text("answer")
    for view in ("scatter", "parallel", "difference", "importance", "curves"):
        browser.click(f"tab-{view}")
    assert browser.errors() == []


@in_browser
def test_a_verdict_leads_to_its_runs(opened, tmp_path):
    make_report(tmp_path / "out", epochs=100, seeds=4)
    found, study = sweeps.load(tmp_path / "out"), replace(STUDY, figures={}, tables={})
    for table in (found.runs, found.epochs):  # synthetic runs of a seed are all alike
        for i, column in enumerate(column for column in table.columns if column.endswith(("_loss", "_acc", "seconds"))):
            table[column] *= 1 + 1e-3 * np.random.default_rng(i).normal(size=len(table))
    finding = next(finding for finding in evaluate(study, found) if finding.runs)
    opened.open(report.write(found, tmp_path / "written", study))
    opened.run("document.querySelector('#hypotheses a.choose').click()")
    assert opened.run("return rows.map((row) => nameOf(row.first)).sort()") == sorted(finding.runs)
    assert opened.run("return document.activeElement.id") == "compare"
    assert len(opened.state()) > 100
    opened.run("history.back()")


@in_browser
def test_what_is_shown_can_be_saved(opened, tmp_path):
    opened.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))

    def saved(button, name):
        opened.click(button)
        deadline = time.monotonic() + 60
        while not (tmp_path / name).is_file():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        content = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        return content

    opened.run("state.cols = [...shownColumns().map((c) => c.name), 'config.xxx', 'optim.note']; change()")
    table = list(csv.DictReader(io.StringIO(saved("save-table", "runs.csv"))))
    assert len(table) == 22
    assert float(table[0]["best_valid_acc"]) >= float(table[1]["best_valid_acc"])
    assert {"best_valid_acc_half", "best_valid_acc_n"} <= set(table[0])
    curves = list(csv.DictReader(io.StringIO(saved("save-data", "curves.csv"))))
    assert len(curves) == 6 * 5
    picture = ElementTree.fromstring(saved("save-svg", "curves.svg"))
    lines = [path for path in picture.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke-width") == "1.8px"]
    assert len(lines) == 6
    assert all(path.get("stroke").startswith("rgb(") for path in lines)
    for view, name in (("scatter", "scatter.csv"), ("parallel", "parallel.csv"), ("difference", "difference.csv")):
        opened.click(f"tab-{view}")
        assert len(list(csv.reader(io.StringIO(saved("save-data", name))))) > 5


@in_browser
def test_no_saved_text_is_a_formula(opened):
    assert opened.run("return csv([['=1+1', '-2', -2, 'a\"b', null]])") == '\'=1+1,-2,-2,"a""b",\n'


@in_browser
def test_importance_is_of_what_the_table_is_by(opened, collection):
    opened.click("tab-importance")
    rows = (
        "return [...document.querySelectorAll('#importance-table tbody tr')]"
        ".map((row) => [row.cells[0].textContent, row.cells[2].textContent])"
    )
    for column in ("best_valid_acc", "train_loss"):
        opened.set("by", column)
        table = importance(collection, column)
        assert dict(opened.run(rows)) == {
            key if len(key) < 80 else key[:80] + f"… ({len(key):,} characters)": f"{100 * share:.1f} %"
            for key, share in zip(table["key"], table["share"], strict=True)
        }
    assert opened.count("#importance-table svg.share") > 5


@in_browser
def test_tabs_go_by_arrows(opened):
    opened.run("document.getElementById('tab-curves').focus()")
    for name in ("scatter", "parallel", "difference", "importance", "curves"):
        opened.press("Right")
        assert opened.run("return document.activeElement.id") == f"tab-{name}"
        assert opened.run(
            "return [...document.querySelectorAll('[role=tabpanel]')].filter((p) => !p.hidden).map((p) => p.id)"
        ) == [f"view-{name}"]


@in_browser
def test_ten_thousand_runs(browser, collection, tmp_path):
    few = collection.runs[collection.runs["state"] == "finished"].drop(columns=["config." + "x" * LONG, "optim.note"])
    runs = pd.concat([few] * 250, ignore_index=True).head(10_000)
    count = len(runs)
    runs["seed"] = np.arange(count) // 21
    runs["run"] = [f"run-{i:05}" for i in range(count)]
    runs["best_valid_acc"] += np.random.default_rng(0).normal(0, 0.1, count)
    epochs = collection.epochs.head(5)
    epochs = pd.concat([epochs] * count, ignore_index=True).assign(run=runs["run"].repeat(5).to_numpy())
    written = report.write(replace(collection, runs=runs, epochs=epochs, problems=()), tmp_path)
    browser.size(1280, 900)
    browser.open(written)
    assert browser.count("#curves .curve") == 6
    browser.set("rows", "runs")
    for view in ("scatter", "parallel", "difference"):
        browser.click(f"tab-{view}")
    browser.click("tab-scatter")
    assert browser.run("return scatter.points.length") == 10_000
    browser.click("choose-all")
    browser.set("only", True)
    assert browser.run("return rows.length") == 200
    assert browser.errors() == []


@in_browser
def test_the_theme_follows_the_system_until_it_is_chosen(opened):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = opened.run(paper)
    opened.size(1280, 900, "dark")
    dark = opened.run(paper)
    assert light != dark
    opened.run("document.getElementById('theme').focus()")
    opened.press("Enter")
    assert opened.run(paper) == light
    opened.press("Enter")
    opened.size(1280, 900, "light")
    assert opened.run(paper) == dark


_CONTRAST = """
const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const light = (color) => {
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (color !== 'rgba(0, 0, 0, 0)') return color;
  }
};
const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const bad = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.disabled || !element.getClientRects().length || element.closest('svg')) continue;
  const found = ratio(light(getComputedStyle(element).color), light(behind(element)));
  if (found < 4.5) bad.push([element.outerHTML.slice(0, 80), found]);
}
for (const curve of document.querySelectorAll('#curves .curve')) {
  const found = ratio(light(getComputedStyle(curve).stroke), light(behind(curve)));
  if (found < 3) bad.push([curve.getAttribute('class'), found]);
}
return bad;
"""


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_with_enough_contrast(opened, width, scheme):
    opened.size(width, 800, scheme)
    opened.click("choose-all")
    for view in ("scatter", "parallel", "difference", "curves"):
        opened.click(f"tab-{view}")
        assert opened.run("return document.documentElement.scrollWidth") <= width
        assert opened.run(_CONTRAST) == []


@in_browser
def test_headings_labels_and_names_are_in_order(opened):
    levels = opened.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    unnamed = opened.run(
        "return [...document.querySelectorAll('input, select, button, [role=region]')].filter((element) =>"
        " !(element.labels?.length || element.ariaLabel || element.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    children = "return [...document.querySelectorAll('[role=tablist] > *')].every((tab) => tab.role === 'tab')"
    assert opened.run(children)
    assert opened.run("return document.documentElement.lang") == "en"
