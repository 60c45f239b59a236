"""Which runs are a cell's: the baseline, options, numbers up to rounding, and runs of other programs beside them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from synthetic import make_other, make_report, make_run

import sweeps
from sweeps.show import figures, tables
from sweeps.study import file
from sweeps.study.select import FREE, equals, others, select

STUDY = file.read(str(ROOT / "conf" / "study" / "report.yaml"))


def run(seed, **settings):
    """A row of ``Collection.runs`` at the baseline."""
    options = {"data.holdout": 0, "activ.approximate": None, "loss.margin": None}
    return {**STUDY.baseline, **options, "run": f"r{seed}", "seed": seed, **settings}


def test_a_cell_is_the_baseline_but_for_its_settings_and_absent_options_pass():
    runs = pd.DataFrame(
        [
            run(0),
            run(1, activ="gelu", **{"activ.approximate": "tanh"}),
            run(2, activ="gelu", **{"activ.approximate": "none"}),
            run(3, lr=0.1),
            run(4, **{"data.holdout": 5000}),
            run(5, lr=0.01 * (1 + 1e-12)),
            run(6, wd=0.0),
        ]
    )

    def seeds(**settings):
        return list(select(STUDY, runs, settings)["seed"])

    assert seeds() == [0, 5]
    assert seeds(activ="gelu") == [1]
    assert seeds(lr=FREE) == [0, 3, 5]
    assert seeds(wd=0.0) == [6]
    assert others(STUDY, runs.assign(lr=[0.01, 1, 1, 0.03, 1, 0.003, 0.01]), "lr") == [0.003, 0.03]
    assert select(STUDY, runs.iloc[:0], {}).empty
    assert select(STUDY, runs.drop(columns="mo"), {}).empty
    assert len(select(STUDY, runs.drop(columns="loss.margin"), {})) == 2


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ([0.1, 0.1 * (1 + 1e-12), 0.2, None], 0.1, [True, True, False, False]),
        ([1, "one", None, "1"], 1, [True, False, False, True]),
        (["true", "false", None, "x"], True, [True, False, False, False]),
        ([True, False, False, True], False, [False, True, True, False]),
        (["a", None, "b", 5], "a", [True, False, False, False]),
        ([1.0, np.nan, 2.0, np.nan], None, [False, True, False, True]),
    ],
)
def test_equals_takes_a_column_of_anything(column, value, expected):
    assert list(equals(pd.Series(column), value)) == expected


def test_a_dotted_key_is_an_option_only_of_a_choice_that_the_baseline_names():
    """Of another program ``optim.lr`` is a key like any other, and a run without it another program's."""
    content = {"title": "t", "train": "x", "epochs": 1, "baseline": {"optim.lr": 0.1, "net.depth": 2}}
    mine = file.parse(content, ROOT / "mine.yaml", "mine")
    runs = pd.DataFrame({"run": ["a", "b", "c"], "optim.lr": [0.1, 0.1, np.nan], "net.depth": [2, np.nan, np.nan]})
    assert list(select(mine, runs, {})["run"]) == ["a"]


def test_another_program_beside_them_changes_no_table_and_no_figure(tmp_path):
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    for out in (alone, mixed):
        make_report(out, epochs=3, seeds=2)
    for lr, width, seed in itertools.product((0.1, 0.01), (8, 16), (0, 1)):
        config = {"lr": lr, "net": {"width": width}, "seed": seed, "loss": "ce", "activ": "relu", "wd": "none"}
        make_other(mixed, config, {"loss": [3.0, 2.0], "train_loss": [9.0, 9.0]}, metric="loss", maximize=False)
    make_run(alone, lr=0.03)
    make_run(mixed, lr=0.03)
    one, both = sweeps.load(alone), sweeps.load(mixed)
    assert len(both.runs) == len(one.runs) + 8
    for spec in STUDY.tables.values():
        assert tables.table(STUDY, spec, both).to_csv() == tables.table(STUDY, spec, one).to_csv()
    for name in ("fig1", "fig8"):
        drawn = [figures.figure(STUDY, STUDY.figures[name], found) for found in (one, both)]
        for a, b in zip(*(figure.axes for figure in drawn), strict=True):
            for x, y in zip(a.lines, b.lines, strict=True):
                assert list(x.get_ydata()) == list(y.get_ydata())
