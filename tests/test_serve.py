"""``python -m sweeps serve``: the real command, real HTTP, and a real Chromium beside a real sweep."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import test_report
from conftest import ROOT
from synthetic import history, make_report, make_run

import sweeps
from sweeps.runs import notes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.show import report, serve
from sweeps.show.serve import Pages, Server, Tree

browser = test_report.browser


@dataclass
class Served:
    process: subprocess.Popen
    url: str

    def ask(self, path="/", *, method="GET", token=True, host=None):
        """(answer, its content)"""
        url = urlsplit(self.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
        headers = {} if host is None else {"Host": host}
        connection.request(method, path + (f"?{url.query}" if token is True else token or ""), headers=headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer, content


@contextlib.contextmanager
def serving(out, *words, cwd):
    command = [sys.executable, "-m", "sweeps", "serve", "--out", str(out), "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        yield Served(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def until(found, wanted, seconds=240):
    """Ask again and again until the answer is what is wanted; the bound is for a busy machine."""
    end = time.monotonic() + seconds
    while not wanted(answer := found()):
        assert time.monotonic() < end, answer
        time.sleep(0.2)
    return answer


def files(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if ".collect" not in path.parts and path.is_file()}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "outputs"
    make_run(folder, seed=0)
    make_run(folder, seed=1, state="diverged", rows=history(2), target=3)
    return folder


@pytest.fixture(scope="module")
def served(out):
    with serving(out, cwd=out) as served:
        yield served


def test_it_is_the_page_with_one_more_script(served, out):
    before = files(out)
    answer, content = served.ask()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    page = report.page(sweeps.load(out))
    script = (ROOT / "sweeps" / "show" / "serve.js").read_text()
    plain = re.sub(r"<script data-version=\"\w+\">" + re.escape(script) + "</script>(?=</body>)", "", content)
    assert re.sub(r"connect-src 'self'; script-src \S+ ", "script-src ", plain) == page
    version = served.ask("/version")[1]
    assert f'data-version="{version}"' in content
    head, nothing = served.ask(method="HEAD")
    assert (head.status, nothing) == (200, "")
    assert int(head.headers["Content-Length"]) == len(content.encode())
    assert files(out) == before


@pytest.mark.parametrize(
    ("wanted", "request_"),
    [
        (403, {"token": None}),
        (403, {"token": "?token="}),
        (403, {"token": "?token=%ff%E2%98%83%00"}),
        (403, {"path": "/version", "token": None}),
        (403, {"path": "/nothing", "token": None}),
        (403, {"host": "evil.example"}),
        (403, {"host": "127.0.0.1.evil.example:80"}),
        (403, {"host": "[evil"}),
        (403, {"host": ""}),
        (404, {"path": "/runs.csv"}),
        (404, {"path": "/../../etc/passwd"}),
        (404, {"path": "//[evil"}),
        (405, {"method": "POST"}),
        (405, {"method": "DELETE", "path": "/version"}),
        (405, {"method": "OPTIONS"}),
        (501, {"method": "TRACE"}),
    ],
)
def test_without_the_token_or_by_another_name_there_is_nothing(served, wanted, request_):
    answer, content = served.ask(**request_)
    assert answer.status == wanted
    assert "relu" not in content
    assert "<script" not in content


@pytest.mark.parametrize("host", ["localhost:8780", "127.0.0.1", "[::1]:80", "192.0.2.1:9"])
def test_names_that_no_other_site_can_have(served, host):
    assert served.ask(host=host)[0].status == 200


def test_each_server_has_a_token_of_its_own(out):
    tokens = set()
    for _ in range(2):
        with Server("127.0.0.1", 0, Pages(str, str)) as server:
            tokens.add(server.token)
            assert server.url == f"http://127.0.0.1:{server.server_port}/?token={server.token}"
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


def test_on_every_address_its_own_is_localhost():
    with Server("0.0.0.0", 0, Pages(str, str)) as server:
        assert server.url.startswith("http://localhost:")


def test_ctrl_c_ends_it_with_a_line(out):
    with serving(out, cwd=out) as served:
        assert served.ask("/version")[0].status == 200
        served.process.send_signal(signal.SIGINT)
        printed, said = served.process.communicate(timeout=60)
    assert served.process.returncode == 130
    assert printed.splitlines()[-1] == "ended"
    assert said == ""


def test_a_client_that_goes_away_is_not_mentioned(out):
    with serving(out, cwd=out) as served:
        url = urlsplit(served.url)
        with socket.create_connection((url.hostname, url.port)) as client:
            client.sendall(f"GET /?{url.query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # the server gets a reset
        assert served.ask()[0].status == 200
        served.process.send_signal(signal.SIGINT)
        assert served.process.communicate(timeout=60)[1] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "PORT"], "error: --port=PORT: cannot be listened on at 127.0.0.1 (Address already in use); give"),
        (["--port", "99999"], "error: --port=99999: must be a whole number ≥ 0 and ≤ 65535"),
        (["--host", "no.such.host.invalid"], "error: --host=no.such.host.invalid: cannot be listened on"),
        (["--host", "192.0.2.1"], "error: --host=192.0.2.1: cannot be listened on (Cannot assign requested address)"),
        (["study=none"], "error: study=none: no such study"),
        (["lr~1"], "error: filter=lr~1: must be KEY=VALUE"),
    ],
)
def test_unusable_input_is_one_line(command, out, words, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [word.replace("PORT", port) for word in words]
        done = command("serve", "--out", out, *words, module="sweeps")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(said.replace("PORT", port))


def test_what_cannot_be_shown_is_said_until_it_can(tmp_path):
    """No results tree, then a study with an error, then the page."""
    shutil.copytree(ROOT / "conf" / "study", tmp_path / "studies")
    study = tmp_path / "studies" / "report.yaml"
    content = study.read_text()
    study.write_text(content.replace("title:", "titel:", 1))
    with serving(tmp_path / "out", f"study={study}", cwd=tmp_path) as served:
        answer, content_ = served.ask()
        assert answer.status == 503
        assert "titel" in content_
        assert "default-src &#x27;none" not in content_
        assert "default-src 'none'; connect-src 'self'" in answer.headers["Content-Security-Policy"]
        study.write_text(content)
        assert "holds no runs" in until(lambda: served.ask()[1], lambda text: "titel" not in text)
        make_report(tmp_path / "out", seeds=1)
        until(lambda: served.ask()[0].status, lambda status: status == 200)
        assert served.process.poll() is None


# ------------------------------------------------------------------------------------------------------ when to build


HTML = "<meta content=\"script-src 'self'\"><body>%s</body>"


def test_a_page_is_built_when_the_tree_has_changed(monkeypatch):
    monkeypatch.setattr(serve, "_REST", 0)
    monkeypatch.setattr(serve, "_LEAST_REST", 0)
    built, tree = [], ["a"]
    pages = Pages(lambda: HTML % (built.append(tree[0]) or tree[0]), lambda: tree[0])
    first = pages.newest()
    assert pages.newest() == first
    tree[0] = "b"
    assert pages.newest().version != first.version
    pages.newest()
    assert built == ["a", "b"]


def test_a_page_is_not_built_all_the_time(monkeypatch):
    monkeypatch.setattr(serve, "_LEAST_REST", 1e9)
    tree = iter(range(9))
    pages = Pages(lambda: HTML % next(tree), lambda: str(next(tree)))
    assert {pages.newest().version for _ in range(9)} == {pages.newest().version}
    assert next(tree) == 2


def test_while_one_builds_the_others_get_the_page_before(monkeypatch):
    monkeypatch.setattr(serve, "_LEAST_REST", 0)
    monkeypatch.setattr(serve, "_REST", 0)
    begun, go = threading.Event(), threading.Event()
    trees = iter("ab")

    def build():
        if first:
            begun.set()
            assert go.wait(60)
        return HTML % len(first)

    first = []
    pages = Pages(build, lambda: next(trees))
    first.append(pages.newest())
    thread = threading.Thread(target=pages.newest)
    thread.start()
    assert begun.wait(60)
    assert pages.newest() == first[0]
    go.set()
    thread.join()
    assert pages._page != first[0]


def test_a_defect_in_building_does_not_end_it(capsys):
    def build():
        raise KeyError("<b>bold</b>")

    page = Pages(build, str).newest()
    assert page.status == 503
    assert b"&lt;b&gt;bold" in page.content
    assert "Traceback" in capsys.readouterr().err


def test_a_page_without_a_policy_is_a_defect(capsys):
    assert Pages(lambda: "<body></body>", str).newest().status == 503
    assert "no policy" in capsys.readouterr().err


def test_the_tree_changes_with_everything_on_the_page(tmp_path):
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    tree = Tree(out, [study])
    seen = [tree(), tree()]
    assert seen.pop() == seen[0]

    def is_new():
        seen.append(tree())
        assert tree() == seen[-1]
        return seen[-1] not in seen[:-1]

    run = make_run(out, seed=1, state="running", epochs=2, target=9)
    with run.lock():
        assert is_new()
    assert is_new()  # its process has gone
    run.metrics.write_bytes(run.metrics.read_bytes() + run.metrics.read_bytes().splitlines(keepends=True)[-1])
    assert is_new()
    notes.edit(RunDir(run.path), lambda old: old.tagged(["good"]))
    assert is_new()
    study.write_text("title: x")
    assert is_new()
    (out / "sweeps" / "mine").mkdir(parents=True)
    (out / "sweeps" / "mine" / "search.json").write_text(json.dumps({}))
    assert is_new()
    shutil.rmtree(run.path)
    assert is_new()


def test_a_server_needs_a_port(out):
    with Server("127.0.0.1", 0, Pages(str, str)) as server, pytest.raises(InputError, match="in use"):
        Server("127.0.0.1", server.server_port, Pages(str, str))


# ----------------------------------------------------------------------------------------------------------- Chromium


@test_report.in_browser
def test_the_page_follows_a_sweep_and_keeps_its_fragment(browser, command, small, tmp_path):
    """From before the first run on: two runs, then two more while it is open; nobody touches the page."""
    out = tmp_path / "out"

    def shown():
        return browser.run("return [document.body.innerText, location.hash]")

    def runs(answer):
        found = re.search(r"Runs\s+(\d+)", answer[0])
        return int(found[1]) if found else 0

    browser.size(1280, 900)
    with serving(out, cwd=tmp_path) as served:
        browser._call("POST", "/url", {"url": f"{served.url}#runs"})
        assert "There is no page yet" in shown()[0]
        browser.requests()
        browser.errors()
        for seeds, count in (("0,1", 2), ("2,3", 4)):
            done = command("--multirun", *small, f"seed={seeds}", timeout=240)
            assert done.returncode == 0, done.stderr
            answer = until(shown, lambda answer, count=count: runs(answer) == count)
            assert answer[1] == "#runs"
        asked = browser.requests()
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(served.url).netloc}
        assert {urlsplit(url).path for url in asked} <= {"/", "/version", "/favicon.ico"}
        # before the first epoch there may be a second page without runs, which is logged for its status
        assert [error for error in browser.errors() if "favicon" not in error and "503" not in error] == []


@test_report.in_browser
def test_the_page_says_when_nothing_serves_it_any_more(browser, out):
    with serving(out, cwd=out) as served:
        browser._call("POST", "/url", {"url": served.url})
        title = browser.run("return document.title")
        served.process.send_signal(signal.SIGINT)
        until(lambda: browser.run("return document.title"), lambda shown: shown == f"(not connected) {title}")
