"""The evidence for a hypothesis: each cell's number for each seed.

Nothing is left out silently. A run that is missing, unfinished or failed is an obstacle that the hypothesis names,
with the command that removes it; a run that diverged counts as the measure says, and is named too.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.read import items
from sweeps.read.collect import Collection
from sweeps.runs.errors import InputError
from sweeps.study.hypotheses import Hypothesis, Settings
from sweeps.study.measures import Measure
from sweeps.study.select import FREE, select
from sweeps.study.study import Study

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """One measure of the cells that a hypothesis compares, at the same seeds."""

    seeds: tuple[int, ...]
    """The fresh seeds that all cells have, up to the first that one lacks."""
    values: Mapping[str, tuple[float, ...]]
    """Label of a cell → a number for each seed."""
    runs: tuple[str, ...]
    """Ids of the runs that these are of."""
    obstacle: str = ""
    """What prevents the hypothesis's first look."""
    remedy: tuple[str, ...] = ()
    """The command that removes it, if one does."""
    diverged: tuple[str, ...] = ()
    """A sentence for each run that diverged."""


class Evidence:
    """The runs of a study, by cell and seed."""

    def __init__(self, study: Study, collection: Collection) -> None:
        self._study = study
        self._plane = select(study, collection.runs, dict.fromkeys(study.axes, FREE))  # once, not for each cell
        rows = collection.epochs[collection.epochs["run"].isin(self._plane["run"])]
        rows = rows[rows["epoch"] <= study.epochs].sort_values("epoch", kind="stable")
        self._rows: dict[str, Array] = {str(run): np.asarray(i) for run, i in rows.groupby("run").indices.items()}
        self._columns = {column: rows[column].to_numpy() for column in rows.columns}
        self._runs: dict[str, list[_Run]] = {}
        self._found: dict[tuple[str, str], _Found] = {}
        self._out, self._items = collection.out, dict[str, pd.DataFrame]()

    def sample(self, hypothesis: Hypothesis, measure: Measure) -> Sample:
        """The hypothesis's cells at the available fresh seeds."""
        looks = self._study.seeds.looks
        fresh = self._study.seeds.fresh(looks[-1])
        cells = {self._study.label(cell): self._cell(cell, measure) for cell in hypothesis.cells}
        seeds = tuple(itertools.takewhile(lambda seed: all(seed in cell.numbers for cell in cells.values()), fresh))
        first = fresh[: looks[0]]
        blocked = self._obstacle(list(cells.values()), first, measure) if len(seeds) < len(first) else ("", ())
        return Sample(
            seeds,
            {label: tuple(cell.numbers[seed] for seed in seeds) for label, cell in cells.items()},
            tuple(sorted({cell.runs[seed] for cell in cells.values() for seed in seeds})),
            *blocked,
            tuple(words for cell in cells.values() for seed, words in cell.diverged.items() if seed in seeds),
        )

    def items(self, cell: Settings, measure: Measure, seeds: Sequence[int]) -> Array | None:
        """The items of the cell's runs after the study's last epoch, (seeds, items).

        None if some of the runs have none.
        """
        runs = self._cell(cell, measure).runs
        if measure.items is None or not all(seed in runs for seed in seeds):
            return None
        if measure.items not in self._items:
            epochs = dict.fromkeys(map(str, self._plane["run"]), self._study.epochs)
            try:
                self._items[measure.items] = items.load(self._out, epochs, measure.items)
            except InputError:
                self._items[measure.items] = pd.DataFrame()
        table, chosen = self._items[measure.items], [runs[seed] for seed in seeds]
        return table.loc[chosen].to_numpy(float) if set(chosen) <= set(table.index) else None

    def _cell(self, cell: Settings, measure: Measure) -> "_Found":
        key = self._study.label(cell), measure.name
        if key not in self._found:
            self._found[key] = self._measure(cell, measure)
        return self._found[key]

    def _measure(self, cell: Settings, measure: Measure) -> "_Found":
        found = _Found(" ".join(self._study.differences(cell)))
        runs = self._runs_of(cell)
        for run in runs:
            if sum(other.seed == run.seed for other in runs) > 1:
                found.troubles[run.seed] = "there are several runs; choose one with a filter"
                continue
            curve, length = self._curve(run.id, measure)
            if length < measure.needs and run.state == "diverged" and measure.diverged is not None:
                found.diverged[run.seed] = (
                    f"The run {found.overrides} {self._study.seeds.key}={run.seed} diverged after epoch {length}; it "
                    f"counts as {measure.diverged:g} from there on"
                )
                lost = np.full(measure.needs - length, measure.diverged)
                curve, length = {name: np.append(values, lost) for name, values in curve.items()}, measure.needs
            if length < measure.needs:
                found.troubles[run.seed] = f"{run.state} before epoch {measure.needs}, at {length}"
                continue
            try:
                value = measure.of(curve, Path(run.path))
            except InputError as error:
                found.troubles[run.seed] = str(error)
                continue
            if math.isfinite(value):
                found.numbers[run.seed], found.runs[run.seed] = value, run.id
            else:
                found.troubles[run.seed] = f"its {measure.text} is {value}"
        return found

    def _runs_of(self, cell: Settings) -> "list[_Run]":
        label, key = self._study.label(cell), self._study.seeds.key
        if label not in self._runs:
            rows = select(self._study, self._plane, cell)
            rows = rows[rows[key].notna()] if key in rows.columns else rows[:0]
            found = rows[[key, "run", "state", "path"]] if len(rows) else pd.DataFrame()
            self._runs[label] = [_Run(int(row[0]), *map(str, row[1:])) for row in found.to_numpy(object)]
        return self._runs[label]

    def _curve(self, run: str, measure: Measure) -> tuple[dict[str, Array], int]:
        """The measure's metrics over its first epochs, and how many of them there are."""
        where = self._rows.get(run, np.empty(0, int))[: measure.needs]
        none = np.full(len(where), np.nan)
        curve = {name: self._columns[name][where] if name in self._columns else none for name in measure.metrics}
        return curve, len(where)

    def _obstacle(
        self, cells: "Sequence[_Found]", seeds: Sequence[int], measure: Measure
    ) -> tuple[str, tuple[str, ...]]:
        """What is missing or wrong at these seeds, in one sentence, and the command that helps, if one does."""
        key = self._study.seeds.key
        missing: list[str] = []
        wrong: dict[str, list[str]] = {}
        for cell in cells:
            absent = [seed for seed in seeds if seed not in cell.numbers and seed not in cell.troubles]
            if absent:
                missing.append(f"{cell.overrides} {key}={','.join(map(str, absent))}".strip())
            for seed in seeds:
                if seed in cell.troubles:
                    wrong.setdefault(cell.troubles[seed], []).append(f"{cell.overrides} {key}={seed}".strip())
        reasons = [f"missing: {_some(missing)}"] if missing else []
        reasons += [f"{trouble}: {_some(places)}" for trouble, places in wrong.items()]
        unfinished = any(" before epoch " in trouble and not trouble.startswith("diverged") for trouble in wrong)
        return "; ".join(reasons), self._study.training if missing or unfinished else ()


@dataclass(frozen=True)
class _Run:
    seed: int
    id: str
    state: str
    path: str


@dataclass
class _Found:
    """The results of a cell's runs, by seed."""

    overrides: str
    numbers: dict[int, float] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    troubles: dict[int, str] = field(default_factory=dict)
    """Why an existing run has no number."""
    diverged: dict[int, str] = field(default_factory=dict)


def _some(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
