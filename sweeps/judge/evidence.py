"""What a hypothesis rests on: each cell's number for each seed.

Nothing is left out in silence. A run that is missing, unfinished or failed is an obstacle that the hypothesis names,
with the command that removes it; a run that diverged counts as the measure says, and is named too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sweeps.read.collect import Collection
from sweeps.runs.errors import InputError
from sweeps.study.file import Study
from sweeps.study.hypotheses import Hypothesis, Settings
from sweeps.study.measures import Measure
from sweeps.study.select import FREE, select


@dataclass(frozen=True)
class Sample:
    """One measure of the cells that a hypothesis compares, at the same seeds."""

    seeds: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    """Label of a cell → a number per seed; empty if there is an obstacle."""
    runs: tuple[str, ...]
    """Ids of the runs that these are of."""
    obstacle: str = ""
    """What keeps the hypothesis from being judged at these seeds, with the way out."""
    diverged: tuple[str, ...] = ()
    """A sentence for each run that diverged."""


class Evidence:
    """The runs of a study, by cell and seed."""

    def __init__(self, study: Study, collection: Collection) -> None:
        self._study = study
        axes = dict.fromkeys(study.axes, FREE)
        self._plane = select(study, collection.runs, axes)  # once, instead of all runs for each cell
        rows = collection.epochs[collection.epochs["run"].isin(self._plane["run"])]
        rows = rows[rows["epoch"] <= study.epochs]
        self._curves = {str(run): curve.sort_values("epoch") for run, curve in rows.groupby("run", observed=True)}
        self._cells: dict[str, pd.DataFrame] = {}

    def runs(self, settings: Settings) -> pd.DataFrame:
        """The cell's rows of ``Collection.runs``."""
        label = self._study.label(settings)
        if label not in self._cells:
            self._cells[label] = select(self._study, self._plane, settings)
        return self._cells[label]

    def seeds(self, hypothesis: Hypothesis) -> set[int]:
        """Seeds that any of its cells has a run of."""
        key = self._study.seeds.key
        found = [self.runs(cell) for cell in hypothesis.cells]
        return {int(seed) for rows in found if key in rows for seed in rows[key].dropna()}

    def sample(self, hypothesis: Hypothesis, measure: Measure, seeds: Sequence[int]) -> Sample:
        """The hypothesis's cells at these seeds."""
        trouble = _Trouble()
        values, ids = {}, set()
        for cell in hypothesis.cells:
            found = self._cell(cell, measure, seeds, trouble)
            ids |= {run for run, _ in found.values()}
            values[self._study.label(cell)] = tuple(found[seed][1] for seed in seeds if seed in found)
        obstacle = trouble.obstacle(self._study, measure)
        return Sample(tuple(seeds), {} if obstacle else values, tuple(sorted(ids)), obstacle, tuple(trouble.diverged))

    def _cell(
        self, cell: Settings, measure: Measure, seeds: Sequence[int], trouble: "_Trouble"
    ) -> dict[int, tuple[str, float]]:
        """Seed → run and number, of the runs that are long enough or diverged before."""
        rows, key = self.runs(cell), self._study.seeds.key
        name = " ".join(self._study.overrides(cell)) or "the baseline"
        rows = rows[rows[key].isin(seeds)] if key in rows.columns else rows[:0]
        if not rows[key].is_unique if key in rows.columns else False:
            trouble.ambiguous.append(name)
            return {}
        missing = sorted(set(seeds) - set(rows[key].astype(int))) if key in rows.columns else list(seeds)
        if missing:
            trouble.missing.append(f"{' '.join([*self._study.overrides(cell), f'{key}={_comma(missing)}'])}")
        found = {}
        chosen = zip(rows.get(key, []), rows["run"], rows["state"], rows["path"], strict=True)
        for seed, run, state, path in chosen:
            curve = self._curve(str(run), measure)
            if len(curve) < measure.needs and state == "diverged":
                words = f"The run {name} {key}={seed} diverged after epoch {len(curve)}"
                if measure.diverged is None:
                    trouble.lost.append(words)
                    continue
                trouble.diverged.append(f"{words}; it counts as {measure.diverged:g} from there on")
                lost = dict.fromkeys(measure.metrics, measure.diverged)
                rest = pd.DataFrame(lost, index=range(measure.horizon - len(curve)))
                curve = pd.concat([curve, rest], ignore_index=True)
            if len(curve) < measure.needs:
                trouble.unfinished.append(f"{name} {key}={seed} ({state}, epoch {len(curve)})")
                continue
            try:
                found[int(seed)] = str(run), measure.of(curve.iloc[: measure.needs], Path(path))
            except InputError as error:
                trouble.unmeasured.append(f"{name} {key}={seed} ({error})")
        return found

    def _curve(self, run: str, measure: Measure) -> pd.DataFrame:
        curve = self._curves.get(run)
        if curve is None:
            return pd.DataFrame(columns=list(measure.metrics), dtype=float)
        return curve.reindex(columns=list(measure.metrics))


@dataclass
class _Trouble:
    """What is found to be wrong with the runs of a hypothesis, collected cell by cell."""

    missing: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)

    def obstacle(self, study: Study, measure: Measure) -> str:
        """One sentence, or nothing."""
        reasons = []
        if self.missing:
            reasons.append(f"missing: {_some(self.missing)}")
        if self.unfinished:
            reasons.append(f"not as far as epoch {measure.needs}: {_some(self.unfinished)}")
        if reasons:
            reasons.append(f"run `python -m sweeps train study={study.word}`")
        if self.ambiguous:
            reasons.append(f"several runs with one seed of {_some(self.ambiguous)}; choose among them with a filter")
        if self.unmeasured:
            reasons.append(f"not measured: {_some(self.unmeasured)}")
        if self.lost:
            reasons.append(f"{_some(self.lost)}, and has no {measure.text}")
        return "; ".join(reasons)


def _comma(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _some(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
