"""Statistics per layer, and the network itself, from a run's files. Nothing in them is trusted.

layer_stats   stats.csv of many runs as one table
restore       config.yaml + checkpoint.npz → the initial and the trained parameters, ready to be evaluated
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mlp import model, stats
from mlp.activations import Floats
from mlp.config import RunConfig
from mlp.data import Dataset, load
from mlp.stats import LayerStats
from mlp.trainer import Trainer
from sweeps.read.collect import Collection
from sweeps.runs import checkpoint
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun
from sweeps.runs.files import read_file
from sweeps.runs.reading import check_events, read_identity


def layer_stats(collection: Collection) -> pd.DataFrame:
    """One row for each run, epoch and layer: ``run``, then the fields of :class:`mlp.stats.LayerStats`.

    Runs without stats.csv have none; later epochs than the collection's are left out.

    Raises:
        DamagedRun: a file is not what it should be.
    """
    rows = []
    for name, epochs in zip(collection.runs["run"], collection.runs["epoch"], strict=True):
        run = RunDir.of(collection.out, name)
        if stats.path_of(run).exists():
            rows += [(name, *row) for row in stats.read(run) if row.epoch <= epochs]
    return pd.DataFrame(rows, columns=["run", *LayerStats._fields])


@dataclass(frozen=True)
class Trained:
    """A run's network with its initial and trained parameters."""

    config: RunConfig
    dataset: Dataset
    trainer: Trainer
    """Holds the trained parameters; evaluates those that are in ``trainer.network.theta``."""
    initial: Floats
    """θ before the first step, made from the seed."""
    epoch: int
    """Epochs of the trained parameters."""


def restore(run: RunDir) -> Trained:
    """A run's network from its checkpoint.

    Raises:
        DamagedRun: the configuration or checkpoint is missing, damaged, or another network's.
        InputError: its data are missing or have changed, or its checkpoint was removed.
    """
    config = _config(run)
    dataset = load(config.data.name, config.data.options)
    trainer = Trainer(config, dataset)
    initial = trainer.network.theta.copy()
    if not run.checkpoint.exists():
        checkpoint.refuse_pruned(run)
        raise DamagedRun(f"{run.checkpoint}: missing")
    saved = model.load(run)
    theta = model.network_of(saved.parameters, config.activ, config.dtype).theta
    if theta.shape != initial.shape:
        raise DamagedRun(f"{run.checkpoint}: not a network of its data")
    if not np.isfinite(theta).all():
        raise DamagedRun(f"{run.checkpoint}: its parameters are not finite")
    trainer.network.theta[:] = theta
    return Trained(config, dataset, trainer, initial, saved.epoch)


def _config(run: RunDir) -> RunConfig:
    """From the identity; the path of the data is not in it, and the data found must be the same."""
    identity = read_identity(run)
    try:
        values = {key: dict(value) if isinstance(value, dict) else value for key, value in identity.items()}
        values |= {key: values["optim"].pop(key) for key in ("lr", "wd", "mo")}
        values["data"].pop("checksums")
        values["data"] = {"holdout_seed": 0, **_data_path(run), **values["data"]}
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedRun(f"{run.config}: not a run's configuration ({error})") from None
    values |= {"epochs": 1, "out": str(run.path.parent.parent), "checkpoint_every": 1, "threads": None}
    values |= {"stats": False, "tracker": {"name": "none"}}
    config = RunConfig.from_mapping(values)
    if config.run_id != run.path.name:
        raise DamagedRun(f"{run.path}: its data have changed since it was trained")
    return config


def _data_path(run: RunDir) -> dict[str, Any]:
    """``data.path`` as Hydra recorded it; nothing for data that need none."""
    path = run.path / ".hydra" / "config.yaml"
    try:
        raw = read_file(path, 2**16)
        check_events(raw)
        value = yaml.safe_load(raw)["data"]["path"]
    except (DamagedRun, OSError, yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {"path": value}
