"""How a conclusion is judged: comparisons, their p-values, and the verdict that survives correction.

A claim is a conjunction of *comparisons*, each saying that a mean lies between two bounds ("ReLU − GeLU > 0",
"|2 layers − 1 layer| < 0.5"). Over the seeds, each comparison has a one-sided Student t p-value for it (the mean
lies inside) and one against it (the mean lies outside).

    holds      every comparison (or the required number of them) is shown: the largest p-value decides, and needs no
               correction, for all must pass
    fails      at least one is shown to be the other way: the smallest p-value decides, times the number of them
    undecided  neither, or runs are missing, or fewer than two seeds

Over the claims judged together, the p-values (doubled, for there are two ways to decide) are corrected by Holm's
method: under any dependence, the chance that any decided verdict is wrong is at most :data:`ALPHA`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from sweeps.read.summary import interval, p_above

Verdict = Literal["holds", "fails", "undecided"]

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """The statement that the mean of ``values`` lies between ``low`` and ``high``."""

    label: str
    values: tuple[float, ...]
    """One per seed (or timing round), differences already taken; logarithms where ``unit`` is "×"."""
    unit: str
    low: float = -math.inf
    high: float = math.inf
    resolution: float = 0.0

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def p_for(self) -> float:
        """Against "the mean is outside": small when it is shown to be inside."""
        return max(self._p_above(self.low), self._p_below(self.high))

    @cached_property
    def p_against(self) -> float:
        """Against "the mean is inside": small when it is shown to be outside."""
        finite = math.isfinite(self.low) + math.isfinite(self.high)
        return min(1.0, finite * min(self._p_below(self.low), self._p_above(self.high)))

    @property
    def slack(self) -> float:
        """How far inside its bounds the mean is; negative outside."""
        mean, _ = interval(self.values)
        return min(mean - self.low, self.high - mean)

    @property
    def verdict(self) -> Verdict:
        """On its own, as if nothing else were tested."""
        return _decide(self.p_for, self.p_against, min(1.0, 2 * min(self.p_for, self.p_against)))

    @property
    def effect(self) -> float:
        """The mean in ``unit``; a factor where that is "×"."""
        return self._shown(interval(self.values)[0])

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, for this comparison alone; NaN for fewer than two values."""
        mean, half = interval(self.values)
        return self._shown(mean - half), self._shown(mean + half)

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        low, high = self._shown(self.low), self._shown(self.high)
        if self.low == -math.inf:
            return f"below {self._with_unit(f'{high:g}')}"
        if self.high == math.inf:
            return f"above {self._with_unit(f'{low:g}')}"
        return f"between {low:g} and {self._with_unit(f'{high:g}')}"

    def describe(self) -> str:
        """``"ReLU − GeLU, 1L: +0.12 points (95 % interval +0.05 to +0.19)"``."""
        low, high = self.interval
        around = "" if math.isnan(low) else f" (95 % interval {self.show(low)} to {self.show(high)})"
        return f"{self.label}: {self.found}{around}"

    @property
    def found(self) -> str:
        """``"+0.12 points"``, ``"1.87×"``."""
        return self._with_unit(self.show(self.effect))

    def show(self, x: float) -> str:
        """A number of this unit as it is printed; what can have either sign shows it."""
        return f"{x:.2f}" if self.unit in ("×", "epochs") else f"{x:+.2f}"

    def _with_unit(self, number: str) -> str:
        if self.unit == "×":
            return number + self.unit
        return f"{number} {self.unit.removesuffix('s') if number == '1' else self.unit}"

    def _p_above(self, bound: float) -> float:
        return p_above(self.values, bound, resolution=self.resolution)

    def _p_below(self, bound: float) -> float:
        return p_above([-value for value in self.values], -bound, resolution=self.resolution)

    def _shown(self, x: float) -> float:
        return math.exp(min(x, 700.0)) if self.unit == "×" else x


