"""Successive halving: many configurations for a few epochs, the best 1/eta of them for eta times as many, and so on.

Jamieson and Talwalkar 2016; as in ASHA (Li et al. 2020) no worker waits for a rung to be complete, but here a
configuration is promoted only once no missing result could displace it. So the promotions do not depend on the number
of workers or the order in which they finish, and the runs are the only state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from sweeps.runs.errors import InputError
from sweeps.search.objective import Objective
from sweeps.search.record import Trial, TrialState
from sweeps.search.source import Request, TrialResult
from sweeps.search.space import MOST_VALUES, Params, Space


def rungs(least: int, most: int, eta: int) -> list[int]:
    """``3, 9, 27``: the last is ``most`` in any case.

    Raises:
        InputError: there would be only one rung.
    """
    if least >= most:
        raise InputError("hydra.sweeper.min_epochs", least, f"must be < epochs, which is {most}")
    steps = [least]
    while steps[-1] * eta < most:
        steps.append(steps[-1] * eta)
    return [*steps, most]


def configurations(space: Space, count: int | None, seed: int) -> list[Params]:
    """``count`` different points drawn at random, or the whole grid in its order if it has no more.

    A larger count begins with the same points. Raises InputError if there is neither grid nor count, or the grid is
    too large.
    """
    if count is None and space.size is None:
        raise InputError("hydra.sweeper.configurations", "null", "is needed where the space is continuous")
    if count is None or (space.size is not None and count >= space.size):
        if space.size is not None and space.size > MOST_VALUES:
            raise InputError(
                ", ".join(axis.key for axis in space.axes), f"{space.size:,} points",
                f"are too many to try each; at most {MOST_VALUES:,}, or give hydra.sweeper.configurations",
            )  # fmt: skip
        return list(space.grid())
    found: dict[tuple[object, ...], Params] = {}
    draw = 0
    while len(found) < count:
        params = space.draw(np.random.default_rng([seed, draw]))
        found.setdefault(tuple(params.values()), params)
        draw += 1
    return list(found.values())


@dataclass
class _Rung:
    epochs: int
    size: int
    """Configurations that come here at most."""
    asked: set[int] = field(default_factory=set)
    values: dict[int, float] = field(default_factory=dict)
    """Of those that finished."""
    out: int = 0
    """Those that diverged or failed."""


@final
class Halving:
    """A :class:`sweeps.search.source.Strategy`."""

    def __init__(self, params: Sequence[Params], epochs: Sequence[int], eta: int, objective: Objective) -> None:
        self._params, self._objective = params, objective
        sizes = [len(params)]
        for _ in epochs[1:]:
            sizes.append(max(1, sizes[-1] // eta))
        self._rungs = [_Rung(count, size) for count, size in zip(epochs, sizes, strict=True)]
        self._measured: dict[int, TrialResult] = {}  # the latest of each

    @property
    def remaining(self) -> int:
        return sum(rung.size - len(rung.asked) for rung in self._rungs)

    def plan(self) -> list[tuple[int, int]]:
        """(epochs, configurations) of each rung."""
        return [(rung.epochs, rung.size) for rung in self._rungs]

    def ask(self) -> Request | None:
        """Promotions first, those on the highest rung before the others."""
        for i in range(len(self._rungs) - 1, 0, -1):
            for number in self._certain(i - 1):
                if number not in self._rungs[i].asked:
                    return self._request(number, i)
        first = self._rungs[0]
        if len(first.asked) < first.size:
            return self._request(len(first.asked), 0)
        return None

    def _request(self, number: int, rung: int) -> Request:
        self._rungs[rung].asked.add(number)
        return Request(number, self._params[number], self._rungs[rung].epochs)

    def _certain(self, i: int) -> list[int]:
        """Those of rung ``i`` that are promoted in any case, the best first."""
        rung, places = self._rungs[i], self._rungs[i + 1].size
        out = rung.size - len(rung.values) - rung.out
        return self._order(rung)[: max(0, places - out)]

    def _order(self, rung: _Rung) -> list[int]:
        return sorted(rung.values, key=lambda number: (self._objective.better(rung.values[number]), number))

    def tell(self, request: Request, measured: TrialResult) -> None:
        rung = next(rung for rung in self._rungs if rung.epochs == request.epochs)
        self._measured[request.number] = measured
        if measured.values:
            rung.values[request.number] = measured.values[0]
        else:
            rung.out += 1
            # Fewer than planned may be promoted; do not wait for the others.
            self._shrink()

    def _shrink(self) -> None:
        for below, above in zip(self._rungs, self._rungs[1:], strict=False):
            able = below.size - below.out
            if able < above.size:
                above.size = able

    def trials(self) -> tuple[Trial, ...]:
        """The current trials."""
        return tuple(self._trial(number) for number in sorted({n for rung in self._rungs for n in rung.asked}))

    def _trial(self, number: int) -> Trial:
        steps = tuple((rung.epochs, rung.values[number]) for rung in self._rungs if number in rung.values)
        asked = sum(number in rung.asked for rung in self._rungs)
        measured = self._measured.get(number)
        state: TrialState = "running"
        if measured and (len(steps) == asked or measured.state != "finished"):
            state = measured.state
        values = measured.values if measured and state == "finished" else None
        runs = measured.runs if measured else ()
        return Trial(number, self._params[number], state, values, steps, runs, measured.error if measured else None)
