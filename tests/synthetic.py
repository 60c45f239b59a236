"""Complete run directories without the training: made up, but in every file as their programs write them.

python tests/synthetic.py OUT COUNT EPOCHS
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import yaml

from mlp.config import RunConfig
from mlp.epochs import Epoch
from mlp.training import program
from sweeps.runs import metrics
from sweeps.runs.directory import RunDir
from sweeps.runs.identity import digest
from sweeps.runs.metrics import Row
from sweeps.runs.status import State, Status, now

_PROVENANCE = {
    "started": now(),
    "from_epoch": 0,
    "source_sha256": "0" * 64,
    "git_commit": "1" * 40,
    "git_dirty": False,
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6"},
    "platform": "Linux",
    "cpu": "synthetic",
    "blas": [{"internal_api": "openblas", "version": "0.3.31", "architecture": "Haswell"}],
    "threads": 1,
}
_ACTIVATIONS = (
    {"name": "relu"},
    {"name": "sigmoid"},
    {"name": "gelu", "approximate": "tanh"},
    {"name": "tanh"},
)
_LOSSES = ({"name": "ce"}, {"name": "euclidean"}, {"name": "hinge", "margin": 0.05})
_BASE = {
    "model": {"hidden": [360], "init_std": 0.01},
    "activ": {"name": "relu"},
    "loss": {"name": "ce"},
    "optim": {"name": "sgd"},
    "data": {"name": "mnist", "holdout": 0, "holdout_seed": 0},
    "lr": 0.01,
    "wd": 0.001,
    "mo": 0.9,
    "bsz": 200,
    "seed": 0,
    "dtype": "float32",
    "eval_train": "running",
    "epochs": 100,
    "out": "outputs",
    "checkpoint_every": 1,
    "threads": 1,
    "stats": False,
    "tracker": {"name": "none"},
}


def history(epochs: int, *, seed: int = 0, level: float = 98.0) -> list[Epoch]:
    """A learning curve that approaches ``level`` percent."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(1, epochs + 1)
    acc = level - 20 / numbers + rng.normal(0, 0.05, epochs)
    loss = 0.05 + 1 / numbers + rng.normal(0, 0.001, epochs)
    seconds = 0.9 + rng.normal(0, 0.01, epochs)
    rows = zip(numbers, loss, acc + 1, loss + 0.02, acc, loss + 0.02, acc, seconds, seconds / 10, strict=True)
    return [Epoch(int(number), *map(float, values)) for number, *values in rows]


def make_run(
    out: Path, *, epochs: int = 3, target: int | None = None, state: str = "finished", rows=None, error=None, **changes
) -> RunDir:
    """One directory; ``changes`` are top-level keys of the configuration, e.g. ``activ={"name": "gelu", …}``."""
    config = RunConfig.from_mapping(_BASE | changes)
    run = RunDir.of(Path(out), config.run_id)
    run.path.mkdir(parents=True)
    run.config.write_bytes(yaml.dump(config.identity, Dumper=yaml.CSafeDumper, sort_keys=False).encode())
    rows = history(epochs, seed=config.seed) if rows is None else rows
    status = Status.new(
        State(state), epoch=len(rows), target=target or epochs, started=now(), error=error,
        program=program.source, metric=program.metric, maximize=program.maximize,
    )  # fmt: skip
    return _write(run, [Row(row._asdict()) for row in rows], Epoch._fields, status)


def make_other(
    out: Path, config: dict, columns: dict[str, list[float]], *, program: str = "other:train",
    metric: str | None = None, maximize: bool = True, state: str = "finished", target: int | None = None,
) -> RunDir:  # fmt: skip
    """A run of any program: any configuration, and ``columns`` of metrics, a value for each epoch."""
    run = RunDir.of(Path(out), f"{program.rpartition(':')[2]}-{digest(config)[:10]}")
    run.path.mkdir(parents=True)
    run.write_config(config)
    rows = [Row(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [Row(epoch=epoch, **row) for epoch, row in enumerate(rows, start=1)]
    status = Status.new(
        State(state), epoch=len(rows), target=target or len(rows) or 1, started=now(), program=program, metric=metric,
        maximize=maximize,
    )  # fmt: skip
    return _write(run, rows, ("epoch", *columns), status)


def _write(run: RunDir, rows, names, status: Status) -> RunDir:
    run.metrics.write_bytes(metrics.table(rows, names))
    run.status.write_text(json.dumps(vars(status), indent=2) + "\n")
    run.provenance.write_text(json.dumps({"sessions": [_PROVENANCE]}, indent=1) + "\n")
    return run


def make_report(out: Path, *, epochs: int = 3, seeds: int = 3) -> None:
    """The report's 21 configurations, each with seeds 0, 1, …"""
    mlp1, mlp2 = _BASE["model"], {"hidden": [512, 256], "init_std": 0.01}
    points = [{"model": model, "activ": activ} for model in (mlp1, mlp2) for activ in _ACTIVATIONS]
    points += [{"model": model, "loss": loss} for model in (mlp1, mlp2) for loss in _LOSSES[1:]]
    points += [{"lr": lr} for lr in (0.1, 0.001, 0.0001)]
    points += [{"wd": wd} for wd in (0.0, 0.01, 0.1)] + [{"mo": mo} for mo in (0.0, 0.1, 0.5)]
    for point, seed in itertools.product(points, range(seeds)):
        make_run(out, epochs=epochs, seed=seed, **point)


def make_runs(out: Path, count: int, epochs: int) -> None:
    """``count`` different runs: activations × losses × learning rates, and as many seeds as it takes."""
    rates = (0.1, 0.01, 0.001, 0.0001)
    points = list(itertools.product(_ACTIVATIONS, _LOSSES, rates))
    for i in range(count):
        activ, loss, lr = points[i % len(points)]
        make_run(out, epochs=epochs, seed=i // len(points), activ=activ, loss=loss, lr=lr)


if __name__ == "__main__":
    make_runs(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
