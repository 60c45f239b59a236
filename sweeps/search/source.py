"""From a strategy's requests to points, and from their results back to the strategy."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from sweeps.launch.job import Job, epochs_done
from sweeps.launch.plan import split
from sweeps.runs.status import Result, State
from sweeps.search.objective import Objective
from sweeps.search.record import Trial, TrialState
from sweeps.search.space import Params


@final
@dataclass(frozen=True)
class Request:
    """A trial's point to be measured after ``epochs``; None: after those of the configuration."""

    number: int
    params: Params
    epochs: int | None = None


@final
@dataclass(frozen=True)
class TrialResult:
    """The result of a request, over all seeds: it has ``values`` if every seed's run finished."""

    state: TrialState  # finished | diverged | failed
    values: tuple[float, ...] | None
    runs: tuple[tuple[str, int], ...]
    error: str | None


class Strategy(Protocol):
    """Decides what to measure next."""

    @property
    def remaining(self) -> int:
        """Requests that may still come."""

    def ask(self) -> Request | None:
        """None: nothing before more results, or nothing any more."""

    def tell(self, request: Request, measured: TrialResult) -> None: ...

    def trials(self) -> tuple[Trial, ...]:
        """The current trials."""


@dataclass
class _Open:
    """A request in progress."""

    request: Request
    jobs: list[Job]
    ended: dict[str, Result] = field(default_factory=dict)


@final
class StrategySource:
    """A :class:`sweeps.launch.launch.JobSource`: every request becomes a point for each seed.

    Args:
        plan: a function from a request to its points.
        seeds: how many those are.
        note: called with the points that are new, before the last of them is handed out, and with none when one has
            ended: the moments to record the search.
    """

    def __init__(
        self,
        strategy: Strategy,
        objectives: Sequence[Objective],
        plan: Callable[[Request], list[Job]],
        seeds: int,
        note: Callable[[Sequence[Job]], None],
    ) -> None:
        self._strategy, self._objectives, self._plan, self._note = strategy, objectives, plan, note
        self._seeds = seeds
        self._wanted: deque[tuple[_Open, Job]] = deque()
        self._running: dict[str, _Open] = {}
        self._begun: dict[str, int] = {}
        self.trained = 0  # epochs, in this session

    @property
    def expected(self) -> int:
        return len(self._wanted) + self._seeds * self._strategy.remaining

    def next(self) -> Job | None:
        """A point with something left to train; finished ones are reported on the way."""
        new: list[Job] = []
        while entry := self._startable() or self._request():
            open_, job = entry
            new.append(job)
            done, _ = split([job])
            if not done:
                self._running[job.run_id] = open_
                self._begun[job.run_id] = epochs_done(job.run)
                self._note(new)
                return job
            self._take(open_, done[0])
        if new:
            self._note(new)
        return None

    def _startable(self) -> tuple[_Open, Job] | None:
        """The first that does not wait for another trial's work on the same run."""
        for entry in self._wanted:
            if entry[1].run_id not in self._running:
                self._wanted.remove(entry)
                return entry
        return None

    def _request(self) -> tuple[_Open, Job] | None:
        while request := self._strategy.ask():
            jobs = self._plan(request)
            open_ = _Open(request, jobs)
            self._wanted.extend((open_, job) for job in jobs)
            if entry := self._startable():
                return entry
        return None

    def ended(self, result: Result) -> None:
        open_ = self._running.pop(result.run_id)
        job = next(job for job in open_.jobs if job.run_id == result.run_id)
        self.trained += max(0, epochs_done(job.run) - self._begun[result.run_id])
        if result.state != State.INTERRUPTED:  # else the request stays open: the next session finishes it
            self._take(open_, result)
            self._note(())

    def _take(self, open_: _Open, result: Result) -> None:
        open_.ended[result.run_id] = result
        if len(open_.ended) == len(open_.jobs):
            self._strategy.tell(open_.request, self._measure(open_))

    def _measure(self, open_: _Open) -> TrialResult:
        ended = [(job, open_.ended[job.run_id]) for job in open_.jobs]
        runs = tuple((job.run_id, min(result.epoch, job.spec.epochs)) for job, result in ended)
        without_value: tuple[TrialState, ...] = ("failed", "diverged")
        for state in without_value:
            bad = next((result for _, result in ended if result.state == state), None)
            if bad:
                return TrialResult(state, None, runs, f"{bad.run_id}: {bad.error}")
        results = [job.run.result(job.spec.epochs) for job, _ in ended]
        histories = [result.history for result in results if result]
        if len(histories) < len(ended):
            return TrialResult("failed", None, runs, "a run's metrics have gone")
        values = tuple(objective.mean(histories) for objective in self._objectives)
        if not all(map(math.isfinite, values)):
            return TrialResult("diverged", None, runs, "an objective is not finite")
        return TrialResult("finished", values, runs, None)
