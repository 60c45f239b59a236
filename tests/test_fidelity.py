"""A reference's curves, and how near ours are to them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

import sweeps
from sweeps.read.collect import Collection
from sweeps.runs.errors import InputError
from sweeps.show import fidelity
from sweeps.study import file, reference

REPORT = file.read(str(ROOT / "conf" / "study" / "report.yaml"))


@pytest.fixture(scope="module")
def theirs():
    return reference.curves(REPORT)


def test_the_report_has_104_lines_of_100_points(theirs):
    assert len(theirs) == 10_400
    lines = theirs.groupby(["line", "figure", "metric"])["epoch"].agg(["min", "max", "count"])
    counts = lines.groupby("figure").size().to_dict()
    assert counts == {"fig1": 16, "fig2": 12, "fig3": 16, "fig4": 12, "fig5": 12, "fig6": 12, "fig7": 12, "fig8": 12}
    tested = lines.index.get_level_values("metric").str.startswith("valid")
    assert (lines.to_numpy() == np.where(tested[:, None], [0, 99, 100], [1, 100, 100])).all()
    assert theirs["value"].between(0, 100).all()


def test_its_tables_are_extremes_of_its_curves_but_for_the_slips_that_are_named(theirs):
    """docs/numerics.md; train lines are means over an epoch, so that their extremes are not those of the windows."""
    printed = yaml.safe_load(REPORT.reference.numbers.read_text())
    slips = {}
    for spec in (REPORT.tables["table1"], REPORT.tables["table2"]):
        for cell in spec.cells:
            label = REPORT.label(cell)
            numbers = spec.reference.get(label)
            if numbers is None:
                continue
            accuracy = reference.curve(REPORT, theirs, cell, "valid_acc")["value"].max()
            loss = reference.curve(REPORT, theirs, cell, "valid_loss")["value"].min()
            if abs(accuracy - numbers["test_acc"]) > 0.006:
                slips[label, "acc"] = (numbers["test_acc"], pytest.approx(accuracy, abs=1e-3))
            if abs(loss - numbers["test_loss"]) > 1e-4:
                slips[label, "loss"] = (numbers["test_loss"], pytest.approx(loss, abs=1e-4))
    assert {"activations", "losses"} <= printed.keys()
    assert slips == {
        ("Sigmoid 1L", "acc"): (94.33, 94.30),
        ("Sigmoid 2L", "acc"): (95.10, 93.59),
        ("Hinge 1L", "acc"): (98.31, 98.41), ("Hinge 2L", "acc"): (98.41, 98.31),
        ("Hinge 1L", "loss"): (0.0041, 0.0037), ("Hinge 2L", "loss"): (0.0037, 0.0041),
    }  # fmt: skip


CURVES = """figure,lr,metric,0,1,2
a,0.1,loss,9,2,3
b,,acc,9,2,3
b,0.5,acc,9,2,3
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "curves.csv").write_text(CURVES)
    content = {
        "title": "Small",
        "train": "none",
        "epochs": 3,
        "baseline": {"lr": 0.1},
        "axes": {"lr": [0.1, 0.5]},
        "metrics": {"loss": {"scale": "log"}},
        "reference": {"name": "paper", "curves": "curves.csv", "reading": {"loss": 2e-5}},
    }
    return file.parse(content, tmp_path / "small.yaml", "small")


def collection(values, lr=0.1, metric="loss"):
    """Runs with these values of the metric over the epochs; another metric is 100 less it."""
    runs = pd.DataFrame({"run": [*values], "lr": lr, "seed": range(len(values))})
    rows = [
        {"run": run, "epoch": epoch, metric: y, "acc" if metric == "loss" else "loss": 100 - y}
        for run, curve in values.items()
        for epoch, y in enumerate(curve, 1)
    ]
    return Collection(runs, pd.DataFrame(rows), ())


SEEDS = {"a": (1.0, 4.0, 7.0), "b": (1.5, 5.0, 7.0), "c": (2.0, 6.0, 7.0)}  # the third epoch is none of theirs


def test_three_seeds_by_hand(study):
    found = fidelity.by_line(study, collection(SEEDS))
    assert [tuple(row) for row in found[fidelity.LINE].to_numpy()] == [
        ("b", "baseline", "acc"), ("a", "lr 0.1", "loss"), ("b", "lr 0.5", "acc"),
    ]  # fmt: skip
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
    assert figures["figure"].tolist() == ["a", "b"]
    assert figures["lines"].tolist() == [1, 1]
    assert figures["worst"].tolist() == ["lr 0.1 loss", "baseline acc"]
    assert figures["largest"].tolist() == [2, accuracy["largest"]]


def test_one_seed_has_no_range_and_a_reading_error_is_not_outside(study):
    found = fidelity.by_line(study, collection({"b": (2 + 1e-5, 5.0)})).set_index("figure").loc["a"]
    assert found[["inside", "expected"]].tolist() == [0.5, 0]
    assert np.isnan(found["ratio"])


def test_one_more_seed_is_inside_as_often_as_expected_and_has_the_ratio_one(tmp_path, study):
    rng = np.random.default_rng(0)
    seeds, epochs, lines = 5, 20, 200
    values = rng.normal(10, 1, size=(lines, seeds + 1, epochs))
    rows = [f"f,{k},loss," + ",".join(map(str, values[k, -1])) for k in range(lines)]
    (tmp_path / "curves.csv").write_text(
        "figure,lr,metric," + ",".join(map(str, range(1, epochs + 1))) + "\n" + "\n".join(rows)
    )
    parts = [collection({f"{k}-{s}": values[k, s] for s in range(seeds)}, lr=float(k)) for k in range(lines)]
    whole = replace(parts[0], runs=pd.concat([c.runs for c in parts]), epochs=pd.concat([c.epochs for c in parts]))
    many = replace(study, axes={"lr": replace(study.axes["lr"], values=tuple(map(float, range(lines))))})
    (figure,) = fidelity.by_figure(fidelity.by_line(many, whole)).to_dict("records")
    assert figure["expected"] == pytest.approx(4 / 6)
    assert figure["inside"] == pytest.approx(4 / 6, abs=0.03)
    assert figure["ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr,0,1\n0.1,1,2\n", "must have the column metric, and epochs"),
        ("lr,metric\n0.1,loss\n", "must have the column metric, and epochs"),
        ("width,metric,1\n3,loss,2\n", r"width: must be a key of the baseline; they are lr"),
        ("lr,metric,1\n0.1,loss,x\n", r"x: must be a number"),
        ("\0", "curves.csv"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_is_no_reference_is_one_error(study, tmp_path, text, message):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        reference.curves(study)


def test_real_runs_are_near_the_report(command, tmp_path):
    out = tmp_path / "out"
    done = command("--multirun", "lr=0.01,0.1", "seed=0,1", "epochs=2", f"out={out}", timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    found = fidelity.by_line(REPORT, sweeps.load(out))
    assert len(found) == 104
    known = found[found["seeds"] > 0]
    # The base point is one line of figures 1 to 4 and three of 5 to 8, train and valid; lr=0.1 is one of 5 to 8.
    assert [*known.groupby("figure").size()] == [2, 2, 2, 2, 4, 4, 4, 4]
    assert set(known["seeds"]) == set(known["points"]) == {2}
    base = known[known["cell"].isin(["ReLU", "CE", "lr 0.01"])]
    assert (base.loc[base["metric"] == "valid_acc", "mean"] < 0.5).all()  # points
    assert (base.loc[base["metric"] == "train_loss", "relative_mean"] < 3).all()  # percent
