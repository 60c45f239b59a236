"""One run on several processes, by the command line on real MNIST: what is killed, and what of it remains."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from sweeps.runs.directory import RunDir, run_dirs

WORDS = ("model.hidden=[64]", "epochs=4", "threads=2")


def start(out, *words):
    command = [sys.executable, "-m", "mlp.train", *WORDS, f"out={out}", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def started(out, epochs=1):
    """A run after some epochs, and its helper."""
    process = start(out)
    while not any(run.metrics.exists() and len(run.read_metrics()) >= epochs for run in run_dirs(out)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    (helper,) = psutil.Process(process.pid).children()
    return process, helper


def gone(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(5)
    return not process.is_running()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    process = start(out)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return weights(out)


def weights(out):
    (run,) = run_dirs(out)
    status = run.read_status()
    assert (status.state, status.epoch) == ("finished", 4)
    with np.load(run.checkpoint) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "history"}


def test_uses_as_many_processes_as_it_is_told(undisturbed, tmp_path):
    process, _ = started(tmp_path)
    process.communicate(timeout=120)
    (run,) = run_dirs(tmp_path)
    assert '"threads": 2' in run.provenance.read_text()
    assert weights(tmp_path) == undisturbed


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_helper_goes_with_the_run_and_the_same_command_goes_on(undisturbed, tmp_path, signum):
    process, helper = started(tmp_path)
    os.killpg(process.pid, signum) if signum == signal.SIGINT else process.send_signal(signum)  # Ctrl-C is for all
    process.communicate(timeout=30)
    assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum)
    again = start(tmp_path)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "waiting for" not in output  # the helper does not hold the run's lock
    assert weights(tmp_path) == undisturbed
    assert gone(helper)


def test_a_run_whose_helper_is_killed_fails_saying_so_and_goes_on(undisturbed, tmp_path):
    process, helper = started(tmp_path)
    helper.kill()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"helper process {helper.pid} has died" in output
    assert "Traceback" not in output
    (run,) = run_dirs(tmp_path)
    assert RunDir(run.path).read_status().state == "failed"
    start(tmp_path).communicate(timeout=120)
    assert weights(tmp_path) == undisturbed
