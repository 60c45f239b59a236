"""From a strategy's requests to points, and from how those end to what the strategy is told."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from sweeps.run.job import epochs_done
from sweeps.run.plan import Ended, Point, split
from sweeps.search.objective import Objective
from sweeps.search.record import Standing, Trial
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
class Measured:
    """What came of a request, over all seeds: ``values`` are there if every seed's run finished."""

    state: Standing  # finished | diverged | failed
    values: tuple[float, ...] | None
    runs: tuple[tuple[str, int], ...]
    error: str | None


class Strategy(Protocol):
    """Decides what to measure next."""

    @property
    def remaining(self) -> int:
        """Requests that may still come."""

    def ask(self) -> Request | None:
        """None: nothing before more is told, or nothing at all any more."""

    def tell(self, request: Request, measured: Measured) -> None: ...

    def trials(self) -> tuple[Trial, ...]:
        """As they stand."""


@dataclass
class _Open:
    """A request on its way."""

    request: Request
    points: list[Point]
    ended: dict[str, Ended] = field(default_factory=dict)


@final
class StrategySource:
    """A :class:`sweeps.run.launch.Source`: every request becomes a point for each seed.

    Args:
        plan: a request's points.
        seeds: how many those are.
        note: called with the points that are new, before the last of them is handed out, and with none when one has
            ended: the moments to write down how things stand.
    """

    def __init__(
        self,
        strategy: Strategy,
        objectives: Sequence[Objective],
        plan: Callable[[Request], list[Point]],
        seeds: int,
        note: Callable[[Sequence[Point]], None],
    ) -> None:
        self._strategy, self._objectives, self._plan, self._note = strategy, objectives, plan, note
        self._seeds = seeds
        self._wanted: deque[tuple[_Open, Point]] = deque()
        self._flying: dict[str, _Open] = {}
        self._begun: dict[str, int] = {}
        self.trained = 0  # epochs, in this session

    @property
    def expected(self) -> int:
        return len(self._wanted) + self._seeds * self._strategy.remaining

    def next(self) -> Point | None:
        """A point with something left to train; what is there already is told on the way."""
        new: list[Point] = []
        while entry := self._startable() or self._request():
            open_, point = entry
            new.append(point)
            done, _ = split([point])
            if not done:
                self._flying[point.run_id] = open_
                self._begun[point.run_id] = epochs_done(point.run)
                self._note(new)
                return point
            self._take(open_, done[0])
        if new:
            self._note(new)
        return None

    def _startable(self) -> tuple[_Open, Point] | None:
        """The first that does not wait for another trial's work on the same run."""
        for entry in self._wanted:
            if entry[1].run_id not in self._flying:
                self._wanted.remove(entry)
                return entry
        return None

    def _request(self) -> tuple[_Open, Point] | None:
        while request := self._strategy.ask():
            points = self._plan(request)
            open_ = _Open(request, points)
            self._wanted.extend((open_, point) for point in points)
            if entry := self._startable():
                return entry
        return None

    def ended(self, item: Ended) -> None:
        run_id = item.point.run_id
        open_ = self._flying.pop(run_id)
        self.trained += max(0, epochs_done(item.point.run) - self._begun[run_id])
        if item.outcome.state != "interrupted":  # else the request stays open: the next session finishes it
            self._take(open_, item)
            self._note(())

    def _take(self, open_: _Open, item: Ended) -> None:
        open_.ended[item.point.run_id] = item
        if len(open_.ended) == len(open_.points):
            in_order = [open_.ended[point.run_id] for point in open_.points]
            self._strategy.tell(open_.request, self._measure(in_order))

    def _measure(self, ended: Sequence[Ended]) -> Measured:
        runs = tuple((item.point.run_id, min(item.outcome.epoch, item.point.config.epochs)) for item in ended)
        for state in ("failed", "diverged"):
            bad = next((item for item in ended if item.outcome.state == state), None)
            if bad:
                return Measured(state, None, runs, f"{bad.point.run_id}: {bad.outcome.error}")
        results = [item.point.run.result(item.point.config.epochs) for item in ended]
        histories = [result.history for result in results if result]
        if len(histories) < len(ended):
            return Measured("failed", None, runs, "a run's metrics have gone")
        values = tuple(objective.mean(histories) for objective in self._objectives)
        if not all(map(math.isfinite, values)):
            return Measured("diverged", None, runs, "an objective is not finite")
        return Measured("finished", values, runs, None)
