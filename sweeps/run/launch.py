"""The seam between a plan and an engine: submission, retries, failures, and how a sweep ends.

An engine runs jobs somewhere (:mod:`~sweeps.run.pool`, :mod:`~sweeps.run.dask`, :mod:`~sweeps.run.ray`) and does
nothing else. The run directories hold all the state that matters; losing this process loses nothing.
"""

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mlp.runs import RunDir
from sweeps.run.display import Display
from sweeps.run.job import Job, Outcome, epochs_done
from sweeps.run.plan import Ended, Point


class Engine(Protocol):
    """Where jobs run."""

    @property
    def slots(self) -> int:
        """Jobs that run at once, as of now."""

    def describe(self) -> str:
        """``2 local workers``."""

    def check(self, out: Path) -> None:
        """Raise InputError if the workers cannot use the results tree."""

    def submit(self, job: Job) -> Future[Outcome]:
        """A worker that dies is an outcome ("lost"), not an exception."""

    def interrupt(self) -> None:
        """Hurry running jobs to their end, where there is a way. They also watch the sweep's stop file."""

    def close(self) -> None:
        """End all workers, whatever they do."""


class Source(Protocol):
    """Points that follow from what came of earlier ones, as a search's do."""

    @property
    def expected(self) -> int:
        """How many there may still be."""

    def next(self) -> Point | None:
        """One for a slot that is free; None if there is none before more has ended, or none at all any more."""

    def ended(self, item: Ended) -> None:
        """How one of its points ended; "interrupted" if the sweep stops before the run is where it should be."""


@dataclass(frozen=True)
class Policy:
    """What to do when something goes wrong."""

    retries: int  # of a job whose worker died twice at the same epoch; one that got further is tried again for free
    timeout: float | None  # seconds that a job may take
    on_error: str  # continue | stop


_PATIENCE = 60.0  # seconds for the workers to come to a checkpoint; what they have not saved by then is in flight


class Sweep:
    """Takes the points of a plan to their ends on an engine.

    Args:
        stop_file: is made to stop the jobs of this sweep, wherever they run.
    """

    def __init__(self, engine: Engine, policy: Policy, display: Display, stop_file: Path) -> None:
        self._engine, self._policy, self._display, self._stop_file = engine, policy, display, stop_file
        self._events: queue.SimpleQueue[tuple[Job, Outcome] | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._elsewhere: deque[Job] = deque()  # runs that another process trains; asked again when all else is done
        self._flying: dict[str, Job] = {}
        self._losses: dict[str, tuple[int, int]] = {}  # run → the epoch at which its workers died, how often there
        self._source: Source | None = None
        self._points: dict[str, Point] = {}
        self._signals: list[int] = []
        self._stopping = False
        self._deadline = float("inf")

    @property
    def signum(self) -> int | None:
        """The signal that ended the sweep, if one did."""
        return self._signals[0] if self._signals else None

    def run(self, points: list[Point], source: Source | None = None) -> list[Ended]:
        """Train the points, then the source's; returns how each run ended, in that order, what never began last."""
        self._source = source
        self._points = {point.run_id: point for point in points}
        self._waiting.extend(map(self._job, points))
        ended: dict[str, Ended] = {}
        try:
            with self._signals_noted(), self._display:
                while len(self._signals) < 2 and time.monotonic() < self._deadline:
                    if self._signals:
                        self._stop()
                    self._fill()
                    if not self._flying:
                        break
                    for job, outcome in self._next_events():
                        final = self._settle(job, outcome)
                        if final:
                            ended[job.run_id] = item = Ended(self._points[job.run_id], final)
                            self._display.ended(item)
                            if source:
                                source.ended(item)
                            if final.state == "failed" and self._policy.on_error == "stop":
                                self._stop()
                    self._display.refresh(self._flying)
        finally:
            self._stop_file.unlink(missing_ok=True)
        never = (Ended(point, Outcome("interrupted", epochs_done(point.run))) for point in self._points.values())
        return [*ended.values(), *(item for item in never if item.point.run_id not in ended)]

    def _job(self, point: Point) -> Job:
        return Job(point.run_id, point.overrides, point.values, str(self._stop_file), self._policy.timeout)

    def _fill(self) -> None:
        """Keep each slot busy and a job ready behind it, so that no worker waits for this process between jobs.

        A source is asked only for slots that are free: what it says next depends on what it knows by then.
        """
        while not self._stopping and len(self._flying) < 2 * self._engine.slots:
            free = len(self._flying) < self._engine.slots
            if self._waiting:
                job = self._waiting.popleft()
            elif free and self._elsewhere:
                job = replace(self._elsewhere.popleft(), wait=True)
            elif free and (point := self._from_source()):
                job = self._job(point)
            else:
                return
            self._flying[job.run_id] = job
            self._engine.submit(job).add_done_callback(partial(self._note, job))

    def _from_source(self) -> Point | None:
        point = self._source.next() if self._source else None
        if point and self._source:
            self._points[point.run_id] = point
            self._display.add(point, self._source.expected)
        return point

    def _note(self, job: Job, done: Future[Outcome]) -> None:
        self._events.put((job, _outcome(done)))

    def _next_events(self) -> Iterator[tuple[Job, Outcome]]:
        """What has come in, waiting a little for the first."""
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=self._display.interval)
            while True:
                if event is not None:
                    yield event
                event = self._events.get_nowait()

    def _settle(self, job: Job, outcome: Outcome) -> Outcome | None:
        """A final outcome, or None if the job is to be tried again."""
        del self._flying[job.run_id]
        for line in outcome.damage:
            self._display.note(line)
        if outcome.state == "busy":
            self._elsewhere.append(job)
            return None
        if outcome.state not in ("lost", "interrupted"):
            return outcome
        epoch = epochs_done(RunDir.of(Path(job.values["out"]), job.run_id))
        if self._stopping or self._signals:
            return Outcome("interrupted", epoch, error=outcome.error)
        before, times = self._losses.get(job.run_id, (-1, 0))
        times = times + 1 if epoch == before else 1
        self._losses[job.run_id] = epoch, times
        if times > self._policy.retries:
            return Outcome("failed", epoch, error=f"{outcome.error}, {times} × after epoch {epoch}")
        self._display.note(f"{job.run_id}: {outcome.error} after epoch {epoch}; trying again from there")
        self._waiting.appendleft(job)
        return None

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._deadline = time.monotonic() + _PATIENCE
        self._waiting.clear()
        self._elsewhere.clear()
        self._display.note(
            "stopping at a checkpoint; once more to kill" if self._signals else "stopping, as on_error says"
        )
        with contextlib.suppress(OSError):  # a full disk: the workers still get their signal
            self._stop_file.parent.mkdir(parents=True, exist_ok=True)
            self._stop_file.touch()
        self._engine.interrupt()

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


def _outcome(done: Future[Outcome]) -> Outcome:
    try:
        return done.result()
    except Exception as error:
        return Outcome("failed", error=f"{type(error).__name__}: {error}")
