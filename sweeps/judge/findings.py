"""How a hypothesis is judged: its comparisons, its looks, and the verdict among all that are judged together.

A hypothesis is a conjunction of *comparisons*, each saying that a mean lies between two bounds ("ReLU − GeLU > 0",
"|2 layers − 1 layer| < 0.5"). All of them must agree, or as many as it says.

    holds         as many as must are shown to agree: of all, the largest p-value decides (intersection–union)
    contradicted  too many are shown not to agree: of one that suffices, the smallest p-value times their number
    level         nothing contradicts, and a difference that was claimed is shown to be less than δ, declared before
    undecided     none of these, or runs are missing

"At least k" of several takes the partial conjunction test, which the first two are the ends of.

Why at most :data:`ALPHA` of studies have a wrong verdict, under any dependence:

* Of the decisions "holds" and "contradicted" exactly one is wrong, as each says that the other is not true: at a mean
  of exactly 0, "above 0" is wrong and "not above 0" is right. Either errs with at most the p-value's level. So a
  hypothesis at level α / m errs with at most α / m, without doubling for its two sides, and m of them err with at most
  α (the union bound). Holm's step-down does not follow from this: its later steps take what was decided first to have
  been true nulls, and a decision is not a null. With α / (m − 1) after a first decision, two hypotheses that depend on
  each other badly are wrong in twice α of studies; doubling p-values repairs that on the bounds at half the power, and
  nothing is proven between.
* "Level" is a third statement, and may be wrong together with either of the others. One difference from 0 needs no
  more for it: where the truth is at least δ, both its wrong decisions ("not above 0", "within δ") need the upper
  confidence bound to lie below the truth, and likewise on the other side. In a conjunction they may hang on different
  comparisons, so :data:`sweeps.judge.looks.LEVEL_SHARE` of α is set aside for "level", again by the union bound.
* Looks are fixed before, and share α: each is an ordinary test of the first n seeds at its own level, so that the
  union bound covers them too, and it does not matter why a study went on or ended.

The p-values are Student's, of normal values; :mod:`sweeps.judge.statistics` says what unequal variances do.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np

from sweeps.judge import looks as rules
from sweeps.judge.looks import ALPHA, Forecast, Groups, Rule, forecast
from sweeps.judge.statistics import (
    Array,
    Estimate,
    Ranking,
    Spread,
    Variance,
    estimate,
    p_inside,
    p_outside,
    probability_superior,
    ranking,
    spend,
    spread,
)

CONFIDENCE = 1 - 2 * ALPHA
"""Of the interval of a comparison alone: either end is wrong with ALPHA, so what lies inside the bounds agrees."""
FUTILE = 0.1
"""A hypothesis is given up if its remaining looks would decide it with a smaller chance."""


class Verdict(StrEnum):
    """On a hypothesis."""

    HOLDS = "holds"
    CONTRADICTED = "contradicted"
    LEVEL = "level"
    UNDECIDED = "undecided"


class Outcome(StrEnum):
    """Of a comparison, against the bounds that the hypothesis gives it."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    LEVEL = "level"
    UNDECIDED = "undecided"


class Direction(StrEnum):
    """Of a difference from 0, or of a single cell from its bound."""

    ABOVE = "above"
    BELOW = "below"
    LEVEL = "level"
    UNDECIDED = "undecided"


_VERDICTS = {
    rules.UNDECIDED: Verdict.UNDECIDED,
    rules.HOLDS: Verdict.HOLDS,
    rules.CONTRADICTED: Verdict.CONTRADICTED,
    rules.LEVEL: Verdict.LEVEL,
}


@dataclass(frozen=True)
class Cell:
    """A configuration's values, one per seed (or round), in the order of the seeds."""

    name: str
    values: tuple[float, ...]
    """Logarithms where the comparison's unit is "×"."""


