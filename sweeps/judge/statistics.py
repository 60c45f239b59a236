"""Estimates, intervals and p-values over seeds, rounds and test images; arrays in, numbers out.

How differences between cells (configurations without their seed) are estimated is declared before the data are seen:

    pooled    one variance of all cells of a hypothesis, so that three seeds each in five cells leave ten degrees of
              freedom instead of two to four. Where the cells' spreads are not compatible, separate is used instead.
    separate  a variance for each cell: Welch's t
    paired    differences seed by seed, which is better where a seed does the same to both cells
    trimmed   differences round by round, robust to a disturbed round; for times

A pooled variance is tempting and dangerous: at three seeds no test of spreads sees a cell that scatters twice as much
as the others (Brown–Forsythe's finds it in 0.1 % of cases, Bartlett's at 0.1 in 20 %), while the pooled t test of that
cell at the level 0.005 would err four times as often as it says. Hence two guards: Bartlett's test at a level as high
as :data:`COMPATIBLE`, and no difference gets a smaller variance than the larger one of its own two cells.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Array = npt.NDArray[np.float64]

COMPATIBLE = 0.25
"""Level of Bartlett's test below which spreads are too different to be pooled (Bancroft's advice for such tests)."""
TRIMMED = 0.2
"""Share of the rounds that is cut off at either end."""


class Variance(StrEnum):
    """How the variance of a difference is estimated."""

    POOLED = "pooled"
    SEPARATE = "separate"
    PAIRED = "paired"
    TRIMMED = "trimmed"


# -- one mean or one difference --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means, with Student's t for its distribution."""

    mean: float
    """In the unit of the values."""
    error: float
    """Its standard error; NaN if unknown, so that no p-value is below 1."""
    df: float
    """Degrees of freedom of the standard error; not always whole."""
    n: int
    """Values behind it: of a difference those of the smaller cell."""

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval in the unit of the values; NaN where the error is unknown.

        Raises:
            ValueError: ``confidence`` is not between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence={confidence}: must be between 0 and 1")
        half = float(special.stdtrit(self.df, 0.5 + confidence / 2)) * self.error if self.df > 0 else math.nan
        return self.mean - half, self.mean + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value against "it is at most ``bound``"; ±inf is allowed."""
        return float(p_above(self.mean, self.error, self.df, bound))

    def p_below(self, bound: float) -> float:
        """One-sided p-value against "it is at least ``bound``"; ±inf is allowed."""
        return float(p_below(self.mean, self.error, self.df, bound))

    def p_level(self, delta: float) -> float:
        """p-value of equivalence, against "its size is ``delta`` or more": two one-sided tests (Schuirmann 1987)."""
        return max(self.p_above(-delta), self.p_below(delta))


def p_above(mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, bound: npt.ArrayLike) -> Array:
    """One-sided p-values of Student's t test against "the mean is at most ``bound``".

    Args:
        mean, error, df, bound: arrays that broadcast; an error that is NaN gives 1, an error of 0 gives 0 or 1.
            Nothing is above inf, everything is above −inf.
    """
    mean, error, df, bound = (np.asarray(x, float) for x in (mean, error, df, bound))
    distance = mean - bound
    with np.errstate(all="ignore"):
        p = np.where(error > 0, special.stdtr(df, -distance / error), np.where(distance > 0, 0.0, 1.0))
    p = np.where(np.isfinite(error) & np.isfinite(mean) & (df > 0), p, 1.0)
    return np.asarray(np.where(np.isinf(bound), np.where(bound > 0, 1.0, 0.0), p), float)


def p_below(mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, bound: npt.ArrayLike) -> Array:
    """As :func:`p_above`, against "the mean is at least ``bound``"."""
    return p_above(-np.asarray(mean, float), error, df, -np.asarray(bound, float))


def p_inside(
    mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike
) -> Array:
    """p-values against "the mean is not between ``low`` and ``high``": small when it is shown to be inside."""
    return np.maximum(p_above(mean, error, df, low), p_below(mean, error, df, high))


def p_outside(
    mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike
) -> Array:
    """p-values against "the mean is between ``low`` and ``high``"; with two finite bounds there are two ways out."""
    ways = np.isfinite(low).astype(float) + np.isfinite(high)
    nearest = np.minimum(p_below(mean, error, df, low), p_above(mean, error, df, high))
    return np.asarray(np.minimum(1.0, ways * nearest), float)


def at_least(required: int, p_values: npt.ArrayLike) -> Array:
    """p-value for "at least ``required`` of these are true": partial conjunction (Benjamini and Heller 2008).

    All of them: the largest p-value (intersection–union). At least one: the smallest times their number (Bonferroni).
    Valid under any dependence.

    Args:
        p_values: (…, count)

    Returns:
        (…,)
    """
    ordered = np.sort(np.asarray(p_values, float), axis=-1)
    return np.asarray(np.minimum(1.0, (ordered.shape[-1] - required + 1) * ordered[..., required - 1]), float)


@dataclass(frozen=True)
class Spread:
    """The variance that cells have in common."""

    variance: float
    """Of one value."""
    df: float
    compatible: bool
    """Whether the cells' own variances allow to speak of a common one."""


