import csv
import io
import itertools
import math
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from conftest import ROOT
from synthetic import history, make_other, make_report, make_run

import sweeps
from sweeps.read.summary import interval
from sweeps.runs.errors import InputError
from sweeps.show import tables
from sweeps.show.render import Cell, Row, Table
from sweeps.show.tables import pivot
from sweeps.study import file
from sweeps.study.study import Metric

STUDY = file.read(str(ROOT / "conf" / "study" / "report.yaml"))


def table(name, collection):
    return tables.table(STUDY, STUDY.tables[name], collection)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    make_report(out, epochs=3)
    return sweeps.load(out)


def _cells(table):
    return {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(table.to_csv()))}


def test_the_course_report_s_tables_begin_with_test_accuracy():
    for spec in STUDY.tables.values():
        assert [*spec.metrics][:2] == ["test_acc", "test_loss"]


def test_as_of_an_epoch_a_run_that_ended_before_it_does_not_move_the_others(tmp_path):
    make_run(tmp_path, epochs=5)
    make_run(tmp_path, seed=1, epochs=2, target=100, state="interrupted")
    cell = pivot(sweeps.load(tmp_path, epochs=3), ["activ"], [], ["test_acc"]).rows[0].cells[0]
    assert (cell.n, cell.marks) == (1, ("2/3 epochs (1 of 2)",))


def test_a_study_s_tables_have_its_cells_and_its_reference_s_numbers(report):
    cells = _cells(table("table1", report))
    assert {column for _, column in cells} == {
        f"{word} {depth}" for depth in ("1L", "2L") for word in ("Sigmoid", "ReLU", "GeLU", "Tanh")
    }
    assert {row for row, _ in cells} == {
        f"{metric} {at}"
        for metric in ("Train Loss", "Train Acc (%)", "Test Loss", "Test Acc (%)")
        for at in ("last epoch", "best epoch", "extreme")
        if (at, metric[:5]) != ("extreme", "Train")  # their windows were not recorded
    } | {"Time (s)/epoch median"}
    assert cells["Test Acc (%) last epoch", "Sigmoid 2L"]["reference"] == "95.1"
    assert cells["Time (s)/epoch median", "GeLU 2L"]["reference"] == "18.73"
    assert cells["Test Acc (%) last epoch", "Tanh 1L"]["reference"] == ""
    assert _cells(table("table2", report))["Train Loss best epoch", "Hinge 2L"]["reference"] == "0.0015"
    for name, spec in STUDY.tables.items():
        found = table(name, report)
        assert {cell["n"] for cell in _cells(found).values()} == {"3"}
        assert len(found.columns) == len(spec.cells)
        assert [row.label[1] for row in found.rows if row.label[1] == "report"] == ["report"] * 5


def test_every_table_shows_the_mean_of_the_runs_that_its_file_names(report):
    """From the columns of ``runs`` alone, without any of the selection."""
    plain = {"activ": "relu", "loss": "ce", "model": "360", "lr": 0.01, "wd": 0.001, "mo": 0.9}
    for name, spec in STUDY.tables.items():
        cells = _cells(table(name, report))
        for settings in spec.cells:
            runs = report.runs
            for key, value in {**plain, **settings}.items():
                runs = runs[runs[key] == value]
            for metric, word in list(spec.metrics.items())[:4]:
                for at, column in (("last", metric), ("best", f"best_{metric}")):
                    found = cells[f"{word} {at} epoch", STUDY.label(settings)]
                    assert float(found["mean"]) == pytest.approx(runs[column].mean(), rel=1e-12), (name, settings)


def test_an_extreme_is_of_any_epoch_or_step_that_the_reference_has_too(tmp_path):
    losses = [0.5, 0.2, 0.9, 0.1]
    rows = [row._replace(test_loss=loss) for row, loss in zip(history(4), losses, strict=True)]
    run = make_run(tmp_path, rows=rows, target=4)
    steps = [
        (epoch, step, f"window_{metric}", value)
        for metric, values in (("train_loss", (0.7, 0.3, 0.4)), ("train_acc", (91.0, 99.5, 90.0)))
        for (epoch, step), value in zip(((1, 1), (1, 2), (4, 1)), values, strict=True)
    ]
    run.write_steps(steps)
    found = sweeps.load(tmp_path)
    cells = _cells(table("table1", found))
    assert cells["Train Loss extreme", "ReLU 1L"]["mean"] == "0.3"
    assert cells["Train Acc (%) extreme", "ReLU 1L"]["mean"] == "99.5"
    assert cells["Test Loss extreme", "ReLU 1L"]["mean"] == "0.1"
    before_the_last = Metric("test_loss", "", "", epochs=3)
    assert tables._extremes(before_the_last, found).tolist() == [0.2]


