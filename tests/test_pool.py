"""The local pool: workers that die at the worst moments, cannot start, or are told to end."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from sweeps.launch import pool
from sweeps.launch.job import Job
from sweeps.runs.program import RunSpec
from sweeps.runs.status import Result, State

LONG = 60  # seconds; generous, for it fails only where something is broken


def job(tmp_path, number=0, timeout=None, overrides=()):
    spec = RunSpec(f"relu-ce-16-{number:010x}", {}, 1, tmp_path, None)
    return Job(overrides, spec, stop_file=str(tmp_path / "stop"), timeout=timeout)


def ended(job, state, **what):
    return Result(job.run_id, job.run.path, state, **what)


@pytest.fixture
def started():
    """Make pools that are closed at the end."""
    pools = []

    def start(function, workers=1):
        pools.append(pool.Pool(workers=workers, function=function))
        return pools[-1]

    yield start
    for each in pools:
        each.close()


def wait_for(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def workers():
    """This process's, alive or not yet waited for."""
    found = []
    for child in psutil.Process().children():
        try:
            if "sweeps-worker" in child.cmdline() or child.status() == psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


# What workers do in these tests.


def tell_pid(job):
    return ended(job, State.FINISHED, error=str(os.getpid()))


def tell_signals(job):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGINT}
    default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    main = hasattr(sys.modules["__main__"], "__file__")
    return ended(job, State.FINISHED, error=f"{blocked} {default} {sys.stdin.read()!r} {main}")


def kill_itself(job):
    os.kill(os.getpid(), int(job.overrides[0]))


def leave(job):
    os._exit(3)


def fail(job):
    raise ValueError("no good")


def sleep(job):
    Path(job.stop_file + str(os.getpid())).touch()
    time.sleep(600)


def ignore_sigterm(job):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(job)


def note_sigterm(job):
    """Go on until SIGTERM comes."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    Path(job.stop_file).touch()
    while not told.wait(0.01):
        pass
    return ended(job, State.INTERRUPTED, epoch=7)


def answer_at_length(job):
    return ended(job, State.FINISHED, epoch=int(job.run_id[-10:], 16), error="x" * 20_000_000)


def stop_inside_a_message(job):
    if job.overrides:
        (connection,) = (item for item in gc.get_objects() if isinstance(item, Connection) and not item.closed)
        os.write(connection.fileno(), b"\0\0\1\0half")
        os.kill(os.getpid(), signal.SIGSTOP)
    return ended(job, State.FINISHED)


def cannot(_main):
    raise RuntimeError("can't start new thread")


# --------------------------------------------------------------------------------------------------------------- work


def test_more_jobs_than_workers_all_end(started, tmp_path):
    local = started(tell_pid, workers=2)
    assert (local.slots, local.describe()) == (2, "2 local workers")
    futures = [local.submit(job(tmp_path, number)) for number in range(50)]
    pids = {future.result(LONG).error for future in futures}
    assert 1 <= len(pids) <= 2
    assert str(os.getpid()) not in pids


def test_workers_start_clean(started, tmp_path):
    """SIGINT is the main process's, SIGTERM ends, nothing is read from the terminal, the main program not imported."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        outcome = started(tell_signals).submit(job(tmp_path)).result(LONG)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert outcome.error == "True True '' False"


def test_an_exception_is_a_failure_and_the_worker_goes_on(started, tmp_path):
    local = started(fail)
    assert local.submit(job(tmp_path)).result(LONG) == ended(job(tmp_path), State.FAILED, error="ValueError: no good")
    (worker,) = workers()
    assert local.submit(job(tmp_path)).result(LONG).state == "failed"
    assert workers() == [worker]


# -------------------------------------------------------------------------------------------------------------- death