def spread(cells: Sequence[npt.ArrayLike], *, resolution: float = 0.0) -> Spread:
    """The pooled variance within cells, and Bartlett's test of whether they share one.

    Args:
        cells: of each the (n,) values; n may differ, and cells with fewer than two are ignored.
        resolution: step to which the values are rounded, whose variance (step² / 12) is the least that a cell has.
    """
    samples = [sample for cell in cells if (sample := np.asarray(cell, float)).size > 1]
    if not samples or not all(np.isfinite(sample).all() for sample in samples):
        return Spread(math.nan, 0.0, False)
    df = np.array([sample.size - 1 for sample in samples], float)
    variances = np.array([_variance(sample, resolution) for sample in samples])
    pooled = float(df @ variances / df.sum())
    return Spread(pooled, float(df.sum()), _bartlett(variances, df, pooled) >= COMPATIBLE)


def _bartlett(variances: Array, df: Array, pooled: float) -> float:
    """p-value against equal variances."""
    if len(df) < 2 or pooled == 0:
        return 1.0
    if not variances.all():
        return 0.0
    correction = 1 + ((1 / df).sum() - 1 / df.sum()) / (3 * (len(df) - 1))
    statistic = float(df.sum() * math.log(pooled) - df @ np.log(variances)) / float(correction)
    return float(special.chdtrc(len(df) - 1, max(statistic, 0.0)))


def estimate(
    a: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    variance: Variance = Variance.SEPARATE,
    common: Spread | None = None,
    resolution: float = 0.0,
) -> Estimate:
    """The mean of a cell, or the difference a − b of two.

    Args:
        a, b: (n,) values of each; paired and trimmed take equally many, in the order of their seeds or rounds.
        common: the spread that pooled uses; where there is none, or it is not compatible, separate is used.
        resolution: step to which the values are rounded: equal values do not prove absence of noise.

    Raises:
        ValueError: values to be paired are not equally many.
    """
    x = np.asarray(a, float)
    y = None if b is None else np.asarray(b, float)
    if variance in (Variance.PAIRED, Variance.TRIMMED):
        if y is not None and len(x) != len(y):
            raise ValueError(f"{len(x)} and {len(y)} values: what is paired must be equally many")
        return trimmed(x if y is None else x - y) if variance is Variance.TRIMMED else _paired(x, y, resolution)
    samples = [x] if y is None else [x, y]
    n = min(len(sample) for sample in samples)
    if not n:
        return Estimate(math.nan, math.nan, 0.0, 0)
    mean = float(x.mean()) if y is None else float(x.mean() - y.mean())
    own = [_variance(sample, resolution) if len(sample) > 1 else math.nan for sample in samples]
    if variance is Variance.POOLED and common is not None and common.compatible:
        largest = max([common.variance, *(value for value in own if not math.isnan(value))])
        return Estimate(mean, math.sqrt(largest * sum(1 / len(sample) for sample in samples)), common.df, n)
    if n < 2 or not all(map(math.isfinite, own)):
        return Estimate(mean, math.nan, 0.0, n)
    parts = [value / len(sample) for value, sample in zip(own, samples, strict=True)]
    weights = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True))
    df = sum(parts) ** 2 / weights if weights > 0 else sum(len(sample) - 1 for sample in samples)
    return Estimate(mean, math.sqrt(sum(parts)), df, n)


