"""How often verdicts are wrong and how often right, in simulated studies that are judged by the real code.

Every hypothesis stands on its bounds, where it errs most, and they share cells and seeds.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from sweeps.judge.findings import ALPHA, Cell, Comparison, Finding, Verdict, together
from sweeps.judge.statistics import Variance

LOOKS = (3, 5, 8)
DELTA = 0.5
HOLDS, CONTRADICTED, LEVEL, UNDECIDED = Verdict
TINY = 1e-9  # above the bound, and no further than that


def finding(*comparisons: Comparison, **changes) -> Finding:
    return replace(Finding("name", "text", "quote", "measured", comparisons, ()), **changes)


def promised(rate: float, studies: int) -> float:
    """What a rate that is kept may come to in so many studies."""
    return rate + 2.5 * math.sqrt(rate * (1 - rate) / studies)


# Means of the cells, and hypotheses over them with the verdicts that would be wrong. Cells "a" to "d" are equal but for
# TINY; "e" is exactly δ above them, "f" far above, "g" far below.
MEANS = {"a": 0.0, "b": 0.0, "c": 0.0, "d": TINY, "e": DELTA + 2 * TINY, "f": 50.0, "g": -50.0}


def hypotheses(cells: dict[str, Cell], variance: Variance) -> list[tuple[Finding, set[Verdict]]]:
    def order(names: str, **options) -> list[Comparison]:
        pairs = [(cells[a], cells[b]) for a, b in itertools.pairwise(names)]
        return [Comparison(a, b, "points", 0.0, variance=variance, **options) for a, b in pairs]

    def within(a: str, b: str) -> Comparison:
        return Comparison(cells[a], cells[b], "points", -DELTA, DELTA, variance=variance)

    return [
        (finding(*order("ab")), {HOLDS}),
        (finding(*order("bc")), {HOLDS}),
        (finding(*order("ca")), {HOLDS}),
        (finding(*order("da")), {CONTRADICTED}),
        (finding(*order("dbg")), {CONTRADICTED}),
        (finding(*order("fabg")), {HOLDS}),
        (finding(*order("fcdg")), {HOLDS}),
        (finding(*order("ba"), *order("cb"), *order("fg"), required=2), {HOLDS}),
        (finding(*order("ea", delta=DELTA)), {CONTRADICTED, LEVEL}),
        (finding(*order("feag", delta=DELTA)), {CONTRADICTED, LEVEL}),
        (finding(*order("aeg", delta=DELTA)), {HOLDS, LEVEL}),
        (finding(within("e", "b")), {HOLDS}),
    ]


def draw(rng: np.random.Generator, n: int, shared: float, scatter: dict[str, float]) -> dict[str, Cell]:
    """Cells whose values correlate by ``shared`` within a seed."""
    seed = rng.normal(0, math.sqrt(shared), n)
    own = {name: rng.normal(0, scatter.get(name, 1.0) * math.sqrt(1 - shared), n) for name in MEANS}
    return {name: Cell(name, tuple(mean + seed + own[name])) for name, mean in MEANS.items()}


def wrong_studies(studies: int, variance: Variance, shared: float, scatter: dict[str, float]) -> float:
    """The share of studies with any wrong verdict at any look."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(studies):
        judged = hypotheses(draw(rng, LOOKS[-1], shared, scatter), variance)
        findings = together([replace(found, looks=LOOKS) for found, _ in judged])
        wrong += any(found.verdict in bad for found, (_, bad) in zip(findings, judged, strict=True))
    return wrong / studies


DESIGNS: Sequence[tuple[Variance, float, dict[str, float]]] = (
    (Variance.POOLED, 0.0, {}),
    (Variance.POOLED, 0.0, {"a": 2.0, "b": 2.0}),
    (Variance.SEPARATE, 0.0, {"a": 3.0}),
    (Variance.PAIRED, 0.8, {}),
)


@pytest.mark.parametrize(("variance", "shared", "scatter"), DESIGNS)
def test_at_most_one_study_in_twenty_has_a_wrong_verdict(variance, shared, scatter):
    rate = wrong_studies(250, variance, shared, scatter)
    print(f"{variance}, correlation {shared}, spreads {scatter or 'equal'}: {rate:.3f} of studies are wrong")
    assert rate <= promised(ALPHA, 250)


@pytest.mark.heavy
@pytest.mark.parametrize(("variance", "shared", "scatter"), DESIGNS)
def test_at_most_one_study_in_twenty_has_a_wrong_verdict_in_many(variance, shared, scatter):
    rate = wrong_studies(3000, variance, shared, scatter)
    print(f"{variance}, correlation {shared}, spreads {scatter or 'equal'}: {rate:.4f} of studies are wrong")
    assert rate <= promised(ALPHA, 3000)


# ------------------------------------------------------------------------------------ what errs more than it promises


def test_looking_again_without_paying_for_it_errs_twice_as_often():
    """One hypothesis on its bound; looks at 3, 5, 10 and 20 seeds, at the level of one look or sharing it."""
    rng = np.random.default_rng(1)
    studies, looks, naive, paid = 500, (3, 5, 10, 20), 0, 0
    for _ in range(studies):
        a, b = (Cell(name, tuple(rng.normal(size=20))) for name in "ab")
        found = finding(Comparison(a, b, "points", 0.0, variance=Variance.POOLED))
        seen = [replace(found, comparisons=(found.comparisons[0].first(n),)).verdict for n in looks]
        naive += HOLDS in seen
        paid += replace(found, looks=looks).verdict is HOLDS
    print(f"looks at {looks}: {naive / studies:.3f} wrong at 0.05 each, {paid / studies:.3f} sharing 0.05")
    assert naive / studies > promised(ALPHA, studies)
    assert paid / studies <= promised(ALPHA, studies)