def test_a_cell_is_mean_interval_and_difference_over_the_seeds(report):
    cell = _cells(table("table1", report))["Test Acc (%) last epoch", "ReLU 1L"]
    values = [history(3, seed=seed)[-1].test_acc for seed in range(3)]
    mean, half = interval(values)
    assert [float(cell[key]) for key in ("mean", "half_width", "difference")] == pytest.approx(
        [mean, half, mean - 97.88]
    )
    shown = f"{mean:.2f} ± {half:.2f} (−{97.88 - mean:.2f})"
    assert shown in table("table1", report).to_markdown()


def test_one_seed_has_no_interval(report, tmp_path):
    make_report(tmp_path, seeds=1)
    text = table("table1", sweeps.load(tmp_path)).to_markdown()
    assert "±" not in text.split("\n\n- ")[0]
    assert re.search(r"\| n .*\| 1 ", text)


def test_marks_diverged_unfinished_and_missing(tmp_path):
    make_run(tmp_path, seed=0, epochs=5)
    make_run(tmp_path, seed=1, rows=history(2), target=5, state="diverged")
    make_run(tmp_path, seed=2, rows=history(3), target=5, state="interrupted")
    make_run(tmp_path, lr=0.1, rows=[], target=5, state="diverged")
    make_run(tmp_path, lr=0.001, rows=history(3), target=5, state="failed")
    found = sweeps.load(tmp_path)
    marks = {column: cell["marks"] for (_, column), cell in _cells(table("lr", found)).items()}
    assert marks == {
        "lr 0.1": "diverged (1 of 1)",
        "lr 0.01": "diverged (1 of 3); 3/5 epochs (1 of 3)",
        "lr 0.001": "3/5 epochs, 1 failed",
        "lr 0.0001": "missing",
    }
    text = table("lr", found).to_markdown()
    assert f"{history(5)[-1].test_acc:.2f} " in text
    assert "| —" in text
    assert "no fair comparison" in text
    assert "mean" in next(iter(_cells(table("lr", found)).values()))


def test_other_configurations_do_not_leak_into_the_report_s(tmp_path):
    make_run(tmp_path, seed=0)
    other = {"rows": history(3, level=50.0)}
    make_run(tmp_path, dtype="float64", **other)
    make_run(tmp_path, bsz=100, **other)
    make_run(tmp_path, eval_train="full", **other)
    make_run(tmp_path, optim={"name": "nesterov"}, **other)
    make_run(tmp_path, data={"name": "mnist", "holdout": 5000, "holdout_seed": 0}, **other)
    cell = _cells(table("table1", sweeps.load(tmp_path)))["Test Acc (%) last epoch", "ReLU 1L"]
    assert (cell["n"], float(cell["mean"])) == ("1", history(3)[-1].test_acc)


def test_values_of_an_only_axis_that_were_run_beside_the_study_s_come_last(tmp_path):
    for lr in (0.03, 0.003, 0.1):
        make_run(tmp_path, lr=lr)
    make_run(tmp_path, lr=0.5, wd=0.1)  # not at the baseline
    found = sweeps.load(tmp_path)
    assert table("lr", found).columns[4:] == ("lr 0.003", "lr 0.03")
    assert len(table("wd", found).columns) == 4


OTHER = {
    "title": "Kernels", "train": "python fit.py", "epochs": 3,
    "baseline": {"kernel": "rbf", "net.depth": 1, "amp": False},
    "axes": {"kernel": {"values": ["rbf", "poly"], "names": {"rbf": "RBF"}}, "net.depth": [1, 2]},
    "metrics": {"auc": {"maximize": True, "digits": 3}},
    "tables": {"all": {
        "title": "Kernels", "cells": {"kernel": None, "net.depth": None}, "metrics": ["auc", "epoch_seconds", "acu"],
        "at": ["last", "extreme"], "notes": "A note.",
    }},
}  # fmt: skip


def test_a_study_of_another_program_says_its_own_cells(tmp_path):
    for kernel, depth, seed in itertools.product(("rbf", "poly"), (1, 2), (0, 1)):
        config = {"kernel": kernel, "net": {"depth": depth}, "amp": False, "seed": seed}
        make_other(tmp_path, config, {"auc": [0.5, 0.9, 0.7 + seed / 10]}, metric="auc")
    make_other(tmp_path, {"kernel": "rbf", "seed": 0}, {"auc": [0.1]}, program="another:one", metric="auc")
    make_report(tmp_path, seeds=1)
    study = file.parse(OTHER, ROOT / "mine.yaml", "mine.yaml")
    found = tables.table(study, study.tables["all"], sweeps.load(tmp_path))
    assert found.columns == ("RBF net.depth 1", "RBF net.depth 2", "kernel poly net.depth 1", "kernel poly net.depth 2")
    cells = _cells(found)
    assert {row for row, _ in cells} == {"auc last epoch", "auc extreme", "acu last epoch"}
    assert {cells["auc last epoch", column]["mean"] for column in found.columns} == {"0.75"}
    assert {cells["auc extreme", column]["mean"] for column in found.columns} == {"0.9"}
    assert found.notes[-2:] == ("No run logs acu.", "A note.")
    assert "report" not in found.to_markdown()


