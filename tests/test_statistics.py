"""Estimates against SciPy's, worked examples and simulated truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.judge.statistics import (
    Estimate,
    Variance,
    at_least,
    crossed,
    estimate,
    p_above,
    p_below,
    probability_superior,
    ranking,
    spend,
    spread,
    trimmed,
)

A, B = [98.1, 98.3, 98.2, 98.25], [98.0, 98.1, 97.9, 98.1]


def two_sided(found: Estimate) -> float:
    return 2 * min(found.p_above(0), found.p_below(0))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (estimate(A, B), stats.ttest_ind(A, B, equal_var=False)),
        (estimate(A, B[:3]), stats.ttest_ind(A, B[:3], equal_var=False)),
        (estimate(A, B, variance=Variance.PAIRED), stats.ttest_rel(A, B)),
        (estimate(np.subtract(A, 98)), stats.ttest_1samp(np.subtract(A, 98), 0)),
        (estimate(np.subtract(A, 98), variance=Variance.PAIRED), stats.ttest_1samp(np.subtract(A, 98), 0)),
    ],
)
def test_t_tests_are_scipys(found, expected):
    assert two_sided(found) == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((low, high))


def test_a_pooled_variance_is_that_of_an_analysis_of_variance():
    deviations = np.array([-0.1, 0.0, 0.1, 0.2])  # the same in each cell, so that no guard is needed
    cells = [mean + deviations for mean in (1.0, 1.1, 1.2)]
    common = spread(cells)
    assert common.compatible
    assert common.df == 9
    found = estimate(cells[0], cells[1], variance=Variance.POOLED, common=common)
    t = -0.1 / math.sqrt(deviations.var(ddof=1) * 2 / 4)
    assert two_sided(found) == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_bartletts_test_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cells = [rng.normal(0, scale, n) for scale, n in zip((1, 2, 1), (3, 5, 4), strict=True)]
        assert spread(cells).compatible == (stats.bartlett(*cells).pvalue >= 0.25)


def test_a_cell_that_scatters_more_is_not_pooled():
    cells = [np.array([0.0, 0.1, 0.2]) + k for k in range(4)] + [np.array([-5.0, 0.0, 5.0])]
    common = spread(cells)
    assert not common.compatible
    for other in (None, common):
        assert estimate(cells[0], cells[4], variance=Variance.POOLED, common=other) == estimate(cells[0], cells[4])


def test_a_difference_has_no_smaller_variance_than_its_own_cells():
    """Compatible they may be, by a test of three seeds each; what is seen to scatter is believed to."""
    cells = [np.array([-0.1, 0.0, 0.1])] * 3 + [np.array([-0.2, 0.0, 0.2])]
    common = spread(cells)
    assert common.compatible
    found = estimate(cells[0], cells[3], variance=Variance.POOLED, common=common)
    assert found.error == pytest.approx(math.sqrt(0.04 * 2 / 3))
    assert found.df == 8


def test_an_equivalence_by_hand():
    low = stats.ttest_1samp(A, 98.2 - 0.3, alternative="greater").pvalue
    high = stats.ttest_1samp(A, 98.2 + 0.3, alternative="less").pvalue
    assert estimate(np.subtract(A, 98.2)).p_level(0.3) == pytest.approx(max(low, high))


def test_a_trimmed_mean_is_yuens():
    rng = np.random.default_rng(1)
    for n in (5, 20, 25, 30):
        values = rng.standard_t(3, n) + 0.3
        expected = stats.ttest_ind(values, np.zeros(n), trim=0.2, equal_var=False)
        found = trimmed(values)
        assert found.mean == pytest.approx(stats.trim_mean(values, 0.2))
        assert two_sided(found) == pytest.approx(expected.pvalue)


def test_a_few_disturbed_rounds_hardly_move_a_trimmed_mean():
    values = np.random.default_rng(2).normal(0.5, 0.01, 25)
    quiet = trimmed(values)
    values[:4] = 30.0
    assert trimmed(values).mean == pytest.approx(quiet.mean, abs=0.01)
    assert trimmed(values).error < 2 * quiet.error
    assert trimmed(values).p_above(0.4) < 1e-6 < estimate(values).p_above(0.4)


def test_an_order_of_all_pairs_is_tukeys():
    deviations = np.array([-0.1, 0.0, 0.1, 0.05])
    cells = {"c": 0.9 + deviations, "a": 1.3 + deviations, "b": 1.2 + deviations}
    found = ranking(cells)
    assert found.names == ("a", "b", "c")
    expected = stats.tukey_hsd(cells["a"], cells["b"], cells["c"]).confidence_interval(0.95)
    upper = np.triu_indices(3, 1)
    assert found.low[upper] == pytest.approx(expected.low[upper], rel=1e-3)
    assert found.high[upper] == pytest.approx(expected.high[upper], rel=1e-3)
    assert found.low[1, 0] == -found.high[0, 1]


@pytest.mark.parametrize(
    ("means", "delta", "text"),
    [
        ((4.0, 3.0, 2.0, 1.0), 0.0, "A > B > C > D"),
        ((4.0, 3.0, 3.0, 1.0), 0.0, "A > B, C > D"),
        ((4.0, 3.0, 3.0, 1.0), 0.5, "A > B, C (B ≈ C) > D"),
        ((4.0, 3.85, 3.7, 1.0), 0.0, "A, B, C (A > C) > D"),
        ((1.0, 1.0, 1.0, 1.0), 0.0, "A, B, C, D"),
    ],
)
def test_an_order_in_words(means, delta, text):
    deviations = np.array([-0.1, 0.0, 0.1, 0.05])
    assert ranking({name: mean + deviations for name, mean in zip("ABCD", means, strict=True)}).text(delta) == text


def test_no_pair_of_equal_cells_is_called_different_more_often_than_promised():
    rng = np.random.default_rng(3)
    wrong = sum(">" in ranking({k: rng.normal(size=4) for k in "abcd"}).text() for _ in range(600))
    assert wrong / 600 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


def test_partial_conjunctions_by_hand():
    assert at_least(3, [0.01, 0.04, 0.02]) == 0.04
    assert at_least(1, [0.01, 0.04, 0.02]) == pytest.approx(0.03)
    assert at_least(2, [[0.01, 0.04, 0.02], [0.5, 0.9, 0.6]]) == pytest.approx([0.04, 1.0])


def test_looks_share_what_one_look_would_have():
    assert spend((3, 5, 8), 0.05) == pytest.approx((0.05 * 3 / 8, 0.05 * 2 / 8, 0.05 * 3 / 8))
    assert spend((4,), 0.05) == (0.05,)
    for looks in ((), (3, 3), (5, 3), (0, 2)):
        with pytest.raises(ValueError, match="rising"):
            spend(looks, 0.05)


# ------------------------------------------------------------------------------------------------ too little to go by


@pytest.mark.parametrize("variance", Variance)
@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [2.0]), ([1.0, math.nan], [2.0, 3.0]), ([1.0], None)])
def test_too_few_values_show_nothing(variance, a, b):
    found = estimate(a, b, variance=variance, common=spread([a] if b is None else [a, b]))
    assert found.p_above(-1e9) == found.p_below(1e9) == found.p_level(1e9) == 1.0
    assert all(map(math.isnan, found.interval()))


def test_one_seed_can_be_judged_by_the_spread_of_others():
    common = spread([[1.0, 1.1, 0.9], [2.0, 2.1, 1.9], [3.0]])
    assert estimate([3.0], [2.0, 2.1, 1.9], variance=Variance.POOLED, common=common).p_above(0) < 0.01


def test_equal_values_do_not_prove_absence_of_noise():
    assert estimate([98.2, 98.2], [98.19, 98.19]).p_above(0) == 0.0
    for variance in (Variance.SEPARATE, Variance.PAIRED):
        found = estimate([98.2, 98.2], [98.19, 98.19], variance=variance, resolution=0.01)
        assert found.error == pytest.approx(0.01 / math.sqrt(6) / math.sqrt(2))
        assert found.p_above(0) > 0.01


def test_what_is_infinitely_far_needs_no_data():
    assert p_above(0.0, math.nan, 0, -math.inf) == 0.0
    assert p_above(0.0, 0.1, 5, math.inf) == 1.0
    assert p_below(0.0, 0.1, 5, math.inf) == 0.0


def test_unequal_numbers_cannot_be_paired():
    with pytest.raises(ValueError, match="3 and 2 values"):
        estimate([1.0, 2.0, 3.0], [1.0, 2.0], variance=Variance.PAIRED)


# ---------------------------------------------------------------------------------------------------------- properties

values = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(values, values, st.sampled_from([Variance.SEPARATE, Variance.POOLED]))
def test_exchanging_the_cells_exchanges_the_signs(a, b, variance):
    one, other = (estimate(*pair, variance=variance, common=spread([a, b])) for pair in ((a, b), (b, a)))
    assert one.mean == pytest.approx(-other.mean)
    assert one.p_above(0.5) == pytest.approx(other.p_below(-0.5), abs=1e-9)
    assert one.p_level(1.0) == pytest.approx(other.p_level(1.0), abs=1e-9)


@given(values, values)
def test_an_interval_excludes_a_bound_where_its_p_value_is_small(a, b):
    found = estimate(a, b, resolution=0.001)
    low, high = found.interval(0.9)
    for bound in (low - 0.01, low + 0.01, high - 0.01, high + 0.01):
        assert (found.p_above(bound) <= 0.05) == (bound <= low) or bound == pytest.approx(low)
        assert (found.p_below(bound) <= 0.05) == (bound >= high) or bound == pytest.approx(high)


@given(values, values)
def test_probabilities_of_superiority_add_up_to_one(a, b):
    (one, (low, high)), (other, (least, most)) = probability_superior(a, b), probability_superior(b, a)
    assert one + other == pytest.approx(1)
    assert 0 <= low <= one <= high <= 1
    assert (low, high) == pytest.approx((1 - most, 1 - least), abs=1e-6)


# ------------------------------------------------------------------------------------------------------ known truths


def test_the_probability_of_superiority_is_covered():
    rng = np.random.default_rng(4)
    for shift in (0.0, 1.0):
        truth = stats.norm.cdf(shift / math.sqrt(2))
        intervals = [probability_superior(rng.normal(shift, 1, 5), rng.normal(0, 1, 5))[1] for _ in range(500)]
        assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.93
    assert probability_superior([5, 6, 7], [1, 2, 3])[1][0] < 0.6  # three seeds prove no certainty


def answers(rng, seeds, difficulty, skill, spread_of_seeds=0.4):
    """(seeds, items) bits: seeds differ in skill, items in difficulty, and each answer has a chance of its own."""
    of_seed = rng.normal(0, spread_of_seeds, (seeds, 1))
    return rng.random((seeds, len(difficulty))) < 1 / (1 + np.exp(difficulty - skill - of_seed))


@pytest.mark.parametrize(("spread_of_seeds", "too_narrow"), [(0.4, "items"), (0.05, "seeds")])
def test_seeds_and_items_are_both_samples(spread_of_seeds, too_narrow):
    """Intervals cover the accuracy over all seeds and items; those over seeds or items alone do not."""
    rng = np.random.default_rng(5)
    studies, everything = 800, rng.normal(-2, 1.5, 400_000)
    blocks = everything[:80_000].reshape(20, -1)
    true = np.mean([answers(rng, 1000, block, 0.0, spread_of_seeds).mean() for block in blocks])
    covered = {"both": 0, "items": 0, "seeds": 0}
    for _ in range(studies):
        a = answers(rng, 4, rng.choice(everything, 300), 0.0, spread_of_seeds)
        for name, found in (("both", crossed(a)), ("items", estimate(a.mean(0))), ("seeds", estimate(a.mean(1)))):
            low, high = found.interval()
            covered[name] += low <= true <= high
    assert covered["both"] / studies >= 0.92
    assert covered[too_narrow] / studies < 0.9


def test_the_variance_over_seeds_and_items_is_that_of_many_such_tables():
    rng = np.random.default_rng(6)
    means, variances = [], []
    for _ in range(1500):
        difficulty = rng.normal(-2, 1.5, 200)
        a, b = answers(rng, 4, difficulty, 0.3), answers(rng, 4, difficulty, 0.0)
        found = crossed(a, b)
        means.append(found.mean)
        variances.append(found.error**2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.15)


def test_a_pigeonhole_bootstrap_counts_the_noise_of_single_answers_three_times():
    rng = np.random.default_rng(7)
    difficulty = rng.normal(-1, 1.5, 300)
    a, b = answers(rng, 30, difficulty, 0.3), answers(rng, 30, difficulty, 0.0)
    draws = []
    for _ in range(1000):
        items, seeds, others = (rng.integers(0, n, n) for n in (300, 30, 30))
        draws.append(a[seeds][:, items].mean() - b[others][:, items].mean())
    once = sum((x.mean(0) * (1 - x.mean(0))).mean() / x.size for x in (a, b))
    assert np.var(draws) == pytest.approx(crossed(a, b).error ** 2 + 2 * once, rel=0.15)
