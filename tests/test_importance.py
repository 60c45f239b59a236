"""Shares of variance: against numbers worked out by hand, and against linear models fitted by NumPy."""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from synthetic import make_other, make_report

from sweeps import load
from sweeps.cli import main
from sweeps.runs.errors import InputError
from sweeps.show.importance import INTERACTIONS, MOST_VALUES, REST, SEEDS, importance


@pytest.fixture
def found(tmp_path):
    """The shares over runs that are given as pairs of a configuration and its score."""

    def measure(runs, metric=None, **options):
        for i, (config, score) in enumerate(runs):
            make_other(tmp_path, {**config, "seed": i}, {"score": [score]}, metric="score", **options)
        return importance(load(tmp_path), metric)

    return measure


def shares(table):
    return dict(zip(table["key"], table["share"], strict=True))


def test_an_additive_function_has_the_shares_of_its_parts(found):
    """a ∈ {0, 2} has variance 1, b ∈ {0, 3, 6} has 6: 1/7 and 6/7 of what is to explain, and nothing else does."""
    table = found([({"a": a, "b": f"b{b}"}, 2 * a + 3 * b) for a in (0, 1) for b in (0, 1, 2)])
    assert list(table["key"]) == ["b", "a", REST]
    assert shares(table) == pytest.approx({"b": 6 / 7, "a": 1 / 7, REST: 0})
    assert list(table["values"])[:2] == [3, 2]
    assert list(table["chance"]) == pytest.approx([2 / 5, 1 / 5, 2 / 5])
    assert table.attrs["runs"] == 6
    assert table.attrs["metric"] == "score"
    assert table.attrs["notes"] == []


def test_a_pure_interaction_is_no_key_s(found):
    """x·y of two signs, two runs each, ± 1 around it: variance 16 by the interaction, 1 by the seeds."""
    signs = itertools.product((-1, 1), (-1, 1), (-1, 1))
    assert shares(found([({"x": x, "y": y}, 4 * x * y + noise) for x, y, noise in signs])) == pytest.approx(
        {"x": 0, "y": 0, INTERACTIONS: 16 / 17, SEEDS: 1 / 17}
    )


def test_one_key_shares_with_the_seeds_alone(found):
    """Means 1 and 5 have variance 4; ± 2 around them has 4 as well."""
    table = found([({"lr": lr}, mean + noise) for lr, mean in ((0.1, 1), (0.01, 5)) for noise in (-2, 2)])
    assert shares(table) == pytest.approx({"lr": 1 / 2, SEEDS: 1 / 2})


def test_an_additive_function_on_an_unbalanced_grid_leaves_nothing_over(found):
    points = [(a, b) for a in range(3) for b in range(4) if (a, b) not in ((0, 0), (2, 3), (2, 2))]
    table = found([({"a": a, "b": b}, a**2 + 10 / (1 + b)) for a, b in points])
    assert shares(table)[REST] == pytest.approx(0, abs=1e-12)
    assert table["share"].sum() == pytest.approx(1)
    assert table["chance"].sum() == pytest.approx(1)


def test_unbalanced_shares_are_means_over_the_orders(found):
    """Against least squares with intercept and a column for each value, in all six orders of three keys."""
    rng = np.random.default_rng(3)
    points = [point for point in itertools.product("xyz", (1, 2), (0.1, 0.2, 0.3)) if rng.random() < 0.7]
    y = rng.normal(size=len(points)) + [2 * (a == "x") + b * c for a, b, c in points]

    def explained(places):
        columns = [np.ones(len(points))]
        columns += [[p[i] == v for p in points] for i in places for v in sorted({p[i] for p in points})]
        x = np.array(columns, float).T
        return ((x @ np.linalg.lstsq(x, y)[0] - y.mean()) ** 2).sum()

    wanted = np.zeros(3)
    for order in itertools.permutations(range(3)):
        for place, i in enumerate(order):
            wanted[i] += (explained(order[: place + 1]) - explained(order[:place])) / 6
    table = found([({"a": a, "b": b, "c": c}, value) for (a, b, c), value in zip(points, y, strict=True)])
    assert [shares(table)[key] for key in "abc"] == pytest.approx(wanted / ((y - y.mean()) ** 2).sum())


def test_keys_that_vary_together_split_what_they_explain(found):
    """On three of four corners a and b overlap, and y = a + b is the same in both."""
    table = shares(found([({"a": a, "b": b}, a + b) for a, b in ((0, 0), (1, 0), (0, 1), (1, 1), (1, 1), (0, 0))]))
    assert table["a"] == pytest.approx(1 / 2)
    assert table["b"] == pytest.approx(1 / 2)