@dataclass(frozen=True)
class Comparison:
    """The statement that the mean of a − b, or of a alone, lies between ``low`` and ``high``."""

    a: Cell
    b: Cell | None
    unit: str
    """"×" for a ratio: values, bounds and delta are then logarithms."""
    low: float = -math.inf
    high: float = math.inf
    delta: float = 0.0
    """A difference smaller than this counts as none; 0 if that is not declared."""
    resolution: float = 0.0
    """Step to which the values are rounded."""
    variance: Variance = Variance.SEPARATE
    common: Spread | None = None
    """Of all cells of the hypothesis, for a pooled variance."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def label(self) -> str:
        """``"ReLU 1L − GeLU 1L"``."""
        return (" / " if self.unit == "×" else " − ").join(cell.name for cell in self.cells)

    @property
    def n(self) -> int:
        return min(len(cell.values) for cell in self.cells)

    def first(self, n: int) -> "Comparison":
        """As it was at n seeds."""
        a, *b = (Cell(cell.name, cell.values[:n]) for cell in self.cells)
        return replace(self, a=a, b=b[0] if b else None)

    @cached_property
    def estimate(self) -> Estimate:
        return estimate(
            self.a.values,
            None if self.b is None else self.b.values,
            variance=self.variance,
            common=self.common,
            resolution=self.resolution,
        )

    @property
    def differences(self) -> tuple[float, ...]:
        """a − b seed by seed, as far as both go; the values of a cell alone."""
        if self.b is None:
            return self.a.values
        return tuple(a - b for a, b in zip(self.a.values, self.b.values, strict=False))

    @cached_property
    def superiority(self) -> tuple[float, tuple[float, float]]:
        """P(A > B) for one seed of each, with its 95 % interval; NaN for a cell alone."""
        return probability_superior(self.a.values, () if self.b is None else self.b.values)

    @property
    def reference(self) -> float:
        """What the mean may be above, below or level with."""
        return 0.0 if self.b is not None else self.low if math.isfinite(self.low) else self.high

    # Judged alone, as if nothing else were tested:

    @property
    def outcome(self) -> Outcome:
        """Against its bounds."""
        if min(self.p_for, self.p_against) <= ALPHA:
            return Outcome.AGREES if self.p_for <= self.p_against else Outcome.CONTRADICTS
        return Outcome.LEVEL if self.level_at and self.p_level <= ALPHA else Outcome.UNDECIDED

    @property
    def level_at(self) -> float:
        """Delta where it speaks against the hypothesis; 0 where the bounds allow for no difference at all."""
        return 0.0 if self.low < self.reference < self.high else self.delta

    @property
    def direction(self) -> Direction:
        """Which cell is shown to have the higher mean; of a cell alone, on which side of its bound it is."""
        if not math.isfinite(self.reference):
            return Direction.UNDECIDED
        if self.estimate.p_above(self.reference) <= ALPHA:
            return Direction.ABOVE
        if self.estimate.p_below(self.reference) <= ALPHA:
            return Direction.BELOW
        return Direction.LEVEL if self.p_level <= ALPHA else Direction.UNDECIDED

    @cached_property
    def p_for(self) -> float:
        """Against "the mean is outside": small when it is shown to be inside."""
        found = self.estimate
        return float(p_inside(found.mean, found.error, found.df, self.low, self.high))

    @cached_property
    def p_against(self) -> float:
        """Against "the mean is inside": small when it is shown to be outside."""
        found = self.estimate
        return float(p_outside(found.mean, found.error, found.df, self.low, self.high))

    @cached_property
    def p_level(self) -> float:
        """Against "it differs by delta or more"; 1 where no delta is declared."""
        if not self.delta:
            return 1.0
        return replace(self.estimate, mean=self.estimate.mean - self.reference).p_level(self.delta)

    @property
    def slack(self) -> float:
        """How far inside its bounds the mean is; negative outside."""
        return min(self.estimate.mean - self.low, self.high - self.estimate.mean)

    # In words:

    @property
    def effect(self) -> float:
        """The mean in ``unit``; a factor where that is "×"."""
        return self.shown(self.estimate.mean)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the effect, at :data:`CONFIDENCE`, for this comparison alone; NaN for too few values."""
        low, high = self.estimate.interval(CONFIDENCE)
        return self.shown(low), self.shown(high)

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        low, high = self.shown(self.low), self.shown(self.high)
        if self.low == -math.inf:
            return f"below {self._with_unit(f'{high:g}')}"
        if self.high == math.inf:
            return f"above {self._with_unit(f'{low:g}')}"
        return f"between {low:g} and {self._with_unit(f'{high:g}')}"

    def describe(self) -> str:
        """``"ReLU − GeLU, 1L: +0.12 points (90 % interval +0.05 to +0.19)"``."""
        low, high = self.interval
        around = f" ({CONFIDENCE:.0%} interval {self.show(low)} to {self.show(high)})".replace("%", " %")
        return f"{self.label}: {self.found}{'' if math.isnan(low) else around}"

    @property
    def found(self) -> str:
        """``"+0.12 points"``, ``"1.87×"``."""
        return self._with_unit(self.show(self.effect))

    def show(self, x: float) -> str:
        """A number of this unit as it is printed; what can have either sign shows it."""
        return f"{x:.2f}" if self.unit == "×" or self.b is None else f"{x:+.2f}"

    def shown(self, x: float) -> float:
        """In ``unit``, from the scale that is computed on."""
        return math.exp(min(x, 700.0)) if self.unit == "×" else x

    def _with_unit(self, number: str) -> str:
        if self.unit == "×":
            return number + self.unit
        return f"{number} {self.unit.removesuffix('s') if number == '1' else self.unit}".rstrip()


