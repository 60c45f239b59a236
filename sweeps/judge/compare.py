"""Compare two configurations of a results table, for notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sweeps.judge.statistics import Estimate, Variance, estimate, probability_superior
from sweeps.read import filters
from sweeps.read.collect import Collection
from sweeps.read.summary import identity_columns, judged, value_column
from sweeps.runs.errors import InputError


@dataclass(frozen=True)
class Difference:
    """The result of :func:`compare`; its repr is for reading."""

    a: str
    b: str
    metric: str
    values_a: tuple[float, ...]
    """One per run, in the order of the seeds."""
    values_b: tuple[float, ...]
    estimate: Estimate = field(repr=False)
    """Of mean a − mean b: ``.p_above(0)``, ``.p_level(0.1)``, ``.interval(0.9)``."""
    confidence: float
    """Of the intervals."""

    @property
    def means(self) -> tuple[float, float]:
        return float(np.mean(self.values_a)), float(np.mean(self.values_b))

    @property
    def difference(self) -> float:
        """Mean a − mean b."""
        return self.estimate.mean

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference; NaN for fewer than two runs."""
        return self.estimate.interval(self.confidence)

    @property
    def superiority(self) -> float:
        """P(A > B): the chance that a run of a has the higher value than one of b."""
        return probability_superior(self.values_a, self.values_b)[0]

    @property
    def n(self) -> tuple[int, int]:
        """Runs of each."""
        return len(self.values_a), len(self.values_b)

    def __repr__(self) -> str:
        width = max(len(self.a), len(self.b), len("difference"))
        low, high = self.interval
        chance, (least, most) = probability_superior(self.values_a, self.values_b, self.confidence)
        level = f"{100 * self.confidence:g} % interval"
        rows = [
            (name, f"{mean:.6g}", f"{n} run{'' if n == 1 else 's'}")
            for name, mean, n in zip((self.a, self.b), self.means, self.n, strict=True)
        ]
        rows += [
            ("difference", f"{self.difference:+.3g}", f"{level} {low:+.3g} to {high:+.3g}".replace("+nan", "unknown")),
            ("P(A > B)", f"{chance:.2f}", f"{level} {least:.2f} to {most:.2f}"),
        ]
        return "\n".join([self.metric, *(f"  {name:<{width}}  {value:>9}  {rest}" for name, value, rest in rows)])


def compare(
    runs: Collection | pd.DataFrame,
    a: str | Mapping[str, Any],
    b: str | Mapping[str, Any],
    metric: str | None = None,
    *,
    over: str = "seed",
    paired: bool = False,
    confidence: float = 0.95,
) -> Difference:
    """The means of one metric in two configurations, and their difference with its interval.

    Args:
        runs: what :func:`sweeps.load` or :func:`sweeps.sweep` returns, or a table like its ``runs``.
        a, b: which runs, as filters ("activ=relu lr<=0.01") or values ({"activ": "relu"}); each must select one
            configuration, repeated over ``over`` alone.
        metric: a column of ``runs``, or a metric by name for its last value; if None, the metric that judges the runs.
        over: the key whose values are the repetitions.
        paired: compare within each value of ``over`` that both have. Useful if a seed affects both alike, as in
            the first epochs of networks of one shape; otherwise it costs half of the degrees of freedom.
        confidence: of the intervals, between 0 and 1.

    Returns:
        A difference of means by Welch's t, or Student's if paired. It is one comparison, judged alone: of many, some
        will be found by chance.

    Raises:
        InputError: no such column; no runs, several configurations, unfinished runs or runs without a value are
            selected.
    """
    table = runs.runs if isinstance(runs, Collection) else runs
    if metric is None:
        metric = judged(runs)[0] if isinstance(runs, Collection) else None
        if metric is None:
            raise InputError("metric", "None", "must be named: the runs do not record which metric judges them")
    column = filters.known(value_column(metric, runs) if isinstance(runs, Collection) else metric, table.columns)
    if not pd.api.types.is_numeric_dtype(table[column]):
        raise InputError("metric", metric, "must be a column of numbers")
    if not 0 < confidence < 1:
        raise InputError("confidence", str(confidence), "must be between 0 and 1")
    cells = [_cell(table, wanted, column, over) for wanted in (a, b)]
    if paired:
        common = cells[0].index.intersection(cells[1].index)
        if common.empty:
            raise InputError("paired", "True", f"no {over} is in both")
        cells = [cell.loc[common] for cell in cells]
    x, y = (tuple(cell.astype(float).tolist()) for cell in cells)
    found = estimate(x, y, variance=Variance.PAIRED if paired else Variance.SEPARATE)
    return Difference(_described(a), _described(b), metric, x, y, found, confidence)


def _described(wanted: str | Mapping[str, Any]) -> str:
    return wanted if isinstance(wanted, str) else " ".join(f"{key}={value}" for key, value in wanted.items())


def _cell(table: pd.DataFrame, wanted: str | Mapping[str, Any], column: str, over: str) -> pd.Series:
    """The metric's values of the selected runs, indexed by ``over``."""
    name = _described(wanted)
    if isinstance(wanted, str):
        chosen = filters.apply(table, filters.parse([wanted]))
    else:
        chosen = table
        for key, value in wanted.items():
            same = chosen[filters.known(key, table.columns)]
            chosen = chosen[same.isna() if value is None else same == value]
    if chosen.empty:
        raise InputError("runs", name, "selects no runs")
    keys = [key for key in identity_columns(chosen) if key != over]
    varied = [key for key in keys if chosen[key].nunique(dropna=False) > 1]
    if varied:
        raise InputError("runs", name, f"selects several configurations, which differ in {', '.join(varied)}; name one")
    unfinished = chosen[chosen["state"] != "finished"] if "state" in chosen.columns else chosen[:0]
    if not unfinished.empty:
        states = ", ".join(f"{row.run} {row.state} at epoch {row.epoch}" for row in unfinished.itertuples())
        raise InputError("runs", name, f"selects unfinished runs ({states}); load(…, epochs=N) cuts all to N")
    if over in chosen.columns:
        chosen = chosen.set_index(over).sort_index()
        if not chosen.index.is_unique:
            raise InputError("runs", name, f"selects several runs of one {over}")
    elif len(chosen) > 1:
        filters.known(over, table.columns)  # raises
    lacking = int(chosen[column].isna().sum())
    if lacking:
        raise InputError("runs", name, f"selects {lacking} of {len(chosen)} without a value of {column}")
    return chosen[column]
