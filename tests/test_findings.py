"""Hypotheses as they are judged: comparisons, looks, forecasts, and the words for them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.judge.findings import (
    ALPHA,
    Cell,
    Comparison,
    Direction,
    Finding,
    Outcome,
    Verdict,
    tally,
    together,
)
from sweeps.judge.statistics import Variance

DEVIATIONS = np.array([-0.1, 0.05, 0.0, 0.1, -0.05, 0.02, -0.02, 0.0])


def cell(name: str, mean: float, n: int = 5, scale: float = 1.0) -> Cell:
    return Cell(name, tuple(mean + scale * DEVIATIONS[:n]))


def pair(mean: float, *, low=0.0, high=math.inf, n=5, scale=1.0, **options) -> Comparison:
    options = {"variance": Variance.SEPARATE, **options}
    a, b = cell(f"a{mean}", 90 + mean, n, scale), cell(f"b{mean}", 90, n, scale)
    return Comparison(a, b, "points", low, high, **options)


def finding(*comparisons: Comparison, **changes) -> Finding:
    return replace(Finding("name", "text", "quote", "accuracy", comparisons, ()), **changes)


UP, DOWN, EITHER, SAME = pair(1.0), pair(-1.0), pair(0.03), pair(0.0, delta=0.3)


@pytest.mark.parametrize(
    ("comparison", "outcome", "direction"),
    [
        (UP, Outcome.AGREES, Direction.ABOVE),
        (DOWN, Outcome.CONTRADICTS, Direction.BELOW),
        (EITHER, Outcome.UNDECIDED, Direction.UNDECIDED),
        (SAME, Outcome.LEVEL, Direction.LEVEL),
        (pair(1.0, low=0.0, high=0.5), Outcome.CONTRADICTS, Direction.ABOVE),
        (pair(0.0, low=-0.5, high=0.5), Outcome.AGREES, Direction.UNDECIDED),
        (pair(0.0, low=-0.5, high=0.5, delta=0.3), Outcome.AGREES, Direction.LEVEL),
        (pair(0.0, low=-0.03, high=0.5, delta=0.3), Outcome.UNDECIDED, Direction.LEVEL),
        (pair(1.0, low=2.0), Outcome.CONTRADICTS, Direction.ABOVE),
        (Comparison(cell("a", 5), None, "%", high=10.0), Outcome.AGREES, Direction.BELOW),
        (Comparison(cell("a", 10), None, "%", high=10.0, delta=0.5), Outcome.LEVEL, Direction.LEVEL),
    ],
)
def test_a_comparison_is_above_below_level_or_undecided(comparison, outcome, direction):
    assert comparison.outcome is outcome
    assert comparison.direction is direction


@pytest.mark.parametrize(
    ("pairs", "required", "verdict"),
    [
        ((UP,), 0, Verdict.HOLDS),
        ((DOWN,), 0, Verdict.CONTRADICTED),
        ((EITHER,), 0, Verdict.UNDECIDED),
        ((SAME,), 0, Verdict.LEVEL),
        ((UP, UP, UP), 0, Verdict.HOLDS),
        ((UP, UP, EITHER), 0, Verdict.UNDECIDED),
        ((UP, DOWN, EITHER), 0, Verdict.CONTRADICTED),
        ((UP, SAME, EITHER), 0, Verdict.LEVEL),
        ((DOWN, SAME), 0, Verdict.CONTRADICTED),
        ((UP, UP, DOWN), 2, Verdict.HOLDS),
        ((UP, UP, SAME), 2, Verdict.HOLDS),
        ((UP, DOWN, DOWN), 2, Verdict.CONTRADICTED),
        ((UP, EITHER, DOWN), 2, Verdict.UNDECIDED),
        ((UP, SAME, SAME), 2, Verdict.LEVEL),
        ((UP, SAME, EITHER), 2, Verdict.UNDECIDED),
        ((), 0, Verdict.UNDECIDED),
    ],
)
def test_a_hypothesis_is_a_conjunction(pairs, required, verdict):
    found = finding(*pairs, required=required)
    assert found.verdict is verdict
    assert (found.p <= ALPHA) == (verdict is not Verdict.UNDECIDED)
    if verdict is not Verdict.UNDECIDED:
        outcomes = {Verdict.HOLDS: Outcome.AGREES, Verdict.CONTRADICTED: Outcome.CONTRADICTS}
        assert found.decisive.outcome is outcomes.get(verdict, Outcome.LEVEL)


def test_p_values_by_hand():
    """Two values have one degree of freedom, Cauchy's distribution, whose quantiles are tangents."""

    def with_p(p: float) -> Comparison:
        t = math.tan(math.pi * (0.5 - p))
        return Comparison(Cell(f"{p}", (t - 1, t + 1)), None, "points", 0.0)

    assert with_p(0.01).p_for == pytest.approx(0.01)
    assert with_p(0.01).p_against == pytest.approx(0.99)
    assert finding(with_p(0.01), with_p(0.02)).p == pytest.approx(0.02)  # both must: the larger
    assert finding(with_p(0.01), with_p(0.98)).p == pytest.approx(0.04)  # one refutes: the smaller, twice
    a, b, c = together([finding(with_p(0.01)), finding(with_p(0.985)), finding(with_p(0.03))])
    assert [a.p, b.p, c.p] == pytest.approx([0.03, 0.045, 0.09])
    assert [x.verdict for x in (a, b, c)] == [Verdict.HOLDS, Verdict.CONTRADICTED, Verdict.UNDECIDED]


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.sampled_from([(0.0, math.inf), (-0.5, 0.5)]))
def test_a_comparison_agrees_where_its_interval_lies_inside(values, bounds):
    found = Comparison(Cell("a", tuple(values)), Cell("b", (0.0, 0.1, 0.2, 0.3)), "points", *bounds)
    low, high = found.interval
    if not any(math.isclose(end, bound, abs_tol=1e-9) for end in (low, high) for bound in bounds):
        assert (found.outcome is Outcome.AGREES) == (low > found.low and high < found.high)