@dataclass(frozen=True)
class Look:
    """A hypothesis after n seeds."""

    n: int
    alpha: float
    """Its error rate at this look, a share of ALPHA; 0 if it is shown but not judged."""
    comparisons: tuple[Comparison, ...]
    required: int

    @cached_property
    def rule(self) -> Rule:
        return _rule(self.comparisons, self.required, self.alpha)

    @cached_property
    def verdict(self) -> Verdict:
        return _VERDICTS[int(self.rule.decide(*_arrays(self.comparisons)))]

    @cached_property
    def p_values(self) -> Mapping[Verdict, float]:
        """Of the three decisions, for this hypothesis and this look alone."""
        found = map(float, self.rule.p_values(*_arrays(self.comparisons)))
        return dict(zip((Verdict.HOLDS, Verdict.CONTRADICTED, Verdict.LEVEL), found, strict=True))

    @property
    def p(self) -> float:
        """The smallest, corrected for all hypotheses and looks: the verdict is decided where it is at most ALPHA."""
        clear, equal = self.rule.levels
        levels = {Verdict.HOLDS: clear, Verdict.CONTRADICTED: clear, Verdict.LEVEL: equal}
        return min([1.0, *(p * ALPHA / levels[v] for v, p in self.p_values.items() if levels[v])])

    @cached_property
    def tally(self) -> Mapping[Outcome, int]:
        """How many comparisons, each judged alone, come out how."""
        return Counter(comparison.outcome for comparison in self.comparisons)

    @property
    def decisive(self) -> Comparison:
        """The decisive comparison: of one contradicted the clearest contradiction, else the weakest comparison.

        Where not all must agree, it is the weakest of those that must, or the last of the contradictions that it takes.
        """
        refuting = len(self.comparisons) - self.required
        if self.verdict is Verdict.CONTRADICTED:
            return sorted(self.comparisons, key=lambda c: c.p_against)[refuting]
        if self.verdict is Verdict.LEVEL:
            known = (c for c in self.comparisons if c.level_at)
            return sorted(known, key=lambda c: abs(c.estimate.mean - c.reference) / c.level_at)[refuting]
        return sorted(self.comparisons, key=lambda c: (c.p_for, -c.slack))[self.required - 1]


