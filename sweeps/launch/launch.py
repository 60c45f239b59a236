"""Schedule jobs on an executor: submit, retry, isolate failures, shut down.

An executor runs jobs somewhere (:mod:`~sweeps.launch.pool`, :mod:`~sweeps.launch.dask`, :mod:`~sweeps.launch.ray`) and
does nothing else. The run directories hold all the state that matters; losing this process loses nothing.
"""

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sweeps.launch.display import Display
from sweeps.launch.job import Job, epochs_done
from sweeps.launch.sending import Sent
from sweeps.runs.status import Result, State


class Executor(Protocol):
    """Where jobs run."""

    @property
    def slots(self) -> int:
        """Jobs that run at once, as of now."""

    def describe(self) -> str:
        """``2 local workers``."""

    def check(self, out: Path) -> None:
        """Raise InputError if the workers cannot use the results tree."""

    def submit(self, job: Job) -> Future[Result]:
        """A worker's death is a result ("lost"), not an exception."""

    def news(self) -> list[str]:
        """Lines for the user about workers since the last call."""

    def interrupt(self) -> None:
        """End running jobs soon, if there is a way. They also watch the sweep's stop file."""

    def close(self) -> None:
        """End all workers, also busy ones."""


class JobSource(Protocol):
    """Jobs that depend on the results of earlier ones, as in a search."""

    @property
    def expected(self) -> int:
        """How many more there may be."""

    def next(self) -> Job | None:
        """A job for a free slot; None if there is none now, because others must end first or all are done."""

    def ended(self, result: Result) -> None:
        """How one of its points ended; "interrupted" if the sweep stops before the run is complete."""


@dataclass(frozen=True)
class Policy:
    """What to do when something goes wrong."""

    retries: int  # of a job whose worker died twice at the same epoch; one that got further is retried in any case
    timeout: float | None  # seconds that a job may take
    on_error: str  # continue | stop


_PATIENCE = 60.0  # seconds for the workers to reach a checkpoint