def trimmed(values: npt.ArrayLike, share: float = TRIMMED) -> Estimate:
    """The trimmed mean with its standard error from the winsorized variance (Tukey and McLaughlin 1963, Yuen 1974).

    Of 25 rounds of a measurement five may be disturbed in any way and move it little.

    Args:
        values: (n,) e.g. logarithms of the ratio of two times that were taken in one round.
        share: cut off at either end, below 0.5.
    """
    ordered = np.sort(np.asarray(values, float))
    n = ordered.size
    if not n:
        return Estimate(math.nan, math.nan, 0.0, 0)
    cut = int(share * n)
    kept = n - 2 * cut
    mean = float(ordered[cut : n - cut].mean())
    if kept < 2 or not np.isfinite(ordered).all():
        return Estimate(mean, math.nan, 0.0, n)
    winsorized = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
    squares = float(((winsorized - winsorized.mean()) ** 2).sum())
    return Estimate(mean, math.sqrt(squares / (kept * (kept - 1))), kept - 1.0, n)


def _paired(x: Array, y: Array | None, resolution: float) -> Estimate:
    sample = x if y is None else x - y
    if not sample.size:
        return Estimate(math.nan, math.nan, 0.0, 0)
    mean = float(sample.mean())
    if sample.size < 2 or not np.isfinite(sample).all():
        return Estimate(mean, math.nan, 0.0, sample.size)
    step = resolution if y is None else resolution * math.sqrt(2)
    return Estimate(mean, math.sqrt(_variance(sample, step) / sample.size), sample.size - 1.0, sample.size)


def _variance(sample: Array, resolution: float) -> float:
    return max(float(sample.var(ddof=1)), resolution**2 / 12)


# -- beside differences ----------------------------------------------------------------------------------------------