@dataclass(frozen=True)
class Finding:
    """A hypothesis and its verdict."""

    name: str
    text: str
    """The hypothesis in words, as it is tested."""
    quote: str
    """The sentence that it comes from, if any."""
    measured: str
    """What the comparisons compare."""
    comparisons: tuple[Comparison, ...]
    """With all values, also those after the verdict."""
    runs: tuple[str, ...]
    """The ids of the runs that it rests on; none for one about time, which rests on timing.json."""
    required: int = 0
    """How many comparisons must agree; 0: all."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds at which it is judged, fixed before the first; empty: once, with all there are."""
    obstacle: str = ""
    """Why nothing can be decided by any numbers: runs missing, unfinished, …"""
    remedy: tuple[str, ...] = ()
    """The command that removes the obstacle, if one does."""
    notes: tuple[str, ...] = ()
    """Sensitivity to the measure, and other remarks."""
    sample: str = "seed"
    """What the values were repeated over."""
    family: int = 1
    """How many hypotheses are judged together."""

    @property
    def n(self) -> int:
        """Seeds (or rounds) that all cells have."""
        return min((comparison.n for comparison in self.comparisons), default=0)

    @cached_property
    def history(self) -> tuple[Look, ...]:
        """The looks so far; before the first one is due, the data so far, without a judgement."""
        if not self.comparisons:
            return ()
        alpha = ALPHA / self.family
        if not self.looks:
            return (self._look(None, alpha),)
        due = [(n, share) for n, share in self._shares(alpha) if n <= self.n]
        return tuple(self._look(n, share) for n, share in due) or (self._look(None, 0.0),)

    @cached_property
    def judged(self) -> Look | None:
        """The look that the verdict is from: the first that decides, else the last; None without data."""
        decided = (look for look in self.history if look.verdict is not Verdict.UNDECIDED)
        return next(decided, self.history[-1] if self.history else None)

    @property
    def verdict(self) -> Verdict:
        return Verdict.UNDECIDED if self.obstacle or self.judged is None else self.judged.verdict

    @property
    def p(self) -> float:
        """Corrected for all hypotheses and looks: at most ALPHA where it is decided; 1 where nothing can be."""
        return 1.0 if self.obstacle or self.judged is None else self.judged.p

    @property
    def decisive(self) -> Comparison | None:
        return None if self.judged is None else self.judged.decisive

    @cached_property
    def forecast(self) -> Forecast | None:
        """Of one that is undecided by its numbers: what more seeds would probably bring."""
        if self.obstacle or self.judged is None or self.verdict is not Verdict.UNDECIDED:
            return None
        groups = _groups(self.judged.comparisons)
        if groups is None:
            return None
        alpha = ALPHA / self.family
        ahead = [(n, share) for n, share in self._shares(alpha) if n > self.judged.n]
        return forecast(groups, self.judged.rule, ahead, alpha)

    @property
    def next_look(self) -> int | None:
        """The number of seeds that should be trained next for it; None if it is decided, futile or at its last look."""
        if self.verdict is not Verdict.UNDECIDED or self.obstacle:
            return None
        ahead = [n for n in self.looks if n > self.n]
        futile = self.forecast is not None and self.forecast.chance < FUTILE
        return ahead[0] if ahead and not futile else None

    @property
    def orders(self) -> tuple[Ranking, ...]:
        """The cells that comparisons connect, where they are three or more, in a partial order."""
        if self.judged is None or self.judged.n < 2:
            return ()
        return tuple(_orders(self.judged.comparisons))

    @property
    def reason(self) -> str:
        """The obstacle, with the way out."""
        return f"{self.obstacle}; run `{shlex.join(self.remedy)}`" if self.remedy else self.obstacle

    @property
    def detail(self) -> str:
        """A few sentences for readers without statistics."""
        if self.judged is None:
            return _sentence(self.reason)
        sentences = [f"Compared: {self.measured}; {self._count(self.judged.n)}", self._outcome(self.judged)]
        if self.obstacle:
            sentences.append(f"Not decided: {self.reason}")
        elif self.judged.n < 2:
            sentences.append(
                f"Not decided: a single {self.sample} does not show how much {self.sample}s differ; use three or more"
            )
        elif self.looks and self.n < self.looks[0]:
            sentences.append(f"Not decided: it is first judged at {self._count(self.looks[0])}")
        elif self.forecast is not None:
            sentences.append(f"Not decided: {self.forecast.describe(self.sample)}")
        elif len(self.looks) > 1:
            place = self.looks.index(self.judged.n) + 1
            sentences.append(f"Decided at look {place} of {len(self.looks)}")
        return " ".join(map(_sentence, [*sentences, *self.notes]))

    def _shares(self, alpha: float) -> list[tuple[int, float]]:
        """Each look with what it may use of ``alpha``."""
        return list(zip(self.looks, spend(self.looks, alpha), strict=True)) if self.looks else []

    def _look(self, n: int | None, alpha: float) -> Look:
        """After n seeds; None: with all seeds."""
        comparisons = [c if n is None else c.first(n) for c in self.comparisons]
        cells = {cell.name: cell.values for c in comparisons for cell in c.cells}
        if any(c.variance is Variance.POOLED for c in comparisons):
            common = spread(list(cells.values()), resolution=max(c.resolution for c in comparisons))
            comparisons = [replace(c, common=common) for c in comparisons]
        required = self.required or len(comparisons)
        return Look(min(c.n for c in comparisons), alpha, tuple(comparisons), required)

    def _outcome(self, look: Look) -> str:
        total = len(look.comparisons)
        found = f"{look.decisive.describe()}, where the hypothesis needs {look.decisive.wanted}"
        if look.verdict is Verdict.UNDECIDED and look.alpha and min(look.p_values.values()) <= ALPHA:
            least = "least clear " if total > 1 else ""
            return f"judged alone it would be decided, but not {self._among}; the {least}comparison is {found}"
        if total == 1:
            words = {Verdict.HOLDS: "found", Verdict.CONTRADICTED: "clearly not so", Verdict.LEVEL: "level"}
            return f"{words.get(look.verdict, 'found')}: {found}"
        if look.verdict is Verdict.HOLDS and look.tally[Outcome.AGREES] == total:
            return f"{'both' if total == 2 else f'all {total}'} comparisons agree; the least clear is {found}"
        which = {
            Verdict.HOLDS: "least clear of those needed",
            Verdict.CONTRADICTED: "clearest contradiction",
            Verdict.LEVEL: "smallest difference",
            Verdict.UNDECIDED: "least clear",
        }
        return f"{tally(look)}; the {which[look.verdict]} is {found}"

    @property
    def _among(self) -> str:
        """What its share of ALPHA is shared with."""
        shared = [f"as one of {self.family} hypotheses"] if self.family > 1 else []
        shared += [f"at one of {len(self.looks)} looks"] if len(self.looks) > 1 else []
        return " and ".join(shared) or "beside what is set aside for level"

    def _count(self, n: int) -> str:
        return f"{n} {self.sample}{'' if n == 1 else 's'}"