# --------------------------------------------------------------------------------------------------------------- looks


def test_each_look_sees_its_first_seeds_and_a_verdict_stays():
    a = Cell("a", (1.0, 1.01, 0.99, -9.0, -9.0))
    found = finding(Comparison(a, Cell("b", (0.0, 0.01, -0.01, 0.0, 0.0)), "points", 0.0), looks=(3, 5))
    assert [look.n for look in found.history] == [3, 5]
    assert [look.alpha for look in found.history] == pytest.approx([ALPHA * 3 / 5, ALPHA * 2 / 5])
    assert found.verdict is Verdict.HOLDS
    assert found.judged.n == 3
    assert "Decided at look 1 of 2" in found.detail
    assert found.comparisons[0].n == 5  # what came later is kept
    assert found.decisive.n == 3
    assert found.next_look is None


def test_between_looks_nothing_is_judged():
    early = finding(pair(1.0, n=4), looks=(5, 8))
    assert early.verdict is Verdict.UNDECIDED
    assert early.p == 1.0
    assert early.decisive.n == 4  # but shown
    assert early.next_look == 5
    assert "first judged at 5 seeds" in early.detail
    later = finding(pair(1.0, n=7), looks=(5, 8))
    assert later.judged.n == 5


def test_p_at_a_look_is_compared_with_alpha():
    found = finding(pair(0.08, n=5), looks=(3, 5), family=4)
    look = found.judged
    assert found.p == pytest.approx(min(1, look.p_values[Verdict.HOLDS] * 4 * 5 / 2))


# ------------------------------------------------------------------------------------------------------------ forecast


def test_a_clear_difference_is_forecast_to_be_decided_soon():
    found = finding(pair(0.25, n=3), looks=(3, 5, 8, 20), family=10)
    assert found.verdict is Verdict.UNDECIDED
    assert found.forecast.chance > 0.8
    assert found.forecast.at in (5, 8, 20)
    assert found.next_look == 5
    assert f"{found.forecast.at} seeds would probably decide it" in found.detail
    assert found.forecast == replace(found).forecast  # deterministic


def test_a_tie_without_delta_is_futile_and_with_one_it_is_not():
    values = {"n": 8, "scale": 1.0}
    tie = finding(pair(0.0, **values), looks=(8, 10), family=20)
    assert tie.verdict is Verdict.UNDECIDED
    assert tie.forecast.chance < 0.1
    assert tie.forecast.fresh is None
    assert tie.next_look is None
    assert "no number of seeds up to 100 would probably decide it" in tie.detail
    declared = finding(pair(0.0, delta=0.08, **values), looks=(8, 10), family=20)
    assert declared.verdict is Verdict.UNDECIDED
    assert declared.forecast.fresh is not None


def test_what_is_claimed_to_be_close_holds_where_it_is_level():
    close = finding(pair(0.0, low=-0.5, high=0.5, delta=0.3))
    assert close.judged.p_values[Verdict.LEVEL] == 1
    assert close.verdict is Verdict.HOLDS


def test_after_the_last_look_a_new_study_is_proposed():
    found = finding(pair(0.08, n=8), looks=(3, 5, 8), family=10)
    assert found.verdict is Verdict.UNDECIDED
    assert found.forecast.chance == 0
    assert 8 < found.forecast.fresh <= 50
    assert f"a new study of about {found.forecast.fresh} seeds would probably decide it" in found.detail


