"""A study's file: what it may say, what is refused, and that the course report's says what it said before."""

import copy
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from worlds import world, write_timing

from sweeps.judge import timing, training
from sweeps.judge.evidence import Evidence
from sweeps.runs.errors import InputError
from sweeps.study import check, file
from sweeps.study.measures import Time
from sweeps.study.select import FREE, select
from sweeps.study.study import Seeds

STUDY = ROOT / "conf" / "study" / "report.yaml"
SMALL = {
    "title": "Small",
    "train": "python train.py",
    "runs": "lr=0.1,0.01",
    "epochs": 3,
    "seeds": {"design": [0], "looks": [2, 4]},
    "baseline": {"lr": 0.1, "net": "wide"},
    "axes": {"lr": [0.1, 0.01], "net": {"values": ["wide", "deep"], "names": {"wide": "Wide"}}},
    "measures": {"loss": {"take": "last", "metric": "loss"}},
    "hypotheses": {"rate": {"text": "t", "measure": "loss", "order": {"lr": "0.1 > 0.01"}}},
}


@pytest.fixture(scope="module")
def study():
    return file.read(str(STUDY))


def small(**changes):
    """SMALL with values replaced by dotted paths (``__`` for the dot)."""
    content = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return file.parse(content, STUDY, "small")


def test_overrides_name_every_axis_for_the_program_s_defaults_may_be_others():
    study = small(axes__lr=[0.1, 0.01, 0.0123456789], axes__net__train={"deep": "d2"})
    assert study.overrides({}) == ("lr=0.1", "net=wide")
    assert study.overrides({"net": "deep", "lr": 0.0123456789}) == ("lr=0.0123456789", "net=d2")
    assert study.differences({"net": "deep", "lr": 0.1}) == ("net=d2",)


# ------------------------------------------------------------------------------------------------- the course report


def test_the_report_has_the_evidence_that_its_claims_had_in_python(study, tmp_path):
    """tests/golden/evidence.json: bounds and values of the 21 claims, made by the code of 0.1.0 from the same world."""
    write_timing(tmp_path)
    collection, times = world(tmp_path), timing.load(tmp_path)
    evidence = Evidence(replace(study, seeds=Seeds("seed", (), (5,))), collection)
    golden = json.loads((ROOT / "tests" / "golden" / "evidence.json").read_text())
    assert list(golden) == list(study.hypotheses)[:21]
    for name, comparisons in golden.items():
        hypothesis = study.hypotheses[name]
        for contrast, (low, high, values) in zip(hypothesis.contrasts, comparisons, strict=True):
            if isinstance(hypothesis.measure, Time):
                cells = [np.log(times.seconds[hypothesis.measure.cell(study.complete(c))]) for c in contrast.cells]
                bounds = [math.log(x) if 0 < x < math.inf else x for x in (contrast.low, contrast.high)]
            else:
                sample = evidence.sample(hypothesis, hypothesis.measure)
                assert sample.obstacle == ""
                cells = [np.array(sample.values[study.label(cell)]) for cell in contrast.cells]
                bounds = [contrast.low, contrast.high]
            found = cells[0] - cells[1] if len(cells) == 2 else cells[0]
            assert found == pytest.approx(values, abs=2e-6)
            assert bounds == pytest.approx([-math.inf if low is None else low, math.inf if high is None else high])