@pytest.mark.parametrize(
    ("signum", "cause"),
    [(9, "killed by SIGKILL (out of memory?)"), (15, "killed by SIGTERM"), (37, "killed by signal 37")],
)
def test_a_killed_worker_s_job_is_lost_and_the_next_one_is_done(started, tmp_path, signum, cause):
    local = started(kill_itself)
    lost = job(tmp_path, overrides=(str(signum),))
    futures = [local.submit(lost) for _ in range(3)]
    assert [future.result(LONG) for future in futures] == [ended(lost, State.LOST, error=f"worker {cause}")] * 3


def test_a_worker_that_leaves_says_its_status(started, tmp_path):
    local = started(leave)
    left = ended(job(tmp_path), State.LOST, error="worker ended with status 3")
    assert local.submit(job(tmp_path)).result(LONG) == left


def test_a_sweep_tries_again_after_a_real_time_signal(small, tmp_path):
    words = [*small, "epochs=100", "bsz=5", "seed=0,1", "hydra.launcher.workers=1"]
    command = [sys.executable, "-m", "mlp.train", "--multirun", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("out/runs/*/metrics.csv")))
    (worker,) = psutil.Process(process.pid).children()
    worker.send_signal(37)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "worker killed by signal 37 after epoch" in output
    assert "2 finished" in output


def test_an_idle_worker_that_dies_is_replaced_and_no_job_notices(started, tmp_path):
    local = started(tell_pid)
    for _ in range(5):
        before = int(local.submit(job(tmp_path)).result(LONG).error)
        os.kill(before, signal.SIGKILL)
        after = local.submit(job(tmp_path)).result(LONG)
        assert after.state == "finished" or "SIGKILL" in after.error  # it may have taken the job with its last breath
        wait_for(lambda before=before: not psutil.pid_exists(before))


def test_workers_killed_at_random_lose_nothing_and_hold_up_no_other(started, tmp_path, monkeypatch):
    """While they start, wait, work, and are in the middle of a large answer: a pool that goes on at once."""
    monkeypatch.setattr(pool, "_ATTEMPTS", 100)  # on a busy machine ten may be killed before one has started
    local, rng = started(answer_at_length, workers=2), random.Random(0)
    numbers, waiting, done = itertools.count(), {}, set()
    kills, longest, last = 0, 0.0, time.monotonic()

    def submit(number):
        waiting[local.submit(job(tmp_path, number))] = number

    while kills < 30 or waiting:
        while kills < 30 and len(waiting) < 4:
            submit(next(numbers))
        alive = workers()
        if alive and kills < 30 and rng.random() < 0.5:
            rng.choice(alive).kill()
            kills += 1
        for future in wait(waiting, timeout=rng.choice((0.001, 0.02, 0.2, 0.5)), return_when="FIRST_COMPLETED").done:
            number, outcome = waiting.pop(future), future.result()
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if outcome.state == "lost":
                assert outcome.error == "worker killed by SIGKILL (out of memory?)"
                submit(number)
            else:
                assert (outcome.state, outcome.epoch, len(outcome.error)) == ("finished", number, 20_000_000)
                done.add(number)
        assert time.monotonic() - last < LONG
    assert done == set(range(next(numbers)))
    print(f"{len(done)} jobs; at most {longest:.2f} s between events")  # starting a worker takes half a second


