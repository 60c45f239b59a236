"""The report's curves, and how near ours are to them."""

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

import sweeps
from sweeps.show import fidelity

FOLDER = ROOT / "conf" / "study" / "report"


@pytest.fixture(scope="module")
def theirs():
    return fidelity.read_curves(FOLDER / "curves.csv")


def test_there_are_104_lines_of_100_points(theirs):
    assert len(theirs) == 10_400
    lines = theirs.groupby(fidelity.LINE)["epoch"].agg(["min", "max", "count"])
    assert lines.groupby("figure").size().to_dict() == {1: 16, 2: 12, 3: 16, 4: 12, 5: 12, 6: 12, 7: 12, 8: 12}
    tested = lines.index.get_level_values("metric").str.startswith("valid")
    assert (lines.to_numpy() == np.where(tested[:, None], [0, 99, 100], [1, 100, 100])).all()
    assert theirs["y"].between(0, 100).all()


def test_its_tables_are_extremes_of_its_curves_but_for_the_slips_that_are_named(theirs):
    """docs/numerics.md; train lines are means over an epoch, so that their extremes are not those of the windows."""
    printed = yaml.safe_load((FOLDER / "numbers.yaml").read_text())
    slips = {}
    for key, table in (("activ", "activations"), ("loss", "losses")):
        for cell, numbers in printed[table].items():
            model, value = f"mlp{cell[0]}", cell[3:].lower()
            lines = theirs[(theirs["varied"] == key) & (theirs["value"] == value) & (theirs["model"] == model)]
            accuracy = lines.loc[lines["metric"] == "valid_acc", "y"].max()
            loss = lines.loc[lines["metric"] == "valid_loss", "y"].min()
            if abs(accuracy - numbers["test_acc"]) > 0.006:
                slips[cell, "acc"] = (numbers["test_acc"], pytest.approx(accuracy, abs=1e-3))
            if abs(loss - numbers["test_loss"]) > 1e-4:
                slips[cell, "loss"] = (numbers["test_loss"], pytest.approx(loss, abs=1e-4))
    assert slips == {
        ("1L+Sigmoid", "acc"): (94.33, 94.30),
        ("2L+Sigmoid", "acc"): (95.10, 93.59),
        ("1L+Hinge", "acc"): (98.31, 98.41), ("2L+Hinge", "acc"): (98.41, 98.31),
        ("1L+Hinge", "loss"): (0.0041, 0.0037), ("2L+Hinge", "loss"): (0.0037, 0.0041),
    }  # fmt: skip


LINES = [
    (1, "lr", "0.1", "mlp1", "valid_loss"),
    (2, "lr", "0.1", "mlp1", "valid_acc"),
    (2, "mo", "0", "mlp1", "valid_acc"),
]


def frames():
    points = pd.DataFrame([(*line, epoch, y) for line in LINES for epoch, y in enumerate((9.0, 2.0, 3.0))])
    theirs = points.set_axis([*fidelity.LINE, "epoch", "y"], axis=1)
    seeds = {"a": (1.0, 4.0), "b": (1.5, 5.0), "c": (2.0, 6.0)}
    rows = [
        ("lr", "0.1", "mlp1", run, epoch, 0, 0, y, 100 - y)
        for run, values in seeds.items()
        for epoch, y in enumerate((*values, 7.0), 1)  # the third epoch is none of theirs
    ]
    return theirs, pd.DataFrame(rows, columns=[*fidelity.CELL, "run", "epoch", *fidelity.METRICS])


