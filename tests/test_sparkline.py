"""Curves in a few characters, and what a terminal has room for beside each run."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from synthetic import make_other

from sweeps.cli import main
from sweeps.runs.directory import RunDir
from sweeps.show.sparkline import sparkline

ASCENDING = "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], ASCENDING),
        ([7.0, 0.0, 7.0], "█▁█"),
        (range(24), "▁▂▂▃▄▄▅▅▆▇▇█"),
        ([5.0], "▅"),
        ([5.0, 5.0, 5.0], "▅▅▅"),
        ([0.0, np.nan, 1.0, np.inf], "▁ █ "),
        ([-1e308, 1e308], "▁█"),
        ([1e308] * 40, "▅" * 12),
        ([np.nan, np.nan], ""),
        ([], ""),
    ],
)
def test_a_curve_goes_from_its_lowest_to_its_highest(values, drawn):
    assert sparkline(np.array(values, float)) == drawn


def in_a_terminal(out, *words, width, **env):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "sweeps", "ls", "--out", str(out), *words]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(width)} | env
    done = subprocess.run(command, stdout=follower, env=environment, timeout=120)
    os.close(follower)
    text = os.read(leader, 100_000)
    os.close(leader)
    assert done.returncode == 0
    return re.sub(rb"\x1b\[\d*m", b"", text)


@pytest.fixture
def out(tmp_path):
    for lr, losses in ((0.1, [3.0, 2.0, 1.0]), (0.2, [1.0, 1.5, 2.0])):
        make_other(tmp_path / "out", {"lr": lr}, {"loss": losses}, metric="loss", maximize=False)
    return tmp_path / "out"


def test_a_terminal_has_them_where_there_is_room(out):
    lines = in_a_terminal(out, "--sort", "lr", width=120).decode().splitlines()
    assert lines[0].split()[-2:] == ["curve", "size"]
    assert [line.split()[-3] for line in lines[1:]] == ["█▅▁", "▁▅█"]
    sizes = [sum(path.stat().st_size for path in run.iterdir()) for run in (out / "runs").iterdir()]
    assert [line.split()[-2:] for line in lines[1:]] == [[str(size), "B"] for size in sizes]
    table = len(lines[1].rstrip())
    narrower = in_a_terminal(out, width=table - 1).decode().splitlines()
    assert narrower[0].split()[-1] == "curve"
    narrow = in_a_terminal(out, width=table - 1 - len("  999 B")).decode().splitlines()
    assert narrow[0].split()[-1] not in ("curve", "size")


def test_a_terminal_without_blocks_has_ascii(out):
    text = in_a_terminal(out, "--sort", "lr", width=120, PYTHONIOENCODING="latin-1").decode("ascii")
    assert [line.split()[-3] for line in text.splitlines()[1:]] == ["#=_", "_=#"]


def test_what_is_piped_or_chosen_is_as_it_was(out, capsys):
    assert main(["ls", "--out", str(out)]) == 0
    header = capsys.readouterr().out.splitlines()[0]
    assert header.split() == ["run", "state", "epoch", "target", "lr", "loss", "best_loss", "epoch_seconds"]
    assert "curve" not in in_a_terminal(out, "--columns", "run,lr", width=120).decode()


def test_only_what_is_shown_is_measured(out, monkeypatch):
    from rich.console import Console

    measured, files = [], RunDir.files
    monkeypatch.setattr(RunDir, "files", lambda run: measured.append(run.path.name) or files(run))
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["ls", "--out", str(out), "--limit", "1"]) == 0
    assert len(measured) == 1
