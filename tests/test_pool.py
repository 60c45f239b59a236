"""The local pool where workers cannot start, or are told to end at the worst moment."""

import os
import signal
import subprocess
import sys
import time

from sweeps.run import pool
from sweeps.run.job import Job


def cannot(_parent):
    raise RuntimeError("can't start new thread")


def test_where_no_worker_can_start_jobs_fail_instead_of_being_tried_for_ever(monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "_begin", cannot)
    monkeypatch.setattr(pool, "_BREAKS", 2)
    workers = pool.Pool(workers=1)
    try:
        job = Job("relu-ce-16-0123456789", (), {"out": str(tmp_path)}, str(tmp_path / "stop"), timeout=None)
        done = workers.submit(job)
        end = time.monotonic() + 60
        while not done.done() and time.monotonic() < end:
            assert workers.slots == 1  # the sweep asks in each of its rounds
            time.sleep(0.05)
        assert done.result(0).state == "failed"
        assert "no worker could start" in done.result(0).error
    finally:
        workers.close()


def test_a_worker_told_to_end_dies_of_the_signal():
    """At once, and not by pebble's handler, of which Python complains if it comes while the worker ends by itself."""
    code = "import os, signal; from pebble.common import process_exit; from sweeps.run.pool import _begin; "
    code += "signal.signal(15, process_exit); _begin(os.getppid()); print('begun', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