def tally(look: Look) -> str:
    """``"3 of 6 comparisons agree, 1 contradicts, 1 is level, 1 is undecided"``."""
    counts = look.tally
    words = {
        Outcome.CONTRADICTS: ("contradicts", "contradict"),
        Outcome.LEVEL: ("is level", "are level"),
        Outcome.UNDECIDED: ("is undecided", "are undecided"),
    }
    agree = counts[Outcome.AGREES]
    parts = [f"{agree} of {len(look.comparisons)} comparisons {'agrees' if agree == 1 else 'agree'}"]
    for kind, (one, more) in words.items():
        if counts[kind]:
            parts.append(f"{counts[kind]} {one if counts[kind] == 1 else more}")
    return ", ".join(parts)


def together(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of one study: each may err with an equal share of ALPHA.

    One without data counts too, so that a verdict does not change its meaning as runs come in.
    """
    return [replace(finding, family=len(findings)) for finding in findings]


def _rule(comparisons: Sequence[Comparison], required: int, alpha: float) -> Rule:
    low, high, reference, delta = np.array([(c.low, c.high, c.reference, c.level_at) for c in comparisons], float).T
    return Rule(low, high, reference, delta, required, alpha)


def _arrays(comparisons: Sequence[Comparison]) -> tuple[Array, Array, Array]:
    found = [c.estimate for c in comparisons]
    mean, error, df = np.array([(e.mean, e.error, e.df) for e in found], float).T
    return mean, error, df


def _groups(comparisons: Sequence[Comparison]) -> Groups | None:
    """What a forecast draws from; None where a variance is not known."""
    n = min(c.n for c in comparisons)
    variances = {c.variance for c in comparisons}
    if n < 2 or not all(math.isfinite(c.estimate.error) for c in comparisons):
        return None
    if variances & {Variance.PAIRED, Variance.TRIMMED}:
        mean, error, df = _arrays(comparisons)
        return Groups(n, mean, error**2 * n, df, np.eye(len(comparisons)), False)
    cells = {cell.name: np.asarray(cell.values[:n]) for c in comparisons for cell in c.cells}
    resolution = max(c.resolution for c in comparisons)
    contrast = np.zeros((len(comparisons), len(cells)))
    for row, c in zip(contrast, comparisons, strict=True):
        for sign, cell in zip((1, -1), c.cells, strict=False):
            row[list(cells).index(cell.name)] = sign
    variance = np.array([max(values.var(ddof=1), resolution**2 / 12) for values in cells.values()])
    common = comparisons[0].common
    pooled = variances == {Variance.POOLED} and common is not None and common.compatible
    mean = np.array([values.mean() for values in cells.values()])
    return Groups(n, mean, variance, np.full(len(cells), n - 1.0), contrast, pooled)


def _orders(comparisons: Sequence[Comparison]) -> Iterator[Ranking]:
    connected: list[dict[str, Cell]] = []
    for c in comparisons:
        mine = {cell.name: cell for cell in c.cells}
        touching = [group for group in connected if group.keys() & mine.keys()]
        connected = [group for group in connected if group not in touching]
        connected.append({name: cell for group in [*touching, mine] for name, cell in group.items()})
    first = comparisons[0]
    for group in connected:
        if len(group) > 2:
            cells = {name: cell.values for name, cell in group.items()}
            yield ranking(cells, variance=first.variance, common=first.common, resolution=first.resolution)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