def test_the_report_needs_the_runs_of_its_experiment(study):
    cells = {tuple(sorted(study.overrides(cell))) for cell in study.cells()}
    assert len(cells) == 21
    done = subprocess.run(
        [sys.executable, "-m", "mlp.train", "--multirun", "experiment=report", "--dry-run"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("report: 21 runs")


def test_a_look_trains_any_of_the_cells(study, tmp_path):
    for cells in (list(study.cells()), list(study.cells())[3:7]):
        told = training.describe(training.command(study, tmp_path, (4, 5), cells))
        assert told.startswith(f"report: {2 * len(cells)} runs")


def test_every_sentence_of_the_summary_is_tested_or_has_its_reason(study):
    assert len(study.hypotheses) >= 32
    assert all(hypothesis.quote for hypothesis in study.hypotheses.values())
    assert all(statement.reason and statement.quote for statement in study.untested)


# ------------------------------------------------------------------------------------------------------- the language


def test_relations_are_comparisons():
    def relation(**words):
        found = small(hypotheses={"x": {"text": "t", "measure": "loss", **words}})
        return [
            (found.label(c.of), c.over is not None and found.label(c.over), c.low, c.high)
            for c in found.hypotheses["x"].contrasts
        ]

    assert relation(order={"lr": "0.1 >> 0.01"}, much=2) == [("lr 0.1", "lr 0.01", 2, math.inf)]
    assert relation(best={"net": "deep"}) == [("net deep", "Wide", 0, math.inf)]
    assert relation(among={"lr": [0.1, 0.01]}, within=0.5) == [("lr 0.1", "lr 0.01", -0.5, 0.5)]
    assert relation(compare={"of": {}, "below": 3}) == [("baseline", False, -math.inf, 3)]
    twice = relation(compare={"of": {"lr": 0.01}, "over": {}, "above": 1}, each="net", ratio=True)
    assert twice == [("lr 0.01 Wide", "Wide", 1, math.inf), ("lr 0.01 net deep", "net deep", 1, math.inf)]


def test_seeds_for_design_are_not_fresh():
    seeds = small().seeds
    assert (seeds.design, seeds.fresh(4)) == ((0,), (1, 2, 3, 4))
    assert small(seeds=[3, 4, 5]).seeds.looks == (3,)
    assert small(seeds=[5, 3, 4]).seeds.fresh(5) == (5, 3, 4, 0, 1)


def test_differences_leave_the_baseline_out_and_use_the_programs_words(study):
    assert study.differences({"activ": "gelu", "model": "512x256", "lr": 0.01}) == ("activ=gelu", "model=mlp2")
    assert study.label({"model": "512x256", "activ": "gelu"}) == "GeLU 2L"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, r"titel=x: no such field \(did you mean title\?\)"),
        ({"held": {"net2": {"title": "t"}}}, r"held\.net2=net2: must be a key of the baseline"),
        ({"held": {"net": {"values": [1]}}}, r"held\.net\.values=.*no such field.*known: title, names"),
        ({"epochs": 0}, "epochs=0: must be a whole number ≥ 1"),
        ({"seeds__looks": [4, 2]}, r"seeds\.looks=.*ascending"),
        ({"seeds": []}, r"seeds=\[\]: must be a list of 1 to 10,000 seeds"),
        ({"seeds__looks": []}, r"seeds\.looks=.*ascending"),
        ({"seeds__looks": [3, 10**9]}, r"seeds\.looks=.*at most 10,000 seeds"),
        ({"seeds__looks": "3"}, r"seeds\.looks\[0\]=3: must be a whole number"),
        (
            {"tables": {"t": {"title": "t", "cells": {"lr": [0.1] * 200, "net": ["deep"] * 200}, "metrics": ["loss"]}}},
            r"tables\.t\.cells=40,000 combinations: must be at most 10,000",
        ),
        ({"measures__loss__take": "lst"}, r"measures\.loss\.take=lst: must be one of last, .*did you mean last"),
        ({"measures__loss": {"take": "last"}}, r"measures\.loss\.metric=\?\?\?: is missing"),
        ({"measures__loss__epochs": 9}, r"measures\.loss\.epochs=9: must be at most the study's epochs, 3"),
        ({"hypotheses__rate__measure": "los"}, r"hypotheses\.rate\.measure=los: must be one of loss"),
        (
            {"hypotheses__rate__order": {"lr": "0.1 > 0.2"}},
            r"hypotheses\.rate\.order\.lr=0\.2: must be a value of the axis",
        ),
        ({"hypotheses__rate__order": {"lr": "0.1 >> 0.01"}}, r"hypotheses\.rate\.much=\?\?\?: is missing"),
        ({"hypotheses__rate__best": {"lr": 0.1}}, r"hypotheses\.rate=order, best: must have one of"),
        ({"hypotheses__rate__at_least": 2}, r"at_least=2: must be at most 1"),
        ({"hypotheses__rate__each": {"depth": [1]}}, r"hypotheses\.rate\.each=depth: must be a key of the baseline"),
        (
            {"tables": {"t": {"title": "t", "cells": "nett", "metrics": ["loss"]}}},
            r"tables\.t\.cells=nett: must be one of",
        ),
        (
            {"figures": {"f": {"caption": "c", "lines": "x", "metrics": "loss"}}},
            r"figures\.f\.lines\[0\]=x: must be one of",
        ),
        ({"reference": {"name": "r", "numbers": "none.yaml"}}, r"reference\.numbers=none\.yaml: there is no such file"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)


@pytest.mark.parametrize("text", ["[", "a: b: c", "- 1", "", "&a [*a, *a]", "x" * 10, "\0"])
def test_a_file_that_is_no_study_is_one_error(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError):
        file.read(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("text", ["[", "a: b", "a: {b: {c: x}}", "\0"])
def test_a_file_of_numbers_that_is_none_is_one_error(tmp_path, text):
    (tmp_path / "numbers.yaml").write_text(text)
    content = {**SMALL, "reference": {"name": "r", "numbers": "numbers.yaml"}}
    with pytest.raises(InputError):
        file.parse(content, tmp_path / "small.yaml", "small")


def test_an_unknown_study_names_those_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"study=reprot: no such study \(did you mean report\?\); known: report"):
        file.read("reprot")
    assert file.only() == "report"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"known: none"):
        file.only()


# -------------------------------------------------------------------------------------------------------- its runs


def test_a_cell_takes_the_runs_of_its_settings_alone(study, tmp_path):
    runs = world(tmp_path, epochs=1, seeds=range(2)).runs
    assert set(select(study, runs, {})["activ"]) == {"relu"}
    assert len(select(study, runs, {"activ": "gelu", "model": "512x256"})) == 2
    assert len(select(study, runs, {"lr": FREE})) == 8
    assert len(select(study, runs.assign(lr=runs["lr"] * (1 + 1e-12)), {"lr": 0.1})) == 2
    assert len(select(study, runs.drop(columns="mo"), {})) == 0  # of a program without momentum


def test_what_a_study_would_do_is_told_before_it_does(study):
    told = check.describe(study)
    assert "ReLU 1L − GeLU 1L > 0" in told
    assert "−0.5 < ReLU 1L − GeLU 1L < 0.5" in told
    assert "GeLU 1L / Sigmoid 1L > 1" in told
    assert all(name in told for name in itertools.chain(study.hypotheses, study.tables, study.figures))


def test_a_key_that_overrides_a_merged_one_does_not_stand_twice(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("a: &a {x: 1}\nb: {c: &c {<<: *a, x: 2}}\nd: {<<: *c}\n")
    with pytest.raises(InputError, match=r"^a=.*no such field"):
        file.read(str(path))
