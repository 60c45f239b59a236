"""sweeps.compare on the tables of real sweeps."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sweeps


def noisy(cfg):
    rng = np.random.default_rng(cfg.seed + 100 * cfg.width)
    return {"score": cfg.width + rng.normal(0, 0.1), "loss": -cfg.width}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "outputs"
    grid = {"width": [1, 2], "kind": ["x", "y"], "seed": range(4)}
    return sweeps.sweep(noisy, grid, out=out, metric="score", maximize=True, quiet=True, workers=2)


def test_a_comparison_is_welchs(found):
    difference = sweeps.compare(found, "width=2 kind=x", {"width": 1, "kind": "x"})
    runs = found.runs[found.runs["kind"] == "x"]
    a, b = (runs[runs["width"] == width].sort_values("seed")["score"] for width in (2, 1))
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert difference.metric == "score"
    assert difference.means == pytest.approx((a.mean(), b.mean()))
    assert difference.values_a == tuple(a)
    assert difference.difference == pytest.approx(a.mean() - b.mean())
    assert difference.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert difference.superiority == 1.0
    assert difference.n == (4, 4)


def test_pairs_are_of_one_seed(found):
    runs = found.runs[(found.runs["kind"] == "x") & ~((found.runs["width"] == 2) & (found.runs["seed"] == 1))]
    difference = sweeps.compare(runs.sample(frac=1, random_state=0), "width=2", "width=1", "score", paired=True)
    a, b = (runs[(runs["width"] == width) & (runs["seed"] != 1)].sort_values("seed")["score"] for width in (2, 1))
    assert difference.n == (3, 3)
    assert difference.interval == pytest.approx(
        tuple(stats.ttest_rel(a.to_numpy(), b.to_numpy()).confidence_interval())
    )


def test_its_repr_is_for_reading(found):
    text = repr(sweeps.compare(found, "width=2 kind=x", "width=1 kind=x"))
    assert text.splitlines()[0] == "score"
    assert "width=2 kind=x" in text
    assert "95 % interval" in text
    assert "P(A > B)" in text
    single = sweeps.compare(found, "width=2 kind=x seed=0", "width=1 kind=x seed=0")
    assert math.isnan(single.interval[0])
    assert "nan" not in repr(single)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ("width=2", "width=1 kind=x", {}, "runs=width=2: selects several configurations, which differ in kind"),
        ("width=9 kind=x", "width=1 kind=x", {}, "selects no runs"),
        ("wdth=1", "width=1 kind=x", {}, "did you mean width"),
        ({"wdth": 1}, "width=1 kind=x", {}, "did you mean width"),
        ("width=2 kind=x", "width=1 kind=x", {"metric": "scor"}, "did you mean score"),
        ("width=2 kind=x", "width=1 kind=x", {"metric": "kind"}, "metric=kind: must be a column of numbers"),
        ("width=2 kind=x", "width=1 kind=x", {"confidence": 95}, "confidence=95: must be between 0 and 1"),
        ("width=2 kind=x", "width=1 kind=x", {"over": "sed"}, "did you mean seed"),
        ("width=2 kind=x seed=1", "width=1 kind=x seed=2", {"paired": True}, "paired=True: no seed is in both"),
    ],
)
def test_what_cannot_be_compared_says_why(found, a, b, options, message):
    with pytest.raises(sweeps.InputError, match=message) as error:
        sweeps.compare(found, a, b, **options)
    assert "\n" not in str(error.value)


def test_unfinished_runs_are_not_compared(found):
    runs = found.runs.assign(state=["running", *found.runs["state"][1:]])
    selected = runs.iloc[0]
    with pytest.raises(sweeps.InputError, match=r"selects unfinished runs \(.* running at epoch 1\)"):
        sweeps.compare(runs, {"width": selected["width"], "kind": selected["kind"]}, "width=2 kind=y", "score")
    with pytest.raises(sweeps.InputError, match="metric=None: must be named"):
        sweeps.compare(pd.DataFrame(runs), "width=1 kind=x", "width=2 kind=x")