@dataclass(frozen=True)
class Claim:
    """One conclusion of the report, with what the runs say to it."""

    name: str
    text: str
    """The conclusion in English, as it is tested."""
    quote: str
    """The report's own words (§4)."""
    measured: str
    """What the comparisons compare."""
    comparisons: tuple[Comparison, ...]
    runs: tuple[str, ...]
    """The ids of the runs that it rests on; none for a claim about time, which rests on timing.json."""
    required: int = 0
    """How many comparisons must hold; 0: all."""
    obstacle: str = ""
    """Why nothing can be decided by any numbers: runs missing, unfinished, …"""
    notes: tuple[str, ...] = ()
    """Sensitivity to how it was measured, and what else a reader should know."""
    sample: str = "seed"
    """What the values were repeated over."""
    p_adjusted: float | None = None
    """After correction over the claims that were judged together; None while judged alone."""
    family: int = 1
    """How many those were."""

    @cached_property
    def p(self) -> float:
        """Of the better supported of the two decisions, in this claim alone; 1 where nothing can be decided."""
        if self.obstacle or not self.comparisons:
            return 1.0
        return min(1.0, 2 * min(self._p_holds, self._p_fails))

    @property
    def verdict(self) -> Verdict:
        if self.obstacle or not self.comparisons:
            return "undecided"
        return _decide(self._p_holds, self._p_fails, self.p if self.p_adjusted is None else self.p_adjusted)

    @property
    def decisive(self) -> Comparison | None:
        """What the verdict hangs on: of a claim that fails the clearest contradiction, else the weakest comparison.

        Where not all need hold, it is the weakest of those that must, and the last of the contradictions that it takes.
        """
        if not self.comparisons:
            return None
        if self.verdict == "fails":
            return sorted(self.comparisons, key=lambda c: c.p_against)[len(self.comparisons) - self._needed]
        return sorted(self.comparisons, key=lambda c: (c.p_for, -c.slack))[self._needed - 1]

    @property
    def effect(self) -> float:
        return self.decisive.effect if self.decisive else math.nan

    @property
    def unit(self) -> str:
        return self.decisive.unit if self.decisive else ""

    @property
    def interval(self) -> tuple[float, float]:
        return self.decisive.interval if self.decisive else (math.nan, math.nan)

    @property
    def n(self) -> int:
        """Seeds (or timing rounds)."""
        return min((c.n for c in self.comparisons), default=0)

    @property
    def detail(self) -> str:
        """Two or three sentences for a reader who knows what a mean is."""
        if not self.comparisons:
            return _sentence(self.obstacle)
        count = f"{self.n} {self.sample}{'' if self.n == 1 else 's'}"
        sentences = [f"Compared: {self.measured}; {count}", self._outcome()]
        if self.obstacle:
            sentences.append(f"Not decided: {self.obstacle}")
        elif self.n < 2:
            sentences.append(
                f"Not decided: a single {self.sample} does not show how much {self.sample}s differ; three or more can"
            )
        return " ".join(map(_sentence, [*sentences, *self.notes]))

    def _outcome(self) -> str:
        assert self.decisive is not None
        total = len(self.comparisons)
        agree = sum(c.verdict == "holds" for c in self.comparisons)
        contradict = sum(c.verdict == "fails" for c in self.comparisons)
        found = f"{self.decisive.describe()}, where the claim needs {self.decisive.wanted}"
        if self.verdict == "undecided" and self.p <= ALPHA:
            found = (
                f"judged alone it would be decided, but not after the correction for {self.family} claims judged "
                f"together; the {'least clear ' if total > 1 else ''}comparison is {found}"
            )
        elif total == 1:
            found = f"{'clearly not so' if self.verdict == 'fails' else 'found'}: {found}"
        elif self.verdict == "holds" and agree == total:
            found = f"{'both' if total == 2 else f'all {total}'} comparisons agree; the least clear is {found}"
        else:
            tally = f"{agree} of {total} comparisons agree, {contradict} contradict"
            which = {
                "holds": "least clear of those needed",
                "fails": "clearest contradiction",
                "undecided": "least clear",
            }
            found = f"{tally}; the {which[self.verdict]} is {found}"
        return found

    @cached_property
    def _p_holds(self) -> float:
        return _at_least(self._needed, [c.p_for for c in self.comparisons])

    @cached_property
    def _p_fails(self) -> float:
        return _at_least(len(self.comparisons) - self._needed + 1, [c.p_against for c in self.comparisons])

    @property
    def _needed(self) -> int:
        return self.required or len(self.comparisons)


def holm(claims: Sequence[Claim]) -> list[Claim]:
    """The claims judged together: each p-value multiplied by the number of claims that are not clearer than it.

    A claim without data counts as one with p = 1, so that a verdict does not change its meaning as runs come in.
    """
    adjusted, largest = {}, 0.0
    for rank, claim in enumerate(sorted(claims, key=lambda claim: claim.p)):
        largest = max(largest, min(1.0, (len(claims) - rank) * claim.p))
        adjusted[claim.name] = largest
    return [replace(claim, p_adjusted=adjusted[claim.name], family=len(claims)) for claim in claims]


def _decide(p_holds: float, p_fails: float, p: float) -> Verdict:
    if p > ALPHA:
        return "undecided"
    return "holds" if p_holds <= p_fails else "fails"


def _at_least(required: int, p_values: Sequence[float]) -> float:
    """p-value for "at least ``required`` of these are true": the partial conjunction test of Benjamini and Heller.

    All: the largest p-value. At least one: the smallest times their number (Bonferroni).
    """
    return min(1.0, (len(p_values) - required + 1) * sorted(p_values)[required - 1])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
