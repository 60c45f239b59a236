"""The report page, opened in a real headless Chromium by the W3C WebDriver protocol."""

import base64
import html
import itertools
import json
import shutil
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from synthetic import history, make_report, make_run

import sweeps
from sweeps.judge.hypotheses import evaluate
from sweeps.runs.errors import InputError
from sweeps.show import payload, report
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

    def open(self, page):
        self._call("POST", "/url", {"url": page.as_uri()})
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


HOSTILE = '</script><script>window.hacked=1</script>"><img src=x onerror="window.hacked=2"><!-- {{data}} \''


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
    for metric in ("train_loss", "train_acc", "best_valid_acc"):  # synthetic runs of a seed are all alike
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
    assert text.count("<figure>") == text.count('src="data:image/svg+xml;base64,') == figures == 9
    for finding in evaluate(STUDY, collection):
        assert f"<summary>{html.escape(finding.text)}</summary>" in text
        assert html.escape(finding.detail) in text
    for spec in [*STUDY.tables.values(), *STUDY.figures.values()]:
        assert html.escape(spec.title if spec.name in STUDY.tables else spec.caption) in text
    assert f"mlp-sweeps report study={STUDY.word}" in text


def test_without_a_study_there_is_nothing_of_the_course_report(collection):
    text = report.page(collection)
    assert "<figure>" not in text
    assert [section for section in ("hypotheses", "tables", "figures") if f'id="{section}"' in text] == []
    for word in (STUDY.title, "Table 1", "Hinge", "ReLU", "study=", "course"):
        assert word not in text, word
    assert "Best valid accuracy" in text  # of networks, whose metrics are known


