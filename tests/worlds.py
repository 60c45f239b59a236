"""Collections whose truth is known: the course report's cells, with curves that follow a given truth."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import yaml
from conftest import ROOT

from sweeps.judge import timing
from sweeps.read.collect import Collection

BASELINE = yaml.safe_load((ROOT / "conf" / "study" / "report.yaml").read_text())["baseline"]
KINDS = [{"activ": a} for a in ("relu", "gelu", "tanh", "sigmoid")] + [{"loss": x} for x in ("hinge", "euclidean")]
CELLS = [{**kind, "model": model} for kind in KINDS for model in ("360", "512x256")]
CELLS += [{"lr": x} for x in (0.1, 0.001, 0.0001)] + [{"wd": x} for x in (0.0, 0.01, 0.1)]
CELLS += [{"mo": x} for x in (0.0, 0.1, 0.5)]
TIME = {"activation-time", "exp-depth", "exp-cost"}

# A world in which the report is right: final accuracy and epochs that the error takes to fall by e, per setting.
FINAL = {"relu": 97.9, "gelu": 97.7, "tanh": 97.5, "sigmoid": 94.3, "hinge": 98.3, "euclidean": 97.6}
FINAL |= {0.1: 97.0, 0.01: 97.9, 0.001: 97.6, 0.0001: 96.0}
TAU = {"gelu": 2.0, "relu": 3.0, "tanh": 4.0, "sigmoid": 8.0, "hinge": 2.0, "euclidean": 4.0}
TAU |= {("lr", 0.1): 2.0, ("lr", 0.001): 6.0, ("lr", 0.0001): 15.0}
TAU |= {("wd", 0.0): 2.0, ("wd", 0.01): 4.0, ("wd", 0.1): 5.0, ("mo", 0.0): 9.0, ("mo", 0.1): 7.0, ("mo", 0.5): 5.0}
SWEPT = {("lr", 0.1): 97.0, ("lr", 0.001): 97.6, ("lr", 0.0001): 96.0}
SWEPT |= {
    ("wd", 0.0): 97.8,
    ("wd", 0.01): 95.0,
    ("wd", 0.1): 90.0,
    ("mo", 0.0): 96.0,
    ("mo", 0.1): 96.5,
    ("mo", 0.5): 97.0,
}


def truth(cell):
    """(final accuracy, tau, epochs on a plateau) of a cell."""
    (key, value), *_ = cell.items()
    deep = cell.get("model") == "512x256"
    final = SWEPT.get((key, value), FINAL.get(value, 97.9)) + 0.3 * deep
    return final, TAU.get((key, value), TAU.get(value, 3.0)), 5 if deep and value == "sigmoid" else 0


def identical(cell):
    return 97.0, 3.0, 0


def run_id(cell, seed):
    return "-".join(value if isinstance(value, str) else f"{key}={value}" for key, value in cell.items()) + f"-{seed}"


def world(tmp_path, *, truth=truth, cells=CELLS, seeds=range(5), noise=0.02, epochs=100, rng_seed=0, shared=0.3):
    """A collection of complete runs whose curves follow ``truth``; seeds shift a run, and all runs of a seed."""
    rng = np.random.default_rng(rng_seed)
    of_seed = {seed: rng.normal(0, shared) for seed in seeds}
    runs, rows = [], []
    for cell, seed in itertools.product(cells, seeds):
        settings = {**BASELINE, **cell}
        for option, owner in (("activ.approximate", "gelu"), ("loss.margin", "hinge")):
            if owner not in (settings["activ"], settings["loss"]):
                settings[option] = None
        identity = {"run": run_id(cell, seed), "state": "finished", "epoch": epochs, "target": epochs, "path": "none"}
        runs.append({**identity, **settings, "layers": 1, "seed": seed})
        final, tau, stuck = truth(cell)
        final += of_seed[seed] + rng.normal(0, noise)
        number = np.arange(1, epochs + 1)
        progress = 1 - np.exp(-np.maximum(number - stuck, 0) / tau)
        accuracy = 10 + (final - 10) * progress + rng.normal(0, noise, epochs)
        loss = math.log(10) * (1 - 0.9 * progress) + rng.normal(0, 1e-3, epochs)
        rows.append(
            pd.DataFrame(
                {"run": run_id(cell, seed), "epoch": number, "train_loss": loss, "train_acc": accuracy}
                | {"valid_loss": loss, "valid_acc": accuracy, "test_loss": loss, "test_acc": accuracy}
                | {"seconds": 1.0, "eval_seconds": 0.1}
            )
        )
    return Collection(pd.DataFrame(runs), pd.concat(rows, ignore_index=True), (), out=tmp_path)


def write_timing(tmp_path, seconds=None, *, share=0.99, rounds=5):
    """A timing.json in which each net takes ``seconds(activ, layers)``, with a per cent of noise."""
    rng = np.random.default_rng(0)
    nets = {}
    for name in timing_nets():
        activ, _, model = name.split("-")
        typical = (seconds or report_seconds)(activ, 1 if model == "360" else 2)
        nets[name] = {"seconds": list(typical * np.exp(rng.normal(0, 0.01, rounds)))}
    conditions = {"rounds": rounds, "steps": 30, "threads": 1, "cpu": "abacus", "date": "2020-10-04T00:00:00"}
    conditions |= {"load": [0.1, 0.1, 0.1], "cores": 2, "cpu_share": share}
    timing.path(tmp_path).write_text(json.dumps({"conditions": conditions, "nets": nets}))


def timing_nets():
    kinds = [(a, "ce") for a in ("relu", "gelu", "tanh", "sigmoid")] + [("relu", x) for x in ("hinge", "euclidean")]
    return [f"{activ}-{loss}-{model}" for activ, loss in kinds for model in ("360", "512x256")]


def report_seconds(activ, layers):
    one = {"relu": 3.47, "sigmoid": 5.17, "tanh": 5.0, "gelu": 9.49}[activ]
    return one * (1 if layers == 1 else 1.18 if activ == "relu" else 1.95)
