"""Statistics over seeds: against SciPy's own tests, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.read.summary import curves, half_width, identity_columns, interval, over_seeds

samples = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=8)


def run(seed, **settings):
    """A row of ``Collection.runs``."""
    return {
        **{"activ": "relu", "model": "360", "lr": 0.01, "activ.approximate": None},
        "run": f"r{seed}",
        "seed": seed,
        **dict.fromkeys(("test_acc", "best_test_acc"), 90.0 + seed),
        **settings,
    }


def test_interval_of_three_by_hand():
    mean, half = interval([1, 2, 3])  # t(2 df) = 4.302653, s = 1
    assert mean == 2
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_interval_of_few_or_no_values():
    mean, half = interval([5.0])
    assert mean == 5
    assert math.isnan(half)
    assert all(map(math.isnan, interval([])))
    assert all(map(math.isnan, interval([1.0, math.nan])))


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1, 2], confidence)


@given(samples, st.floats(0.5, 0.99))
def test_interval_is_student_s(values, confidence):
    mean, half = interval(values, confidence)
    if np.ptp(values) > 0.01:
        low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
        assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_three_seeds_cover_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (20_000, 3))
    half = half_width(draws.std(axis=1, ddof=1), 3)
    covered = np.mean(np.abs(draws.mean(axis=1) - 3.0) <= half)
    assert covered == pytest.approx(0.95, abs=0.005)


def test_over_seeds_is_interval_in_each_group_and_keeps_missing_options_apart():
    runs = pd.DataFrame([run(s, activ=a, **{"activ.approximate": o}) for a, o, n in CELLS for s in range(n)])
    table = over_seeds(runs, identity_columns(runs), ["test_acc", "lr"])
    assert list(table[("test_acc", "n")]) == [2, 3, 1]
    for (_, group), (_, row) in zip(
        runs.groupby(["activ", "activ.approximate"], dropna=False), table["test_acc"].iterrows(), strict=True
    ):
        assert (row["mean"], row["half"]) == pytest.approx(interval(group["test_acc"]), nan_ok=True)
    assert list(table["lr"]["mean"]) == pytest.approx([0.01] * 3)


CELLS = [("gelu", "none", 2), ("gelu", "tanh", 3), ("relu", None, 1)]


def test_curves_are_intervals_epoch_by_epoch():
    runs = pd.DataFrame([run(0), run(1), run(2, activ="tanh")])
    epochs = pd.DataFrame(
        [(f"r{s}", e, 10.0 * e + s) for s, n in ((0, 3), (1, 2), (2, 1), (9, 3)) for e in range(1, n + 1)],
        columns=["run", "epoch", "valid_acc"],
    )
    table = curves(runs, epochs, ["activ"], "valid_acc")
    assert list(table["activ"]) == ["relu"] * 3 + ["tanh"]
    assert list(table["epoch"]) == [1, 2, 3, 1]
    assert list(table["n"]) == [2, 2, 1, 1]
    assert list(table["mean"]) == [10.5, 20.5, 30.0, 12.0]
    assert table["half"][1] == pytest.approx(interval([20, 21])[1])
    assert math.isnan(table["half"][2])
