import csv
import io
import math
import re
import shutil
import subprocess

import pytest
from synthetic import history, make_report, make_run

import sweeps
from sweeps.read.summary import interval
from sweeps.runs.errors import InputError
from sweeps.show.render import Cell, Row, Table
from sweeps.show.tables import TABLES, pivot, sweep_table, table1, table2

GELU = {"name": "gelu", "approximate": "tanh"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    make_report(out, epochs=3)
    return sweeps.load(out)


def _cells(table):
    return {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(table.to_csv()))}


def test_tables_of_the_report_have_its_cells_and_its_figures(report):
    cells = _cells(table1(report))
    assert {column for _, column in cells} == {
        f"{depth}+{word}" for depth in ("1L", "2L") for word in ("Sigmoid", "ReLU", "GeLU", "Tanh")
    }
    assert {row for row, _ in cells} == {
        f"{metric} {at}"
        for metric in ("Train Loss", "Train Acc (%)", "Test Loss", "Test Acc (%)")
        for at in ("last epoch", "best epoch")
    } | {"Time (s)/epoch median"}
    assert cells["Test Acc (%) last epoch", "2L+Sigmoid"]["report"] == "95.1"
    assert cells["Time (s)/epoch median", "2L+GeLU"]["report"] == "18.73"
    assert cells["Test Acc (%) last epoch", "1L+Tanh"]["report"] == ""
    assert _cells(table2(report))["Train Loss best epoch", "2L+Hinge"]["report"] == "0.0015"
    for table in TABLES.values():
        assert {cell["n"] for cell in _cells(table(report)).values()} == {"3"}


def test_a_cell_is_mean_interval_and_difference_over_the_seeds(report):
    cell = _cells(table1(report))["Test Acc (%) last epoch", "1L+ReLU"]
    values = [history(3, seed=seed)[-1].test_acc for seed in range(3)]
    mean, half = interval(values)
    assert [float(cell[key]) for key in ("mean", "half_width", "difference")] == pytest.approx(
        [mean, half, mean - 97.88]
    )
    shown = f"{mean:.2f} ± {half:.2f} (−{97.88 - mean:.2f})"
    assert shown in table1(report).to_markdown()


def test_one_seed_has_no_interval(report, tmp_path):
    make_report(tmp_path, seeds=1)
    text = table1(sweeps.load(tmp_path)).to_markdown()
    assert "±" not in text.split("\n\n- ")[0]
    assert re.search(r"\| n .*\| 1 ", text)


def test_marks_diverged_unfinished_and_missing(tmp_path):
    make_run(tmp_path, seed=0, epochs=5)
    make_run(tmp_path, seed=1, rows=history(2), target=5, state="diverged")
    make_run(tmp_path, seed=2, rows=history(3), target=5, state="interrupted")
    make_run(tmp_path, lr=0.1, rows=[], target=5, state="diverged")
    make_run(tmp_path, lr=0.001, rows=history(3), target=5, state="failed")
    found = sweeps.load(tmp_path)
    marks = {column: cell["marks"] for (_, column), cell in _cells(sweep_table(found, "lr")).items()}
    assert marks == {
        "lr=0.1": "diverged (1 of 1)",
        "lr=0.01": "diverged (1 of 3); 3/5 epochs (1 of 3)",
        "lr=0.001": "3/5 epochs, 1 failed",
        "lr=0.0001": "missing",
    }
    text = sweep_table(found, "lr").to_markdown()
    assert f"{history(5)[-1].test_acc:.2f} " in text
    assert "| —" in text
    assert "no fair comparison" in text
    assert "mean" in next(iter(_cells(sweep_table(found, "lr")).values()))


def test_other_configurations_do_not_leak_into_the_report_s(tmp_path):
    make_run(tmp_path, seed=0)
    other = {"rows": history(3, level=50.0)}
    make_run(tmp_path, dtype="float64", **other)
    make_run(tmp_path, bsz=100, **other)
    make_run(tmp_path, eval_train="full", **other)
    make_run(tmp_path, optim={"name": "nesterov"}, **other)
    make_run(tmp_path, data={"name": "mnist", "holdout": 5000, "holdout_seed": 0}, **other)
    cell = _cells(table1(sweeps.load(tmp_path)))["Test Acc (%) last epoch", "1L+ReLU"]
    assert (cell["n"], float(cell["mean"])) == ("1", history(3)[-1].test_acc)


def test_sweep_table_shows_values_beyond_the_report_s(tmp_path):
    make_run(tmp_path, lr=0.03)
    assert sweep_table(sweeps.load(tmp_path), "lr").columns[-1] == "lr=0.03"


def test_pivot_over_any_keys(report):
    table = pivot(report, ["activ"], ["model", "optim"], ["test_acc", "epoch_seconds"])
    assert table.columns == ("model=360, optim=sgd", "model=512x256, optim=sgd")
    assert [row.label for row in table.rows][:2] == [("gelu", "test_acc"), ("gelu", "epoch_seconds")]
    assert {cell.n for row in table.rows for cell in row.cells} == {3}
    assert "loss=ce" in table.notes[0]
    assert "kinds" in pivot(report, ["loss"], [], ["test_loss"]).to_markdown()


def test_pivot_never_averages_over_configurations(tmp_path):
    for lr in (0.1, 0.001):
        make_run(tmp_path, lr=lr)
    found = sweeps.load(tmp_path)
    with pytest.raises(InputError, match=r"lr=.*varies within the cells"):
        pivot(found, ["activ"], [], ["test_acc"])
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


def test_small_differences_have_no_sign():
    assert Cell("test_acc", 2, 97.881, math.nan, 1, 97.88).text() == "97.88 (0.00)"
    assert Cell("test_acc", 2, 97.8, math.nan, 1, 97.88).text() == "97.80 (−0.08)"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(report, tmp_path):
    tables = [make(report) for make in TABLES.values()] + [HOSTILE, pivot(report, ["activ"], ["model"], ["test_acc"])]
    body = "\n".join(table.to_latex() for table in tables)
    source = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "tables.tex").write_text(source)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
