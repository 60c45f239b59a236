"""When a conjunction of comparisons is decided, and whether more seeds would decide it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sweeps.judge.statistics import Array, at_least, p_inside, p_outside

ALPHA = 0.05
LEVEL_SHARE = 0.2
"""The share of a conjunction's α that is reserved for the decision "level"."""
PROBABLY = 0.8
CAP = 100
"""Seeds beyond which no study is proposed."""

UNDECIDED, HOLDS, CONTRADICTED, LEVEL = range(4)
_DRAWS = 1000
_SIZES = (3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, CAP)


# -- the decision ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """The decision on a hypothesis of K comparisons at one look; :mod:`sweeps.judge.findings` says why it is valid."""

    low: Array
    """(K,) bounds of each mean; infinite where there is none."""
    high: Array
    """(K,)"""
    reference: Array
    """(K,) what a mean is level with: 0, or a single cell's bound."""
    delta: Array
    """(K,) how far from it a mean is still level; 0 where that is not declared."""
    required: int
    """How many comparisons must agree, 1 … K."""
    alpha: float
    """The chance of a wrong decision on this hypothesis at this look."""

    @cached_property
    def levels(self) -> tuple[float, float]:
        """What the decisions "holds" and "contradicted" may use, and what "level" may.

        A single difference with one bound, at 0, reserves nothing for "level": in any case, its wrong
        decisions all need one and the same one-sided confidence bound to miss.
        """
        if not self.delta.any():
            return self.alpha, 0.0
        one_bound = np.isinf(self.low) | np.isinf(self.high)
        nested = one_bound & ((self.low == self.reference) | (self.high == self.reference))
        if len(nested) == 1 and nested[0]:
            return self.alpha, self.alpha
        return (1 - LEVEL_SHARE) * self.alpha, LEVEL_SHARE * self.alpha

    def p_values(self, mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """Of the decisions "holds", "contradicted" and "level".

        Args:
            mean, error, df: (…, K)

        Returns:
            Three arrays (…,).
        """
        refuting = len(self.low) - self.required + 1
        inside = p_inside(mean, error, df, self.low, self.high)
        outside = p_outside(mean, error, df, self.low, self.high)
        level = p_inside(mean, error, df, self.reference - self.delta, self.reference + self.delta)
        level = np.where(self.delta > 0, level, 1.0)
        # What contradicts by itself is not level with the rest.
        refuted = (outside <= ALPHA).sum(axis=-1) >= refuting
        return (
            at_least(self.required, inside),
            at_least(refuting, outside),
            np.where(refuted, 1.0, at_least(refuting, level)),
        )

    def decide(self, mean: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike) -> npt.NDArray[np.int_]:
        """HOLDS, CONTRADICTED, LEVEL or UNDECIDED; arguments as of :meth:`p_values`."""
        holds, contradicted, level = self.p_values(mean, error, df)
        clear, equal = self.levels
        if not clear:
            return np.full(np.shape(holds), UNDECIDED)
        found = np.where(level <= equal, LEVEL, UNDECIDED)
        found = np.where(contradicted <= clear, CONTRADICTED, found)
        return np.where((holds <= clear) & (holds <= contradicted), HOLDS, found)


# -- more seeds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """The samples that a hypothesis rests on: its cells, or where it is paired its differences."""

    n: int
    """Values in each, at least 2."""
    mean: Array
    """(G,)"""
    variance: Array
    """(G,) of one value."""
    df: Array
    """(G,) degrees of freedom of each variance."""
    contrast: Array
    """(K, G) of 0, 1 and −1: each comparison as a sum of groups."""
    pooled: bool

    def estimates(self) -> tuple[Array, Array, Array]:
        """(mean, error, df) of each comparison; the arrays may have axes before (G,), then so have the results."""
        size = np.abs(self.contrast)
        mean = self.mean @ self.contrast.T
        if self.pooled:
            common = np.average(self.variance, axis=-1, weights=self.df)[..., None, None]
            variance = np.maximum(common, (size * self.variance[..., None, :]).max(axis=-1, keepdims=True))[..., 0]
            return mean, np.sqrt(variance * size.sum(axis=-1) / self.n), np.full_like(mean, self.df.sum())
        parts = self.variance / self.n
        total = parts @ size.T
        with np.errstate(all="ignore"):
            df = total**2 / ((parts**2 / self.df) @ size.T)
        return mean, np.sqrt(total), df


@dataclass(frozen=True)
class Forecast:
    """What more seeds would probably bring, given the estimates so far."""

    chance: float
    """Of a decision by the last look that is planned."""
    at: int | None
    """The first look by which a decision is probable (:data:`PROBABLY`); None if there is none."""
    fresh: int | None
    """How many seeds a new study would need to decide it probably; None if :data:`CAP` would not do."""

    def describe(self, sample: str = "seed") -> str:
        """One clause."""
        if self.at is not None:
            return f"{self.at} {sample}s would probably decide it"
        ahead = f"the looks ahead will decide it with a chance of {self.chance:.0%}; " if self.chance else ""
        if self.fresh is None:
            return f"{ahead}no number of {sample}s up to {CAP} would probably decide it"
        return f"{ahead}a new study of about {self.fresh} {sample}s would probably decide it"


def forecast(found: Groups, rule: Rule, ahead: Sequence[tuple[int, float]], fresh_alpha: float) -> Forecast:
    """Simulates future values: draws means and variances given the values so far, then new values.

    Args:
        ahead: (number of seeds, α) of the looks still to come, each an extension of the values so far.
        fresh_alpha: of a new study with one look.
    """
    rng = np.random.default_rng(0)
    shape = (_DRAWS, len(found.mean))
    if found.pooled:
        total = found.df.sum()
        pooled = float(found.df @ found.variance / total)
        variance = np.broadcast_to(pooled * total / rng.chisquare(total, (_DRAWS, 1)), shape)
    else:
        variance = found.variance * found.df / rng.chisquare(found.df, shape)
    truth = rng.normal(found.mean, np.sqrt(variance / found.n))

    def values(n: int) -> Groups:
        df = found.df / (found.n - 1) * (n - 1)  # of a trimmed mean they are fewer than n − 1
        scatter = variance * rng.chisquare(df, shape) / df if n > 1 else np.zeros(shape)
        return replace(found, n=n, mean=rng.normal(truth, np.sqrt(variance / n)), variance=scatter, df=df)

    decided = np.zeros(_DRAWS, bool)
    so_far, at = found, None
    for n, alpha in ahead:
        so_far = _together(so_far, values(n - so_far.n))
        decided |= replace(rule, alpha=alpha).decide(*so_far.estimates()) != UNDECIDED
        if at is None and decided.mean() >= PROBABLY:
            at = n
    afresh = replace(rule, alpha=fresh_alpha)
    enough = (n for n in _SIZES if (afresh.decide(*values(n).estimates()) != UNDECIDED).mean() >= PROBABLY)
    return Forecast(float(decided.mean()), at, next(enough, None))


def _together(one: Groups, other: Groups) -> Groups:
    """The groups' values and others of the same groups."""
    n = one.n + other.n
    df = one.df / max(one.n - 1, 1) * (n - 1)
    squares = one.df * one.variance + other.df * other.variance
    squares = squares + (one.mean - other.mean) ** 2 * one.n * other.n / n
    mean = (one.n * one.mean + other.n * other.mean) / n
    return replace(one, n=n, mean=mean, variance=squares / df, df=df)