def test_a_worker_stopped_inside_its_answer_does_not_hold_up_the_others(started, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_STALL", 1)
    local = started(stop_inside_a_message, workers=2)
    broken = local.submit(job(tmp_path, overrides=("stop",)))
    others = [local.submit(job(tmp_path, number)) for number in range(10)]
    assert {future.result(LONG).state for future in others} == {"finished"}
    assert broken.result(LONG).state == "lost"


def test_a_job_that_does_not_react_in_time_is_ended_with_its_worker(started, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_GRACE", 0.2)
    local = started(sleep)
    outcome = local.submit(job(tmp_path, timeout=0.1)).result(LONG)
    assert outcome == ended(job(tmp_path), State.FAILED, error="TimeoutError: did not react, so its worker was killed")
    (name,) = tmp_path.glob("stop*")
    assert not psutil.pid_exists(int(name.name[4:]))  # before it is said: the run's lock is free


# -------------------------------------------------------------------------------------------------------------- start


def test_where_no_worker_can_start_jobs_fail_instead_of_being_tried_for_ever(started, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "_work", cannot)
    monkeypatch.setattr(pool, "_ATTEMPTS", 2)
    local = started(tell_pid)
    for _ in range(2):
        outcome = local.submit(job(tmp_path)).result(LONG)
        assert outcome == ended(
            job(tmp_path), State.FAILED, error="no worker could start in 2 attempts: worker ended with status 1"
        )


def test_where_the_process_table_is_full_jobs_fail_and_later_ones_are_done_when_it_is_not(
    started, monkeypatch, tmp_path
):
    def full(*_args, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    local = started(tell_pid)
    outcome = local.submit(job(tmp_path)).result(LONG)
    assert outcome.error == "no worker could start in 10 attempts: Resource temporarily unavailable"
    monkeypatch.undo()
    assert local.submit(job(tmp_path)).result(LONG).state == "finished"


def test_workers_killed_while_they_start_cost_their_jobs_nothing(started, tmp_path):
    local, killed = started(tell_pid, workers=2), set()
    futures = [local.submit(job(tmp_path, number)) for number in range(4)]
    while len(killed) < 6:
        for worker in workers():
            if worker.pid not in killed:
                worker.kill()
                killed.add(worker.pid)
    assert {future.result(LONG).state for future in futures} == {"finished"}


# ---------------------------------------------------------------------------------------------------------------- end


def test_interrupt_hurries_what_runs_and_begins_nothing(started, tmp_path):
    local = started(note_sigterm)
    running, queued = (local.submit(job(tmp_path)) for _ in range(2))
    wait_for((tmp_path / "stop").exists)
    local.interrupt()
    assert running.result(LONG) == ended(job(tmp_path), State.INTERRUPTED, epoch=7)
    assert queued.result(LONG) == ended(job(tmp_path), State.INTERRUPTED, error="before it began")
    assert local.submit(job(tmp_path)).result(LONG) == ended(job(tmp_path), State.INTERRUPTED, error="before it began")


def test_no_more_workers_than_jobs(started, tmp_path):
    local, seen = started(tell_pid, workers=12), set()
    futures = [local.submit(job(tmp_path, number)) for number in range(2)]
    while not all(future.done() for future in futures):
        seen |= {worker.pid for worker in workers()}
    assert {future.result().state for future in futures} == {"finished"}
    assert 1 <= len(seen) <= 2


def test_interrupt_ends_idle_workers_and_starts_no_others(started, tmp_path):
    local = started(tell_pid, workers=2)
    wait([local.submit(job(tmp_path, number)) for number in range(2)], LONG)
    wait_for(lambda: len(workers()) == 2)
    local.interrupt()
    wait_for(lambda: not workers())


def test_the_host_program_s_own_children_are_left_alone(started, tmp_path):
    local = started(tell_pid)
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    try:
        local.submit(job(tmp_path)).result(LONG)
        assert multiprocessing.active_children() == [child]
        local.interrupt()
        local.close()
        assert child.is_alive()
    finally:
        child.terminate()
        child.join()
    assert child.exitcode == -signal.SIGTERM  # ours, and not the pool's before


def test_close_leaves_nothing(tmp_path):
    """Of workers that are idle, starting, or at work and deaf to SIGTERM."""

    def state():
        shared = sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else []
        return len(os.listdir("/dev/fd")), [child.pid for child in psutil.Process().children()], shared

    before, threads = state(), threading.active_count()
    for function in (tell_pid, ignore_sigterm):
        local = pool.Pool(workers=3, function=function)
        future = local.submit(job(tmp_path))
        waiting = [local.submit(job(tmp_path)) for _ in range(9)]
        if function is tell_pid:
            future.result(LONG)
        else:
            wait_for(lambda: list(tmp_path.glob("stop*")))
        local.close()
        local.close()
        assert all(future.done() for future in (future, *waiting))
        assert local.submit(job(tmp_path)).result(0).error == "before it began"
    assert state() == before
    assert threading.active_count() == threads


@pytest.mark.parametrize("when", ["starting", "working"])
def test_workers_end_with_a_main_process_that_is_killed(tmp_path, when):
    code = (
        "import sys, test_pool, pathlib; from sweeps.launch.pool import Pool; tmp_path = pathlib.Path(sys.argv[1]); "
        "local = Pool(workers=3, function=test_pool.sleep); "
        "[local.submit(test_pool.job(tmp_path)) for _ in range(3)]; sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    main = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, env=environment)
    family = psutil.Process(main.pid)
    wait_for(lambda: len(family.children()) == 3)
    if when == "working":
        wait_for(lambda: list(tmp_path.glob("stop*")))
    members = family.children()
    main.kill()
    main.communicate()
    _, alive = psutil.wait_procs(members, timeout=LONG)
    assert not alive


def test_a_worker_told_to_end_dies_of_the_signal(started, tmp_path):
    """At once, while it works: by the signal's default, of which Python says nothing."""
    local = started(sleep)
    future = local.submit(job(tmp_path))
    wait_for(lambda: list(tmp_path.glob("stop*")))
    os.kill(int(next(tmp_path.glob("stop*")).name[4:]), signal.SIGTERM)
    assert future.result(LONG) == ended(job(tmp_path), State.LOST, error="worker killed by SIGTERM")


def test_a_job_that_is_deaf_to_sigterm_does_not_hold_up_the_end_of_a_sweep(tmp_path):
    """Ctrl-C asks, and a second one ends it, even if jobs ignore their signals."""
    code = (
        "import pathlib, signal, time, sweeps\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def deaf(cfg):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    (folder / ('deaf%d' % cfg['seed'])).touch()\n"
        "    while True: time.sleep(60)\n"
        "sweeps.sweep(deaf, {'seed': [0, 1]}, out=folder / 'out', workers=2)\n"
    )
    script = tmp_path / "deaf.py"
    script.write_text(code)
    with open(tmp_path / "said", "w+") as said:
        main = subprocess.Popen(
            [sys.executable, script], stdout=said, stderr=said, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            wait_for(lambda: main.poll() is not None or len(list(tmp_path.glob("deaf?"))) == 2)
            family = psutil.Process(main.pid).children(recursive=True)
            main.send_signal(signal.SIGINT)
            wait_for(lambda: "stopping at a checkpoint" in (tmp_path / "said").read_text())
            main.send_signal(signal.SIGINT)
            main.wait(LONG)
            assert not psutil.wait_procs(family, timeout=LONG)[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(main.pid, signal.SIGKILL)


def test_a_sweep_killed_as_a_whole_leaves_no_semaphore(small, tmp_path):
    before = set(os.listdir("/dev/shm"))
    words = [*small, "epochs=100000", "seed=0,1", f"out={tmp_path}/out"]
    command = [sys.executable, "-m", "mlp.train", "--multirun", "hydra.launcher.workers=2", *words]
    sweep = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: sweep.poll() is not None or len(list(tmp_path.glob("out/runs/*/metrics.csv"))) == 2)
        main = psutil.Process(sweep.pid)
        family, files = [main, *main.children(recursive=True)], set()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # git, say
                files |= {entry.path for entry in process.memory_maps() if entry.path.startswith("/dev/shm/")}
        assert not any("resource_tracker" in " ".join(process.cmdline()) for process in family if process.is_running())
    finally:
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
    psutil.wait_procs(family, timeout=30)
    assert not [path for path in files if os.path.exists(path)]
    assert set(os.listdir("/dev/shm")) <= before