def test_noise_has_the_shares_that_chance_gives(found):
    """On the average over grids of noise each share is its chance: 200 of 3 × 2 values, two runs each."""
    rng = np.random.default_rng(0)
    points = list(itertools.product((0, 1, 2), (0, 1), (0, 1)))
    table = found([({"a": a, "b": b}, 0.0 if a or b else 1.0) for a, b, _ in points])
    chance = dict(zip(table["key"], table["chance"], strict=True))
    assert chance == pytest.approx({"a": 2 / 11, "b": 1 / 11, INTERACTIONS: 2 / 11, SEEDS: 6 / 11})
    a = np.array([point[0] for point in points])
    drawn = []
    for y in rng.normal(size=(4000, len(points))):
        means = np.array([y[a == value].mean() for value in range(3)])
        drawn.append(4 * ((means - y.mean()) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert np.mean(drawn) == pytest.approx(chance["a"], abs=0.01)


def test_more_keys_than_all_orders_allow(found):
    """Nine keys of two values in a fraction of their grid; the first counts most, the others as 2⁻ⁱ."""
    rng = np.random.default_rng(1)
    points = rng.integers(0, 2, (60, 9))
    table = found([({f"k{i}": int(v) for i, v in enumerate(p)}, float(p @ 0.5 ** np.arange(9))) for p in points])
    assert list(table["key"])[:3] == ["k0", "k1", "k2"]
    assert table["share"].sum() == pytest.approx(1)
    assert "Of the orders of 9 keys 64 are taken." in table.attrs["notes"]


def test_many_numbers_are_grouped(found):
    rates = np.geomspace(1e-4, 1, 80)
    table = found([({"lr": float(lr), "activ": "ab"[i % 2]}, math.log(lr)) for i, lr in enumerate(rates)])
    assert shares(table)["lr"] > 0.95
    assert shares(table)[REST] > 0
    assert table["values"][0] == MOST_VALUES
    assert table.attrs["notes"] == ["lr: 80 values in 8 groups."]


def test_a_missing_value_is_a_value(found):
    table = found([({"a": 1, "b": 1}, 1.0), ({"a": 1}, 3.0), ({"a": 2, "b": 1}, 1.0), ({"a": 2}, 3.0)])
    assert shares(table) == pytest.approx({"b": 1, "a": 0, REST: 0})


def test_what_goes_with_another_key_is_not_counted_twice(found):
    runs = [
        ({"activ": {"name": name, **({"slope": slope} if slope else {})}, "width": width, "size": 2 * width}, width)
        for name, slope in (("relu", None), ("leaky", 0.1))
        for width in (8, 16)
    ]
    table = found([({**config, "activ": config["activ"]["name"], "activ.slope": config["activ"].get("slope")}, y)
                   for config, y in runs])  # fmt: skip
    assert set(table["key"]) == {"activ", "width", REST}
    assert [note.partition(",")[0] for note in table.attrs["notes"]] == [
        "size goes with width",
        "activ.slope goes with activ",
    ]


def test_what_cannot_be_compared_is_left_out_and_counted(tmp_path):
    for i, lr in enumerate((0.1, 0.2, 0.1, 0.2)):
        make_other(tmp_path, {"lr": lr, "seed": i}, {"score": [0.0, lr]}, metric="score")
    make_other(tmp_path, {"lr": 0.1, "seed": 7}, {"score": [1.0]}, metric="score", state="diverged", target=2)
    make_other(tmp_path, {"lr": 0.1, "seed": 8}, {"score": [1.0]}, metric="score", state="interrupted", target=2)
    make_other(tmp_path, {"lr": 0.2, "seed": 9}, {"other": [0.0, 1.0]}, metric="other")
    table = importance(load(tmp_path))
    assert shares(table) == pytest.approx({"lr": 1, SEEDS: 0})
    assert table.attrs["notes"] == ["Left out: 1 diverged, 1 before epoch 2, 1 without score."]


def test_large_numbers_do_not_overflow(found):
    table = found([({"a": a, "b": b}, a * 1e300 + b * 1e300) for a in (0, 1) for b in (0, 1)])
    assert shares(table) == pytest.approx({"a": 1 / 2, "b": 1 / 2, REST: 0})


@pytest.mark.parametrize(
    ("runs", "metric", "said"),
    [
        ([({"a": i}, 1.0) for i in range(4)], None, "is the same in all of these runs"),
        ([({"a": i}, 0.1 + 1e-17 * i) for i in range(4)], None, "is the same in all of these runs"),
        ([({"a": 1}, float(i)) for i in range(4)], None, "varies among these runs"),
        ([({"a": i}, float(i)) for i in range(2)], None, "too few"),
        ([({"a": i}, math.nan) for i in range(4)], None, "too few"),
        ([({"a": i}, float(i)) for i in range(4)], "scroe", "no such column"),
        ([({"a": i}, float(i)) for i in range(4)], "a", "must be a column of numbers that is measured"),
        ([({"a": i}, float(i)) for i in range(4)], "state", "must be a column of numbers"),
    ],
)
def test_what_has_no_answer_is_an_input_error(found, runs, metric, said):
    with pytest.raises(InputError, match=said):
        found(runs, metric)


def test_the_command_prints_a_table_or_csv(tmp_path, capsys):
    make_report(tmp_path, seeds=2)
    assert main(["importance", "--out", str(tmp_path), "--metric", "test_acc", "model=360", "loss=ce"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "What test_acc varies with, over 26 runs"
    assert lines[2].split() == ["key", "values", "share", "chance"]
    assert {line.split()[0] for line in lines[3:9]} == {"activ", "lr", "wd", "mo", INTERACTIONS, SEEDS}
    assert main(["importance", "--out", str(tmp_path), "--csv", "--metric", "best_valid_acc"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table.columns) == ["key", "values", "share", "chance"]
    assert table["share"].sum() == pytest.approx(1)
    assert main(["importance", "--out", str(tmp_path), "state=diverged"]) == 2
    assert capsys.readouterr().err.startswith("error: runs=0: are too few")
