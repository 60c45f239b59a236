"""The pool's lock: one holder at a time, in another process too, and nothing left behind by who is killed."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from sweeps.run.lock import MortalLock


def _count(lock, folder, rounds):
    for _ in range(rounds):
        assert lock.acquire(timeout=30)
        number = int((folder / "count").read_text())
        (folder / "count").write_text(str(number + 1))
        lock.release()


def test_only_one_holds_it(tmp_path):
    (tmp_path / "count").write_text("0")
    lock, context = MortalLock(), multiprocessing.get_context("spawn")
    others = [context.Process(target=_count, args=(lock, tmp_path, 300)) for _ in range(2)]
    for other in others:
        other.start()
    _count(lock, tmp_path, 300)
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    assert (tmp_path / "count").read_text() == "900"


def test_waits_as_long_as_it_is_told():
    lock = MortalLock()
    with ThreadPoolExecutor(1) as another:
        assert another.submit(lock.acquire).result()
        assert not lock.acquire(block=False)
        start = time.monotonic()
        assert not lock.acquire(timeout=0.2)
        assert time.monotonic() - start >= 0.2
        another.submit(lock.release).result()
    assert lock.acquire(block=False)


def test_its_holder_may_take_it_again():
    lock = MortalLock()
    with ThreadPoolExecutor(1) as another:
        assert [lock.acquire(), lock.acquire(block=False)] == [True, True]
        lock.release()
        assert not another.submit(lock.acquire, block=False).result()
        lock.release()
        assert another.submit(lock.acquire, block=False).result()


def _hold(lock, held):
    lock.acquire()
    held.touch()
    time.sleep(60)


def test_it_dies_with_its_holder(tmp_path):
    lock = MortalLock()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(lock, tmp_path / "held"))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert not lock.acquire(timeout=0.1)
    holder.kill()
    assert lock.acquire(timeout=10)
    holder.join()


def test_a_sweep_killed_as_a_whole_leaves_no_semaphore(small, tmp_path):
    words = [*small, "epochs=100000", "seed=0,1", f"out={tmp_path}/out"]
    command = [sys.executable, "-m", "mlp.train", "--multirun", "hydra.launcher.workers=2", *words]
    sweep = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(list(tmp_path.glob("out/runs/*/metrics.csv"))) < 2:
            assert sweep.poll() is None
            time.sleep(0.05)
        main = psutil.Process(sweep.pid)
        family, files = [main, *main.children(recursive=True)], set()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # git, say
                files |= {entry.path for entry in process.memory_maps() if entry.path.startswith("/dev/shm/")}
    finally:
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
    psutil.wait_procs(family, timeout=30)
    assert not [path for path in files if os.path.exists(path)]