def probability_superior(
    a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """P(A > B) + P(A = B) / 2 for one value of either cell, with an interval that makes sense for few values too.

    Args:
        a, b: (n,) and (m,) independent values.

    Returns:
        (probability, (low, high)), of Newcombe's fifth method (Statistics in Medicine 25, 2006, 559); NaN without
        values.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if not x.size or not y.size or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, (math.nan, math.nan)
    found = float(((x[:, None] > y).mean() + (x[:, None] >= y).mean()) / 2)
    quantile = float(special.ndtri(0.5 + confidence / 2))
    extra = (x.size + y.size) / 2 - 1

    def beyond(theta: float) -> float:
        shape = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(found - theta) - quantile * math.sqrt(theta * (1 - theta) * shape / (x.size * y.size))

    def end(bound: float) -> float:
        inside = min(
            max(found, 1e-12), 1 - 1e-12
        )  # at 0 and 1 the variance vanishes, so they cannot be ends of the interval
        return bound if found == bound else float(optimize.brentq(beyond, bound, inside))

    return found, (end(0.0), end(1.0))


def crossed(a: npt.ArrayLike, b: npt.ArrayLike | None = None) -> Estimate:
    """A mean over seeds × items, or a difference a − b of two, for other seeds and other items of the same kind.

    Seeds and items are both samples: its variance is that of seeds / their number, plus that of items / their number,
    less what of the noise of single answers is counted in both (Owen 2007, "The pigeonhole bootstrap", whose bootstrap
    estimates the same variance). The moments need no resampling; of three seeds a bootstrap would have ten samples, and
    its intervals know nothing of two degrees of freedom, which Satterthwaite's here do.

    Args:
        a, b: (seeds, items) e.g. whether each test image was classified rightly; the items are the same in both.

    Returns:
        In the unit of the entries: of bits a share.

    Raises:
        ValueError: not two-dimensional, or other items.
    """
    tables = [np.asarray(table, float) for table in (a, b) if table is not None]
    if any(table.ndim != 2 for table in tables) or len({table.shape[-1] for table in tables}) != 1:
        raise ValueError("a and b must be (seeds, items) over the same items")
    items, n = tables[0].shape[1], min(len(table) for table in tables)
    if not n or not items:
        return Estimate(math.nan, math.nan, 0.0, n)
    by_item = [table.mean(axis=0) for table in tables]
    mean = float(by_item[0].mean() - (by_item[1].mean() if b is not None else 0.0))
    if n < 2 or items < 2:
        return Estimate(mean, math.nan, 0.0, n)
    difference = by_item[0] - by_item[1] if b is not None else by_item[0]
    of_items = float(difference.var(ddof=1)) / items
    of_seeds = [float(table.mean(axis=1).var(ddof=1)) / len(table) for table in tables]
    noise = sum(_interaction(table) / table.size for table in tables)
    variance = max(sum(of_seeds) + of_items - noise, of_items, *of_seeds)
    if not variance:
        return Estimate(mean, 0.0, n - 1.0, n)
    weights = of_items**2 / (items - 1) + sum(
        part**2 / (len(table) - 1) for part, table in zip(of_seeds, tables, strict=True)
    )
    return Estimate(mean, math.sqrt(variance), variance**2 / weights, n)


def _interaction(table: Array) -> float:
    """Variance of a (seeds, items) table beside the effects of its seeds and of its items."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


# -- several cells at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """All differences of several cells, with simultaneous intervals."""

    names: tuple[str, ...]
    """The highest mean first."""
    means: tuple[float, ...]
    confidence: float
    low: Array
    """(k, k): simultaneous lower ends of the differences row − column; NaN on the diagonal."""
    high: Array
    """(k, k)"""

    def above(self, i: int, j: int) -> bool:
        """Whether the i-th is shown to be above the j-th."""
        return bool(self.low[i, j] > 0)

    def text(self, delta: float = 0.0) -> str:
        """The partial order: ``"ReLU > GeLU, Tanh > Sigmoid"``, a comma where no order is shown.

        Orders shown only for some members of a group follow it: ``"A, B, C (A > C)"``. ≈ joins two that are
        within ``delta`` of each other.
        """
        groups: list[list[int]] = [[]]
        for i in range(len(self.names)):
            if i and all(self.above(j, k) for j in range(i) for k in range(i, len(self.names))):
                groups.append([])
            groups[-1].append(i)
        return " > ".join(self._group(group, delta) for group in groups)

    def _group(self, group: Sequence[int], delta: float) -> str:
        pairs = list(itertools.combinations(group, 2))
        signs = [(i, ">", j) for i, j in pairs if self.above(i, j)]
        signs += [(i, "≈", j) for i, j in pairs if -delta < self.low[i, j] and self.high[i, j] < delta]
        remarks = [f"{self.names[i]} {sign} {self.names[j]}" for i, sign, j in signs]
        listed = ", ".join(self.names[i] for i in group)
        return f"{listed} ({', '.join(remarks)})" if remarks else listed


def ranking(
    cells: Mapping[str, npt.ArrayLike],
    *,
    variance: Variance = Variance.POOLED,
    common: Spread | None = None,
    confidence: float = 0.95,
    resolution: float = 0.0,
) -> Ranking:
    """All pairs of cells at once: with ``confidence``, no interval is wrong.

    Pooled variances take the studentized range, the exact distribution of the largest t (Tukey and Kramer, who are on
    the safe side where n differs); other variances take Bonferroni's share for each pair.

    Args:
        cells: name → (n,) values.
        common: a spread of more cells than these; their own by default.
    """
    samples = {name: np.asarray(values, float) for name, values in cells.items()}
    names = sorted(samples, key=lambda name: -float(samples[name].mean()) if samples[name].size else math.inf)
    k = len(names)
    if variance is Variance.POOLED and common is None:
        common = spread(list(samples.values()), resolution=resolution)
    low, high = np.full((k, k), np.nan), np.full((k, k), np.nan)
    for i, j in itertools.combinations(range(k), 2):
        found = estimate(samples[names[i]], samples[names[j]], variance=variance, common=common, resolution=resolution)
        if variance is Variance.POOLED and common is not None and common.compatible:
            half = _studentized_range(confidence, k, common.df) / math.sqrt(2) * found.error
            low[i, j], high[i, j] = found.mean - half, found.mean + half
        else:
            low[i, j], high[i, j] = found.interval(1 - (1 - confidence) / (k * (k - 1) / 2))
        low[j, i], high[j, i] = -high[i, j], -low[i, j]
    return Ranking(tuple(names), tuple(float(samples[name].mean()) for name in names), confidence, low, high)


@cache
def _studentized_range(confidence: float, k: int, df: float) -> float:
    from scipy.stats import studentized_range  # takes half a second to import, and a tenth for a number

    return float(studentized_range.ppf(confidence, k, df))


# -- looks -----------------------------------------------------------------------------------------------------------


def spend(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """The share of ``alpha`` that each look may use: in proportion to the seeds that it adds.

    Each look is an ordinary test of the first n seeds at its own level, so that by the union bound the levels add up to
    ``alpha``, under any dependence, and also if a study ends early.

    Args:
        looks: numbers of seeds at which is looked, rising, fixed before the first.

    Raises:
        ValueError: not rising, or the first below 1.
    """
    steps = np.diff([0, *looks])
    if not len(steps) or (steps <= 0).any():
        raise ValueError(f"looks={list(looks)}: must be rising numbers of seeds")
    return tuple(float(alpha * step / looks[-1]) for step in steps)