class Sweep:
    """Runs the points of a plan on an executor.

    Args:
        stop_file: created to stop the jobs of this sweep, on any machine.
        program: whose runs they are.
        halt: a reason to stop now, if any; called repeatedly.
        wait: at the end for runs that other processes train; otherwise they are left to those.
    """

    def __init__(
        self, executor: Executor, policy: Policy, display: Display, stop_file: Path, program: Sent,
        halt: Callable[[], str | None] = lambda: None, wait: bool = True,
    ) -> None:  # fmt: skip
        self._executor, self._policy, self._display = executor, policy, display
        self._stop_file, self._program = stop_file, program
        self._halt, self._wait = halt, wait
        self._events: queue.SimpleQueue[tuple[Job, Result] | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._busy: deque[Job] = deque()  # runs that another process trains; asked again when all else is done
        self._running: dict[str, Job] = {}
        self._crashes: dict[str, tuple[int, int]] = {}  # run → the epoch at which its workers died, how often there
        self._source: JobSource | None = None
        self._jobs: dict[str, Job] = {}
        self._signals: list[int] = []
        self._stopping = False
        self._deadline = float("inf")

    @property
    def signum(self) -> int | None:
        """The signal that ended the sweep, if one did."""
        return self._signals[0] if self._signals else None

    def run(self, jobs: list[Job], source: JobSource | None = None) -> list[Result]:
        """Train the jobs, then the source's; returns how each run ended, in that order, what never began last."""
        self._source = source
        self._jobs = {job.run_id: job for job in jobs}
        self._waiting.extend(map(self._ready, jobs))
        ended: dict[str, Result] = {}
        try:
            with self._signals_noted(), self._display:
                while len(self._signals) < 2 and time.monotonic() < self._deadline:
                    if self._signals:
                        self._stop("stopping at a checkpoint; once more to kill")
                    elif why := self._halt():
                        self._stop(why)
                    self._fill()
                    if not self._running:
                        break
                    for job, result in self._next_events():
                        final = self._finalize(job, result)
                        if final:
                            ended[job.run_id] = final
                            self._display.ended(final)
                            if source:
                                source.ended(final)
                            if final.state == State.FAILED and self._policy.on_error == "stop":
                                self._stop("stopping, as on_error says")
                    for line in self._executor.news():
                        self._display.note(line)
                    self._display.refresh(self._running)
        finally:
            self._stop_file.unlink(missing_ok=True)
        never = [_stopped(job, None) for job in self._jobs.values() if job.run_id not in ended]
        return [*ended.values(), *never]

    def _ready(self, job: Job) -> Job:
        return replace(job, program=self._program, stop_file=str(self._stop_file), timeout=self._policy.timeout)

    def _fill(self) -> None:
        """Keep each slot busy and a job ready behind it, so that no worker waits for this process between jobs.

        A source is asked only for free slots, so that it decides with as many results as possible.
        """
        while not self._stopping and len(self._running) < 2 * self._executor.slots:
            free = len(self._running) < self._executor.slots
            if self._waiting:
                job = self._waiting.popleft()
            elif free and self._busy and self._wait:
                job = replace(self._busy.popleft(), wait=True)
            elif free and (new := self._from_source()):
                job = self._ready(new)
            else:
                return
            self._running[job.run_id] = job
            self._executor.submit(job).add_done_callback(partial(self._note, job))

    def _from_source(self) -> Job | None:
        job = self._source.next() if self._source else None
        if job and self._source:
            self._jobs[job.run_id] = job
            self._display.add(job, self._source.expected)
        return job

    def _note(self, job: Job, done: Future[Result]) -> None:
        self._events.put((job, _result(job, done)))

    def _next_events(self) -> Iterator[tuple[Job, Result]]:
        """Events so far, waiting briefly for the first."""
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=self._display.interval)
            while True:
                if event is not None:
                    yield event
                event = self._events.get_nowait()

    def _finalize(self, job: Job, result: Result) -> Result | None:
        """A final result, or None if the job will be retried."""
        del self._running[job.run_id]
        for line in result.damage:
            self._display.note(line)
        if result.state == State.BUSY:
            self._busy.append(job)
            return None
        if result.state not in (State.LOST, State.INTERRUPTED):
            return result
        if self._stopping or self._signals:
            return _stopped(job, result.error)
        epoch = epochs_done(job.run)
        before, times = self._crashes.get(job.run_id, (-1, 0))
        times = times + 1 if epoch == before else 1
        self._crashes[job.run_id] = epoch, times
        if times > self._policy.retries:
            error = f"{result.error}, {times} × after epoch {epoch}"
            return Result(job.run_id, job.run.path, State.FAILED, epoch=epoch, error=error)
        self._display.note(f"{job.run_id}: {result.error} after epoch {epoch}; trying again from there")
        self._waiting.appendleft(job)
        return None

    def _stop(self, why: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._deadline = time.monotonic() + _PATIENCE
        self._waiting.clear()
        self._busy.clear()
        self._display.note(why)
        with contextlib.suppress(OSError):  # a full disk: the workers still get their signal
            self._stop_file.parent.mkdir(parents=True, exist_ok=True)
            self._stop_file.touch()
        self._executor.interrupt()

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        def note(signum: int, _frame: Any) -> None:
            self._signals.append(signum)
            self._events.put(None)  # wake up

        main = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be noted
        previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM) if main}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def _result(job: Job, done: Future[Result]) -> Result:
    try:
        return done.result()
    except Exception as error:
        said = str(error).strip().splitlines() or [""]  # the last line: Ray's and Dask's may hold a traceback
        return Result(job.run_id, job.run.path, State.FAILED, error=f"{type(error).__name__}: {said[-1]}")


def _stopped(job: Job, error: str | None) -> Result:
    return Result(job.run_id, job.run.path, State.INTERRUPTED, epoch=epochs_done(job.run), error=error)