def test_configurations_that_the_baseline_does_not_tell_apart_are_mixed(tmp_path):
    for batch in (16, 64):
        make_other(tmp_path, {"kernel": "rbf", "net": {"depth": 1}, "amp": False, "batch": batch}, {"auc": [0.5]})
    study = file.parse(OTHER, ROOT / "mine.yaml", "mine.yaml")
    cells = _cells(tables.table(study, study.tables["all"], sweeps.load(tmp_path)))
    assert cells["auc last epoch", "RBF net.depth 1"]["marks"] == "mixed: batch"


def test_pivot_over_any_keys(report):
    table = pivot(report, ["activ"], ["model", "optim"], ["test_acc", "epoch_seconds"], baseline=STUDY.baseline)
    assert table.columns == ("model=360, optim=sgd", "model=512x256, optim=sgd")
    assert [row.label for row in table.rows][:2] == [("gelu", "test_acc"), ("gelu", "epoch_seconds")]
    assert {cell.n for row in table.rows for cell in row.cells} == {3}
    assert table.notes[0] == "Held at the baseline: loss=ce, lr=0.01, wd=0.001, mo=0.9."
    assert "kinds" in pivot(report, ["loss"], [], ["test_loss"], baseline=STUDY.baseline).to_markdown()


def test_pivot_without_a_study_has_no_baseline(report):
    with pytest.raises(InputError, match=r"loss=.*varies within.*choose one: loss=….*name a study"):
        pivot(report, ["activ"], ["model"], ["test_acc"])


def test_pivot_never_averages_over_configurations(tmp_path):
    for lr in (0.1, 0.001):
        make_run(tmp_path, lr=lr)
    found = sweeps.load(tmp_path)
    for baseline in (None, STUDY.baseline):  # at which there is no run
        with pytest.raises(InputError, match=r"lr=.*varies within the cells"):
            pivot(found, ["activ"], [], ["test_acc"], baseline=baseline)
    assert pivot(found, ["activ"], ["lr"], ["test_acc"]).columns == ("lr=0.001", "lr=0.1")


@pytest.mark.parametrize(
    ("rows", "cols", "values", "message"),
    [
        (["actv"], [], ["test_acc"], "did you mean activ"),
        (["host"], [], ["test_acc"], "not part of a configuration"),
        (["activ"], ["activ"], ["test_acc"], "twice"),
        (["activ"], [], ["state"], "numbers"),
        ([], [], ["test_acc"], "at least one key"),
    ],
)
def test_pivot_says_what_it_cannot_do(report, rows, cols, values, message):
    with pytest.raises(InputError, match=message):
        pivot(report, rows, cols, values)


HOSTILE = Table(
    name="hostile",
    title=r"a|b_c \input{x} <b> $&%#~^ 损失",
    stub=("x|y", "of"),
    columns=("a&b", "50%", "c|d"),
    rows=(
        Row(("[1]", "l"), (Cell("test_loss", 4, 0.5, 0.1, 3, 0.6), Cell("test_loss", 4), "x")),
        Row(("_z_", "m"), (Cell("test_loss", 4, 1.0, math.nan, 1, None, ("diverged (2 of 3)",)), "", "é")),
    ),
    notes=("note & note_",),
    panel=2,
)


def test_texts_are_escaped():
    lines = [line for line in HOSTILE.to_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} <= {4, 5}
    assert r"\<b\>" in HOSTILE.to_markdown()
    assert r"\input" not in HOSTILE.to_latex().replace(r"\textbackslash{}input", "")


def test_an_underscore_within_a_word_is_plain():
    table = replace(HOSTILE, title="test_acc by _x_ and y_ of _z")
    assert table.to_markdown().startswith("### test_acc by \\_x\\_ and y\\_ of \\_z\n")


def test_where_runs_are_shorter_than_others_a_note_says_how_to_compare_them(tmp_path):
    make_run(tmp_path, epochs=3)
    make_run(tmp_path, lr=0.1, epochs=2)
    shorter = pivot(sweeps.load(tmp_path), ["lr"], [], ["test_acc"])
    assert shorter.notes[-1] == "Some runs were asked for fewer epochs; --epochs 2 compares all as of epoch 2."
    assert [cell.n for row in shorter.rows for cell in row.cells] == [1, 0]
    same = pivot(sweeps.load(tmp_path, epochs=2), ["lr"], [], ["test_acc"])
    assert not any("--epochs" in note for note in same.notes)
    assert [cell.n for row in same.rows for cell in row.cells] == [1, 1]


def test_small_differences_have_no_sign():
    assert Cell("test_acc", 2, 97.881, math.nan, 1, 97.88).text() == "97.88 (0.00)"
    assert Cell("test_acc", 2, 97.8, math.nan, 1, 97.88).text() == "97.80 (−0.08)"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(report, tmp_path):
    found = [table(name, report) for name in STUDY.tables]
    found += [HOSTILE, pivot(report, ["activ"], ["model"], ["test_acc"], baseline=STUDY.baseline)]
    body = "\n".join(table.to_latex() for table in found)
    source = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "tables.tex").write_text(source)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