def test_three_seeds_by_hand():
    found = fidelity.by_line(*frames())
    assert [tuple(row) for row in found[fidelity.LINE].to_numpy()] == [LINES[1], LINES[0], LINES[2]]
    accuracy, loss, missing = (row for _, row in found.iterrows())
    # Theirs 2 and 3 after epochs 1 and 2; our means 1.5 and 5, of [1, 2] and [4, 6]; the untrained network is left out.
    assert (loss["seeds"], loss["points"], loss["at"]) == (3, 2, 2)
    assert loss[["difference", "mean", "largest"]].tolist() == [(0.5 - 2) / 2, (0.5 + 2) / 2, 2]
    assert loss[["relative_mean", "relative_largest"]].tolist() == pytest.approx([(100 / 3 + 40) / 2, 40])
    assert loss[["inside", "expected"]].tolist() == [0.5, 0.5]
    assert loss["ratio"] == pytest.approx(np.sqrt((0.5**2 + 2**2) / ((0.5**2 + 1**2) * 4 / 3)))
    assert accuracy["mean"] == pytest.approx((98.5 - 2 + 95 - 3) / 2)
    assert accuracy[["relative_mean", "relative_largest"]].isna().all()
    assert (missing["seeds"], missing["points"]) == (0, 0)
    assert missing[["mean", "at", "inside", "ratio"]].isna().all()

    figures = fidelity.by_figure(found)
    assert figures["figure"].tolist() == [1, 2]
    assert figures["lines"].tolist() == [1, 1]
    assert figures["worst"].tolist() == ["mlp1 lr=0.1 valid_loss", "mlp1 lr=0.1 valid_acc"]
    assert figures["largest"].tolist() == [2, accuracy["largest"]]


def test_one_seed_has_no_range_and_a_reading_error_is_not_outside():
    theirs, ours = frames()
    one = ours[ours["run"] == "b"]
    theirs["y"] = theirs["y"].where(theirs["epoch"] != 1, 1.5 + 1e-5)  # 1.5 in our only seed
    found = fidelity.by_line(theirs, one).set_index("figure").loc[1]
    assert found[["inside", "expected"]].tolist() == [0.5, 0]
    assert np.isnan(found["ratio"])


def test_one_more_seed_is_inside_as_often_as_expected_and_has_the_ratio_one():
    rng = np.random.default_rng(0)
    seeds, epochs, lines = 5, 20, 200
    values = rng.normal(size=(lines, seeds + 1, epochs))
    theirs = [
        (5, "lr", str(k), "mlp1", "train_acc", e + 1, values[k, -1, e]) for k in range(lines) for e in range(epochs)
    ]
    ours = [
        ("lr", str(k), "mlp1", str(s), e + 1, np.nan, values[k, s, e], np.nan, np.nan)
        for k in range(lines)
        for s in range(seeds)
        for e in range(epochs)
    ]
    table = fidelity.by_line(
        pd.DataFrame(theirs, columns=[*fidelity.LINE, "epoch", "y"]),
        pd.DataFrame(ours, columns=[*fidelity.CELL, "run", "epoch", *fidelity.METRICS]),
    )
    (figure,) = fidelity.by_figure(table).to_dict("records")
    assert figure["expected"] == pytest.approx(4 / 6)
    assert figure["inside"] == pytest.approx(4 / 6, abs=0.03)
    assert figure["ratio"] == pytest.approx(1, abs=0.05)


def test_real_runs_are_near_the_report(command, tmp_path, theirs):
    words = ("--multirun", "lr=0.01,0.1", "seed=0,1", "epochs=2", f"out={tmp_path / 'out'}")
    done = command(*words, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    collection = sweeps.load(tmp_path / "out")
    lines = fidelity.by_line(theirs, fidelity.of_lines(collection, theirs))
    assert len(lines) == 104
    known = lines[lines["seeds"] > 0]
    # The base point is one line of figures 1 to 4 and three of 5 to 8, train and valid; lr=0.1 is one of 5 to 8.
    assert known.groupby("figure").size().to_dict() == {1: 2, 2: 2, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 8: 4}
    assert set(known["seeds"]) == set(known["points"]) == {2}
    base = known[(known["value"] == "relu") | (known["value"] == "0.01")]
    assert (base.loc[base["metric"] == "valid_acc", "mean"] < 0.5).all()  # points
    assert (base.loc[base["metric"] == "train_loss", "relative_mean"] < 3).all()  # percent
    spread = base.groupby("metric")["mean"].agg(lambda values: values.max() - values.min())
    assert (spread < 0.01).all()  # the same runs, and the same curve of theirs, read from several figures


def test_no_runs_give_lines_without_numbers(theirs, small, tmp_path):
    from mlp import compose, train

    train(compose(*small, "epochs=1"))
    collection = sweeps.load(tmp_path / "out")
    lines = fidelity.by_line(theirs, fidelity.of_lines(collection, theirs))
    assert len(lines) == 104
    assert lines["mean"].isna().all()
    assert fidelity.by_figure(lines).empty
