"""A study from file to verdict through the real command line, with a program that is not about networks."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import numpy as np
import sweeps

@sweeps.main(config_path=".", config_name="config", budget="epochs", metric="score")
def noise(cfg, run):
    rng = np.random.default_rng([cfg.seed, int(10 * cfg.dose)])
    for epoch in run.epochs(cfg.epochs):
        run.log(score=cfg.effect * cfg.dose + rng.normal(0, 0.1))

if __name__ == "__main__":
    noise()
"""
STUDY = """
title: Doses
train: python noise.py
runs: [hydra/sweeper=grid, hydra/launcher=pool, "dose=0,1,2"]
epochs: 2
seeds: {design: [0], looks: [3, 5]}
baseline: {dose: 0.0, effect: 1.0}
axes: {dose: [0.0, 1.0, 2.0]}
measures: {score: {take: last, metric: score, unit: points, level: 0.1}}
tables: {doses: {title: Score by dose, cells: dose, metrics: [score], at: [last]}}
figures: {doses: {caption: Score by dose, lines: dose, metrics: score}}
hypotheses:
  more-is-better: {text: More is better., measure: score, order: {dose: 2 > 1 > 0}}
  one-is-enough:
    text: Two are no better than one.
    measure: score
    compare: {of: {dose: 2.0}, over: {dose: 1.0}, below: 0.02}
  on-its-bound: {text: A dose gives one., measure: score, compare: {of: {dose: 1.0}, over: {dose: 0.0}, above: 1.0}}
  near-its-bound: {text: A dose gives much., measure: score, compare: {of: {dose: 1.0}, over: {dose: 0.0}, above: 0.84}}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "noise.py").write_text(PROGRAM)
    (tmp_path / "config.yaml").write_text("dose: 0.0\neffect: 1.0\nseed: 0\nepochs: 2\n")
    (tmp_path / "doses.yaml").write_text(STUDY)

    def command(*words):
        return subprocess.run(
            [sys.executable, "-m", "sweeps", *words], cwd=tmp_path, capture_output=True, text=True, timeout=250,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    return command


def test_a_study_from_its_file_to_verdicts(run, tmp_path):
    told = run("check", "study=./doses.yaml")
    assert told.returncode == 0, told.stderr
    assert "dose 2 − dose 1 > 0" in told.stdout
    assert "12 runs, 12 to train" in told.stdout
    assert not (tmp_path / "outputs" / "runs").exists()

    trained = run("train", "study=./doses.yaml", "--until-decided")
    assert trained.returncode == 0, trained.stderr
    assert "18 runs, 18 to train" in trained.stdout  # what it may cost at most is said first
    assert "Look 1 of 2, at 3 fresh seeds" in trained.stdout
    assert "Look 2 of 2, at 5 fresh seeds" in trained.stdout

    judged = run("claims", "study=./doses.yaml")
    assert judged.returncode == 0, judged.stderr
    claims = {
        claim["name"]: claim for claim in json.loads((tmp_path / "outputs" / "claims.json").read_text())["claims"]
    }
    assert {name: claim["verdict"] for name, claim in claims.items()} == {
        "more-is-better": "holds", "one-is-enough": "contradicted",
        "on-its-bound": "undecided", "near-its-bound": "undecided",
    }  # fmt: skip
    assert (claims["more-is-better"]["n"], claims["near-its-bound"]["n"]) == (3, 5)
    # Only what is open was trained for the second look: doses 0 and 1.
    runs = len(list((tmp_path / "outputs" / "runs").iterdir()))
    assert runs == 12 + 4

    again = run("train", "study=./doses.yaml")
    assert "12 finished already" in again.stdout
    for words in (["tables"], ["figures"], ["report"]):
        done = run(*words, "study=./doses.yaml")
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "outputs" / "report" / "index.html").read_text()
    assert "Two are no better than one." in page
    assert "ReLU" not in page
    own = run("report")
    assert own.returncode == 0, own.stderr
    assert 'href="#hypotheses"' not in (tmp_path / "outputs" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "study=none"), "study=none: no such study; known: "),
        (("check", "study=./none.yaml"), "study=./none.yaml: there is no such file"),
        (("check", "study=./doses.yaml", "x=1"), "argument=x=1: is unknown here"),
        (("tables", "study=./doses.yaml", "--only", "dose"), "--only=dose: must be of doses"),
        (("fidelity", "study=./doses.yaml"), "has no reference.curves to compare with"),
        (("train", "study=./doses.yaml", "--seeds", "-1"), "--seeds=-1: must be a whole number ≥ 0"),
        (
            ("train", "study=./doses.yaml", "--seeds", "99999999999"),
            "--seeds=99999999999: must be a whole number ≥ 0 and ≤ 10000",
        ),
        (("train", "study=./broken.yaml"), "broken.yaml: is not YAML"),
        (("check", "study=./twice.yaml"), "twice.yaml: is not YAML: the key epochs stands twice at line 3, column 1"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, words, message):
    (tmp_path / "broken.yaml").write_text("title: [")
    (tmp_path / "twice.yaml").write_text("title: doses\nepochs: 1\nepochs: 2\n")
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_that_refuses_says_why(run, tmp_path):
    (tmp_path / "doses.yaml").write_text(STUDY.replace("dose=0,1,2", "dos=0,1,2"))
    done = run("check", "study=./doses.yaml")
    assert done.returncode == 2
    assert "dos" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
