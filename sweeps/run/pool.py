"""The local engine: persistent worker processes, supervised by pebble."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from mlp.runs import RunDir
from mlp.schema import integer, optional
from mlp.team import cores
from sweeps.run.job import Job, Outcome, epochs_done, execute
from sweeps.run.lock import MortalLock

_GRACE = 15.0  # seconds past its own timeout after which a job that does not react is killed with its worker

_STUCK = 60.0  # seconds of idle workers beside waiting jobs after which the jobs count as lost; workers start in a few
_BREAKS = 10  # of the pool, one after another without a job that ended, after which its jobs are told


def workers_for(workers: int | None, threads: int) -> int:
    """As many workers of so many threads as the cores hold, unless a number is asked for.

    Raises:
        InputError: either is no whole number ≥ 1.
    """
    threads = integer(ge=1)("hydra.launcher.threads", threads)
    asked = optional(integer(ge=1, le=1024))("hydra.launcher.workers", workers)
    return int(asked or max(1, cores() // threads))


class _Process(SpawnProcess):
    """A worker that does not import the main program, of which it needs nothing.

    So a sweep can be started from a script without ``if __name__ == "__main__"``, from a notebook or from stdin, and a
    worker of ``python -m mlp.train`` starts without Hydra.
    """

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
        with _alone:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class _Spawn(SpawnContext):
    Process = _Process

    def RLock(self) -> Any:  # noqa: N802
        """What pebble guards its pipes with."""
        return MortalLock()


_alone = threading.Lock()


class Pool:
    """``workers`` processes; one that dies is replaced."""

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._jobs: dict[Future[Outcome], tuple[Job, Future[Outcome] | None]] = {}  # who waits → what pebble works on
        self._breaks = 0
        self._ending = False
        self._sound = time.monotonic()  # when every worker was last seen at work, or nothing to do
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        # "spawn": a forked copy of a process with BLAS and display threads may hang.
        pool = ProcessPool(max_workers=self._workers, initializer=_begin, initargs=(os.getpid(),), context=_Spawn())
        # The terminal's Ctrl-C is this process's to handle. Workers inherit the mask of the threads that start them, so
        # that not even one that is just starting sees it.
        resource_tracker.ensure_running()  # it would lift the mask again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            assert pool.active  # asking starts it
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return pool

    @property
    def slots(self) -> int:
        self._rescue()  # the sweep asks in each of its rounds
        return self._workers

    def describe(self) -> str:
        return f"{self._workers} local worker{'s' if self._workers > 1 else ''}"

    def check(self, out: Path) -> None:
        """Nothing to check: the workers are on this machine."""

    def submit(self, job: Job) -> Future[Outcome]:
        outer: Future[Outcome] = Future()
        self._schedule(job, outer)
        return outer

    def _schedule(self, job: Job, outer: Future[Outcome]) -> None:
        self._jobs[outer] = job, None
        limit = None if job.timeout is None else job.timeout + _GRACE
        with contextlib.suppress(RuntimeError):  # the pool has broken; the next round renews it
            inner = self._pool.schedule(execute, args=(job,), timeout=limit)
            self._jobs[outer] = job, inner
            inner.add_done_callback(lambda done: self._deliver(done, outer))

    def _deliver(self, done: Future[Outcome], outer: Future[Outcome]) -> None:
        """In a thread of the pool's."""
        error = None if done.cancelled() else done.exception()
        if isinstance(error, BrokenProcessPool):  # which is no fault of the job's: it is submitted to the next one
            return
        if error is None:
            self._breaks = 0
        self._jobs.pop(outer, None)
        _translate(done, outer)

    def _rescue(self) -> None:
        """Renew the pool if it has broken, e.g. by a worker killed while it started; call back what nobody works on.

        A worker killed between taking a job and saying so takes it along.
        """
        if not self._pool.active:
            self._renew()
        inners = [inner for _, inner in tuple(self._jobs.values()) if inner is not None]
        idle = [inner for inner in inners if not inner.running() and not inner.done()]
        if not idle or len(inners) - len(idle) >= self._workers:
            self._sound = time.monotonic()
        elif time.monotonic() - self._sound > _STUCK:
            if len(idle) == len(inners):  # who was killed may have left half a message in their common pipe
                self._renew()
            else:
                self._sound = time.monotonic()
                for inner in idle:
                    inner.cancel()

    def _renew(self) -> None:
        """Another pool, for all jobs that the last one leaves: not all of them are told when it breaks."""
        self._breaks += 1
        self.close()
        self._pool = self._new_pool()
        self._sound = time.monotonic()
        for outer, (job, _) in tuple(self._jobs.items()):
            if self._ending:
                outer.set_result(Outcome("lost", error="the pool broke"))
            elif self._breaks > _BREAKS:
                epoch = epochs_done(RunDir.of(Path(job.values["out"]), job.run_id))
                outer.set_result(Outcome("failed", epoch, error=f"no worker could start in {_BREAKS} attempts"))
            else:
                self._schedule(job, outer)
                continue
            del self._jobs[outer]

    def interrupt(self) -> None:
        """Ask the workers to end their runs at once; idle ones just end."""
        self._ending = True  # from now on none is submitted again
        for process in multiprocessing.active_children():
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _translate(done: Future[Outcome], outer: Future[Outcome]) -> None:
    """A dead worker is an outcome like others."""
    if done.cancelled():
        outer.set_result(Outcome("lost", error="taken by no worker"))
        return
    error = done.exception()
    if error is None:
        outer.set_result(done.result())
    elif isinstance(error, ProcessExpired):
        outer.set_result(Outcome("lost", error=_cause(error.exitcode)))
    elif isinstance(error, TimeoutError):
        outer.set_result(Outcome("failed", error="TimeoutError: did not react, so its worker was killed"))
    else:
        outer.set_exception(error)


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"worker killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"worker ended with status {exitcode}"


def _begin(parent: int) -> None:
    """A worker's start: it does not outlive the main process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at its exit Python complains of a signal for pebble's handler
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End with the main process, even if that was killed: at the next batch if training, for certain soon after."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    os._exit(1)
