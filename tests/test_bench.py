"""What can be said about the benchmarks without measuring: names of peers, and how they are refused."""

import subprocess
import sys

import pytest
from conftest import ROOT


def bench(*words):
    command = [sys.executable, ROOT / "scripts" / "bench.py", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("measure", ["training", "accuracy"])
def test_an_unknown_peer_is_one_line(measure):
    done = bench(measure, "--peers", "jax,tensorflow")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --peers=tensorflow: must be one of ours, JAX jit, ")
    assert done.stderr.count("\n") == 1


def test_a_peer_has_a_short_name_and_ours_is_always_there():
    done = bench("training", "--peers", "plain", "--threads", "1", "--rounds", "1", "--steps", "4")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split()[:2] for line in done.stdout.splitlines() if "× ours" in line]
    assert lines[0][0] == "ours"
    assert lines[1] == ["plain", "float64"]
    assert len(lines) == 2 * 3 * 4


def test_help_lists_every_measurement():
    done = bench("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "seconds of training to 97 % and 98 %" in done.stdout.lower()
    assert {"training", "accuracy", "overhead", "sweeps", "workers", "scale"} <= set(done.stdout.split())