def coupled(rng: np.random.Generator, studies: int) -> tuple[list[Finding], list[Finding]]:
    """Two hypotheses that are true of nothing ("above 0", of means 0), and depend on each other as badly as can be.

    Each alone rests on five normal values. Where the one's speak strongly against it, the other's speak for it, at the
    level α though not at α / 2; and the two do not speak strongly for themselves at once.
    """
    values = rng.normal(size=(2, studies, 5))
    ordered = []
    for sample in values:
        t = sample.mean(axis=1) / sample.std(axis=1)
        ordered.append(sample[np.argsort(-t)])  # the smallest p-value for "above 0" first
    w = round(studies * ALPHA / 2)
    strong, weak, against = np.arange(w), np.arange(w, 2 * w), np.arange(studies - w, studies)
    rest = np.arange(2 * w, studies - w)
    one = np.concatenate([strong, rest[:w], against, weak, rest[w:]])
    other = np.concatenate([rest[:w], strong, weak, against, rest[w:]])

    def hypothesis(sample) -> Finding:
        return finding(Comparison(Cell("a", tuple(sample)), None, "points", 0.0))

    return [hypothesis(x) for x in ordered[0][one]], [hypothesis(x) for x in ordered[1][other]]


def step_down(findings: Sequence[Finding], factor: float) -> list[Verdict]:
    """Holm's method on ``factor`` times the smaller p-value of each hypothesis."""
    found = [UNDECIDED] * len(findings)
    for rank, k in enumerate(sorted(range(len(findings)), key=lambda k: findings[k].p)):
        if (len(findings) - rank) * factor * findings[k].p > ALPHA:
            break
        found[k] = findings[k].verdict
    return found


def test_stepping_down_after_a_decision_errs_twice_as_often_as_it_promises():
    """Two levels of α / 2 can use up α, and nothing covers a step to α after a decision."""
    studies = 2000

    def single_step(pair):
        return [found.verdict for found in together(pair)]

    methods: dict[str, Callable] = {
        "α / m for each": single_step,
        "Holm": lambda pair: step_down(pair, 1),
        "Holm, doubled": lambda pair: step_down(pair, 2),
    }
    pairs = list(zip(*coupled(np.random.default_rng(2), studies), strict=True))
    wrong, decided = {}, {}
    for name, method in methods.items():
        verdicts = [method(pair) for pair in pairs]
        wrong[name] = sum(HOLDS in found for found in verdicts) / studies
        decided[name] = sum({*found} != {UNDECIDED} for found in verdicts) / studies
        print(f"{name}: wrong in {wrong[name]:.4f} of studies, any decision in {decided[name]:.4f}")
    assert 0.8 * ALPHA < wrong["α / m for each"] <= promised(ALPHA, studies)
    assert wrong["Holm"] > promised(1.5 * ALPHA, studies)
    # Doubled it is right on the bounds, where its first decision is in one of 2 m tails, and decides half as often.
    assert wrong["Holm, doubled"] < 0.8 * ALPHA
    assert decided["Holm, doubled"] < 0.7 * decided["α / m for each"]


def test_level_costs_a_single_difference_nothing():
    """Exactly δ apart: "not above 0" and "within δ" are both wrong, and together no likelier than one of them."""
    rng = np.random.default_rng(3)
    wrong, studies = {CONTRADICTED: 0, LEVEL: 0, HOLDS: 0, UNDECIDED: 0}, 2000
    for values in rng.normal(DELTA, 0.3, (studies, 6)):
        pair = Comparison(Cell("a", tuple(values)), None, "points", 0.0)
        pair = replace(pair, b=Cell("b", (0.0,) * 6), delta=DELTA, variance=Variance.PAIRED)
        wrong[finding(pair).verdict] += 1
    rate = (wrong[CONTRADICTED] + wrong[LEVEL]) / studies
    assert wrong[LEVEL]
    assert rate <= promised(ALPHA, studies)


# --------------------------------------------------------------------------------------------------------------- power


def test_looks_decide_at_least_as_much_as_a_fixed_number_of_the_same_cost():
    """Hypotheses with differences of 0 to 6 standard deviations, eight to a study."""
    rng = np.random.default_rng(4)
    effects, studies = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), 100
    right, cost = {"looks": 0, 5: 0, 6: 0, 8: 0}, 0
    for _ in range(studies):
        findings = []
        for effect in effects:
            a, b = Cell("a", tuple(rng.normal(effect, 1, 8))), Cell("b", tuple(rng.normal(0, 1, 8)))
            findings.append(finding(Comparison(a, b, "points", 0.0, variance=Variance.POOLED), looks=LOOKS))
        judged = together(findings)
        right["looks"] += sum(found.verdict is HOLDS for found in judged[1:])
        cost += sum(found.judged.n for found in judged)
        for n in (5, 6, 8):
            right[n] += sum(replace(found, looks=(n,)).verdict is HOLDS for found in judged[1:])
    mean = cost / studies / len(effects)
    shares = {name: count / studies / (len(effects) - 1) for name, count in right.items()}
    print(f"mean cost {mean:.2f} seeds; true hypotheses decided: {shares}")
    assert mean < 7
    assert shares["looks"] > shares[5]
    assert shares["looks"] > 0.9 * shares[6]