def test_no_run_at_all_is_an_input_error(collection, tmp_path):
    empty = replace(collection, runs=collection.runs.head(0), epochs=collection.epochs.head(0))
    with pytest.raises(InputError, match="no runs to report"):
        report.write(empty, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ten_thousand_runs_are_cut_and_the_page_says_so(collection, monkeypatch):
    for name, limit in (("MOST_CURVES", 3), ("MOST_SINGLES", 10), ("MOST_RUNS", 20)):
        monkeypatch.setattr(payload, name, limit)
        monkeypatch.setattr(report, name, limit)
    text = report.page(collection)
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert (len(data["groups"]), len(data["singles"]), data["runs"]["count"]) == (3, 0, 20)
    assert "configurations the 3 of the best valid accuracy are here" in text
    assert "Single runs are left out, because there are more than 10." in text
    assert "The first 20 of 43 runs" in text


def test_the_data_are_the_collections(collection):
    data = json.loads(payload.payload(collection))
    columns = {column["name"]: column for column in data["runs"]["columns"]}
    assert set(columns) == set(collection.runs.columns)
    runs = [columns["run"]["words"][i] for i in columns["run"]["values"]]
    assert runs == list(collection.runs["run"])
    assert columns["valid_acc"]["values"] == pytest.approx(list(collection.runs["valid_acc"]), rel=1e-4)
    stopped = [single for single in data["singles"] if single["stops"]]
    assert [(single["stops"][0][0], len(single["values"]["train_loss"])) for single in stopped] == [(2, 2)]
    assert "test_acc" not in stopped[0]["values"]  # the same as valid_acc without a validation split
    assert sum("diverged" in group["label"] for group in data["groups"]) == 1


# -- in a browser ----------------------------------------------------------------------------------------------------


@in_browser
def test_nothing_is_fetched_and_no_hostile_text_runs(opened, page):
    opened.requests()
    opened.open(page)
    for button in ("#run-table tbody button", "#show-all"):
        opened.run("for (const button of document.querySelectorAll(arguments[0])) button.click()", button)
    opened.run("document.querySelectorAll('details').forEach((element) => { element.open = true })")
    opened.run(
        "const lines = document.getElementById('lines'); lines.value = 'singles';"
        "lines.dispatchEvent(new Event('change'))"
    )
    assert opened.run("return window.hacked ?? null") is None
    assert opened.run("return document.body.textContent.split('window.hacked=2').length") > 10  # it is there, as text
    assert opened.run("return document.querySelectorAll('img').length") == 9
    assert opened.run("return document.querySelectorAll('script').length") == 2
    assert opened.requests() == [page.as_uri()]


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
        if "next" in reached:
            break
    assert {"theme", "metric", "lines", "log", "epoch", "curve-find", "show-all", "run-filter", "next"} <= reached


@in_browser
def test_curves_can_be_chosen_and_read(opened):
    count = "return document.querySelectorAll('#chart .curve').length"
    assert opened.run(count) == 6
    opened.run("document.querySelector('#legend input').focus()")
    opened.press("Space")
    assert opened.run(count) == 5
    opened.press("Space")
    opened.run("document.getElementById('show-all').click()")
    assert opened.run(count) == 21 + 1  # the diverged run's hostile configuration is one of its own
    assert opened.run("return document.querySelectorAll('#chart .stop').length") == 1
    opened.run("document.getElementById('epoch').focus()")
    opened.press("Home")
    assert opened.run("return document.getElementById('epoch-value').textContent") == "1"
    opened.press("Right")
    value = "return document.querySelector('#legend .value').textContent"
    second = opened.run(value)
    best = opened.run("return data.groups[0].values.valid_acc[1]")
    assert float(second.split(" ±")[0]) == pytest.approx(best, abs=0.01)
    assert "±" in second
    opened.run(
        "const metric = document.getElementById('metric'); metric.value = 'train_loss';"
        "metric.dispatchEvent(new Event('change'))"
    )
    assert opened.run(value) != second


@in_browser
def test_pointing_at_the_plot_reads_the_nearest_epoch(opened):
    opened.run(
        "const chart = document.getElementById('chart'), box = chart.getBoundingClientRect();"
        "const at = { clientX: box.left + scale.x(3) + 2, clientY: box.top + 9 };"
        "chart.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    assert opened.run("return document.getElementById('epoch-value').textContent") == "3"


@in_browser
@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("lr=0.1", 3),
        ("state=diverged", 1),
        ("activ=gelu,tanh seed=1", 4),
        ("lr<=0.001 seed!=1", 2),
        ("nothing-like-it", 0),
    ],
)
def test_runs_are_filtered_as_on_the_command_line(opened, words, count):
    opened.run(
        "const filter = document.getElementById('run-filter'); filter.value = arguments[0];"
        "filter.dispatchEvent(new Event('input'))",
        words,
    )
    assert opened.run("return document.querySelectorAll('#run-table tbody tr').length") == count


@in_browser
def test_runs_are_paged_sorted_and_opened(opened):
    ids = "return [...document.querySelectorAll('#run-table tbody tr')].map((row) => row.cells[0].textContent)"
    first = opened.run(ids)
    opened.run("document.getElementById('next').focus()")
    opened.press("Enter")
    assert len(first) == 25
    assert len(opened.run(ids)) == 43 - 25
    assert not set(first) & set(opened.run(ids))
    opened.run("[...document.querySelectorAll('#run-table th button')].find((b) => b.textContent === 'lr').focus()")
    opened.press("Enter", "Enter")
    place = opened.run(
        "return [...document.querySelectorAll('#run-table th')].findIndex((th) => th.textContent.startsWith('lr'))"
    )
    cells = "return [...document.querySelectorAll('#run-table tbody tr')].map((row) => row.cells[PLACE].textContent)"
    lr = list(map(float, opened.run(cells.replace("PLACE", str(place)))))
    assert lr == sorted(lr, reverse=True)
    assert lr[0] == 0.1
    opened.run("document.querySelector('#run-table tbody button').focus()")
    opened.press("Enter")
    shown = opened.run("return document.querySelector('#run-table .detail').textContent")
    assert all(key in shown for key in ("source_sha256", "git_commit", "cpu", "init_std"))
    opened.press("Enter")
    assert opened.run("return document.querySelector('#run-table .detail')") is None


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
for (const curve of document.querySelectorAll('#chart .curve')) {
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
    opened.run("document.getElementById('show-all').click()")
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
    assert opened.run("return document.documentElement.lang") == "en"