@pytest.mark.parametrize("variance", Variance)
def test_a_forecast_keeps_its_word(variance):
    """Of hypotheses that are forecast to be decided with a chance p, a share of p is."""
    rng = np.random.default_rng(0)
    chances, came_true = [], []
    for _ in range(40):
        shift = rng.normal(0, 2)  # the forecast's own idea of what may be true
        cells = [Cell(name, tuple(rng.normal(mean, 1, 10))) for name, mean in (("a", shift), ("b", 0.0), ("c", -shift))]
        pairs = [Comparison(a, b, "points", 0.0, variance=variance) for a, b in (cells[:2], cells[1:])]
        found = finding(*pairs, looks=(5, 10))
        early = finding(*(p.first(5) for p in pairs), looks=(5, 10))
        if early.verdict is Verdict.UNDECIDED:
            chances.append(early.forecast.chance)
            came_true.append(found.verdict is not Verdict.UNDECIDED)
    assert len(chances) > 10
    assert np.mean(chances) == pytest.approx(np.mean(came_true), abs=0.2)


# ---------------------------------------------------------------------------------------------------------- the words


def test_the_tally_and_the_order_in_words():
    cells = [cell(*item, 8) for item in (("ReLU", 98.0), ("GeLU", 97.7), ("Tanh", 97.7), ("Sigmoid", 94.0))]
    pairs = [Comparison(a, b, "points", 0.0, delta=0.2) for a, b in itertools.pairwise(cells)]
    found = finding(*pairs)
    assert found.verdict is Verdict.LEVEL
    assert tally(found.judged) == "2 of 3 comparisons agree, 1 is level"
    assert [order.text(0.2) for order in found.orders] == ["ReLU > GeLU, Tanh (GeLU ≈ Tanh) > Sigmoid"]
    assert found.decisive.label == "GeLU − Tanh"
    assert found.detail == (
        "Compared: accuracy; 8 seeds. 2 of 3 comparisons agree, 1 is level; the smallest difference is GeLU − Tanh: "
        "+0.00 points (90 % interval -0.05 to +0.05), where the hypothesis needs above 0 points."
    )


def test_what_the_correction_undecides_says_so():
    found = finding(pair(0.12), family=20)
    assert found.verdict is Verdict.UNDECIDED
    assert replace(found, family=1).verdict is Verdict.HOLDS
    assert "Judged alone it would be decided, but not as one of 20 hypotheses; the comparison is" in found.detail


def test_two_separate_orders_are_two():
    def order(names):
        cells = [cell(name, -place) for place, name in enumerate(names)]
        return [Comparison(a, b, "points", 0.0) for a, b in itertools.pairwise(cells)]

    found = finding(*order("abc"), *order("xyz"))
    assert [ranked.text() for ranked in found.orders] == ["a > b > c", "x > y > z"]


def test_factors_are_shown_as_factors():
    rng = np.random.default_rng(0)
    a, b = (Cell(name, tuple(np.log(t * (1 + rng.normal(0, 0.01, 25))))) for name, t in (("a", 2.0), ("b", 1.0)))
    found = Comparison(a, b, "×", math.log(1.5), variance=Variance.TRIMMED)
    assert found.label == "a / b"
    assert found.effect == pytest.approx(2.0, abs=0.02)
    assert found.interval[0] < found.effect < found.interval[1]
    assert found.wanted == "above 1.5×"
    assert found.found.endswith("×")
    assert found.outcome is Outcome.AGREES


def test_what_cannot_be_decided_says_why():
    single = finding(pair(1.0, n=1))
    assert single.verdict is Verdict.UNDECIDED
    assert "a single seed" in single.detail
    blocked = finding(UP, obstacle="missing: lr=0.1 seed=2")
    assert blocked.verdict is Verdict.UNDECIDED
    assert "Not decided: missing: lr=0.1 seed=2." in blocked.detail
    assert "+1.00 points" in blocked.detail  # what there is, is shown
    empty = finding(obstacle="no runs")
    assert (empty.detail, empty.decisive, empty.n, empty.p) == ("No runs.", None, 0, 1.0)


def test_a_wild_cell_is_not_pooled():
    cells = [cell(str(k), 0.0, 5) for k in range(4)] + [cell("wild", 0.5, 5, scale=20)]
    options = {"unit": "points", "low": 0.0, "variance": Variance.POOLED}
    calm = finding(Comparison(cells[0], cells[1], **options), Comparison(cells[2], cells[3], **options)).judged
    assert {c.estimate.df for c in calm.comparisons} == {16.0}
    mixed = finding(*(Comparison(cells[4], other, **options) for other in cells[:4])).judged
    assert not mixed.comparisons[0].common.compatible
    assert mixed.comparisons[0].estimate.df < 5


def test_a_measure_without_a_unit_leaves_no_blank():
    found = Comparison(cell("a", 5), None, "", high=0.0)
    assert (found.wanted, found.found) == ("below 0", "5.00")
