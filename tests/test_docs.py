"""Every command in the docs works: a page's blocks are run in order, in one empty directory, on real MNIST.

A block that cannot run has ``<!-- not run: why -->`` on the line before, and its commands are parsed instead. A YAML
block names its file in a comment at its top, and is written there, as is a Python block that does so. :mod:`shorten`
makes the commands short.
"""

import ast
import html
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import shorten
from conftest import ROOT
from PIL import Image

from sweeps.cli import _parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(python -m|mlp-|pip install|scripts/)")
EXTRAS = {"search.md": ["optuna"], "trackers.md": ["mlflow", "tensorboard"], "reading.md": ["mlflow"]} | {
    "models.md": ["onnx", "onnxruntime", "safetensors", "sklearn"],
    "clusters.md": ["dask_jobqueue", "distributed", "ray"],
}
IMAGES = {"digit.png": "marker-4.png", "photo.jpg": "chalk-9.png"}
"""What models.md predicts, and what of tests/digits that is."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    excuse: str | None
    """Why it is not run."""


def blocks(page):
    lines = page.read_text().split("\n")
    found, start = [], None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            excuse = re.fullmatch(r"<!-- not run: (.+) -->", lines[start - 1])
            text = "\n".join(lines[start + 1 : number])
            found.append(Block(page, start + 1, lines[start][3:], text, excuse and excuse[1]))
            start = None
    assert start is None, f"{page}: a block without an end"
    return found


def commands(block):
    """The words of each command of a shell block."""
    joined = block.text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


BLOCKS = [block for page in PAGES for block in blocks(page)]
EXCUSED = [block for block in BLOCKS if block.excuse]
RUN = [block for block in BLOCKS if not block.excuse and block.language != "text"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_in_blocks_of_a_known_language(page):
    text = page.read_text()
    found = blocks(page)
    excuses = re.findall(r"^<!-- not run.*", text, re.MULTILINE)
    assert len(excuses) == sum(block.excuse is not None for block in found), "an excuse stands right before its block"
    assert {block.language for block in found} <= {"bash", "python", "yaml", "text"}
    for block in found:
        text = text.replace(block.text, "", 1)
        assert block.language != "text" or not COMMAND.match(block.text), f"{page}:{block.line}"
    assert not re.findall(r"^    +(?:python|pip|mlp-|scripts/).*", text, re.MULTILINE)


def test_most_blocks_are_run():
    shell = [block for block in BLOCKS if block.language == "bash"]
    assert len(shell) > 20
    assert sum(block.excuse is None for block in shell) > len(shell) / 2


def section(page, title):
    """The text under a heading, or before the first one."""
    parts = re.split(r"^##? (.+)\n", page.read_text(), flags=re.MULTILINE)
    return parts[parts.index(title) + 1]


def leads(text):
    return set(re.findall(r"^(?:- |\| )\*\*(.+?)[.:]?\*\*", text, re.MULTILINE))


def test_every_promise_has_its_tests():
    page = ROOT / "docs" / "reliability.md"
    table = section(page, "Promises and their tests")
    promised = leads(section(ROOT / "README.md", "mlp-sweeps")) | leads(section(page, "Reliability"))
    assert len(promised) > 10
    assert leads(table) == promised
    for row in re.findall(r"^\| (?!---|promise)(.+) \|$", table, re.MULTILINE):
        promise, _, named = row.partition(" | ")
        tests = re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", named)
        assert tests, f"{promise}: no test"
        assert len(tests) == named.count("`") / 2, f"{promise}: {named}"
        for file, name in tests:
            functions = [
                node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
            ]
            assert name in functions, f"{promise}: {file} has no {name}"


def test_the_tree_of_folders_is_that_of_the_files():
    tree = section(ROOT / "docs" / "design.md", "Where things are").partition("```text\n")[2].partition("```")[0]
    listed, folder = set(), None
    for line in tree.splitlines():
        words = re.match(r" *((?:[\w/.]+(?:/|\.py)\s+)*)", f"{line} ")[1].split()
        if not line.startswith(" "):
            (folder,) = words
            listed.add(folder)
        else:
            listed |= {f"{folder}{word}" for word in words}
    packages = [ROOT / "mlp", ROOT / "mlp" / "inspect", ROOT / "sweeps", *(ROOT / "sweeps").iterdir()]
    there = {f"{name}/" for name in ("conf", "examples", "hydra_plugins")}
    for package in packages:
        if (package / "__init__.py").exists():
            modules = [path for path in package.glob("*.py") if not path.name.startswith("__")]
            folders = [path for path in package.iterdir() if list(path.glob("*.py")) or path.name == "page"]
            there |= {f"{path.relative_to(ROOT)}/" for path in [package, *folders] if path.name != "__pycache__"}
            there |= {str(path.relative_to(ROOT)) for path in modules}
    assert listed == there


def test_the_pictures_are_of_the_readme_s_sweep():
    script = (ROOT / "scripts" / "pictures.py").read_text()
    sweep = re.search(r'^SWEEP = "(.+)"$', script, re.MULTILINE)[1]
    readme = (ROOT / "README.md").read_text()
    assert f"\n{sweep}\n" in readme
    drawn = (ROOT / "docs" / "pictures" / "terminal.svg").read_text()
    assert sweep in html.unescape(drawn).replace("\xa0", " ")
    for picture in re.findall(r"!\[.+\]\((.+)\)", readme):
        assert (ROOT / picture).stat().st_size < 200_000, picture


@pytest.fixture
def shell(tmp_path_factory):
    """Runs Bash, or Python, with the shortened commands first on PATH."""
    programs = tmp_path_factory.mktemp("bin")
    for name in ("python", "pip", "mlp-train", "mlp-sweeps"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/shorten.py {name} "$@"\n')
        (programs / name).chmod(0o755)

    def run(words, cwd, stdin=""):
        env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run(words, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, f"{stdin or shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr

    return run


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if set(blocks(page)) - set(EXCUSED)], ids=lambda page: page.name
)
def test_blocks_run(page, shell, tmp_path):
    for module in EXTRAS.get(page.name, []):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    for name, source in IMAGES.items():
        Image.open(ROOT / "tests" / "digits" / source).convert("RGB").save(tmp_path / name)
    for block in [block for block in RUN if block.page == page]:
        name = re.match(r"(?:# @package .*\n)?# ([\w/]+\.(?:yaml|py))\n", block.text)
        if block.language == "bash":
            shell(["bash", "-e"], tmp_path, block.text)
        elif name:
            path = tmp_path / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n")
        elif block.language == "python":
            shell([sys.executable, "-"], tmp_path, shorten.text(block.text))
        else:
            pytest.fail(f"{page}:{block.line}: which file is it?")


@pytest.mark.heavy
@pytest.mark.parametrize("block", EXCUSED, ids=lambda block: f"{block.page.name}-{block.line}")
def test_what_is_not_run_is_parsed(block, shell, tmp_path):
    for module in EXTRAS.get(block.page.name, []):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    if block.language == "python":
        compile(block.text, f"{block.page}:{block.line}", "exec")
        return
    shell(["bash", "-n"], tmp_path, block.text)
    for words in commands(block):
        match words:
            case ["python", "-m", "mlp.train", *rest] | ["mlp-train", *rest]:
                how = ["--dry-run"] if "--multirun" in rest else ["--cfg", "job"]
                shell([sys.executable, "-m", "mlp.train", *rest, *how], tmp_path)
            case ["python", "-m", "sweeps", *rest] | ["mlp-sweeps", *rest]:
                _parse(rest)
            case [script, *_] if script.startswith(("scripts/", "tests/")):
                assert (ROOT / script).stat().st_mode & 0o100, f"{script} cannot be run"


@pytest.mark.heavy
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        html = tmp_path / "site" / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")
        assert "<h1" in html.read_text()
