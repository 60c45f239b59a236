"""What a run holds beside its metrics: statistics per layer, and the network itself. Nothing in it is trusted.

layer_stats   stats.csv of many runs as one table
restore       config.yaml + checkpoint.npz → the initial and the trained parameters, ready to be evaluated
"""

import stat
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mlp import checkpoint
from mlp.activations import Floats
from mlp.config import RunConfig
from mlp.data import Dataset, load
from mlp.reading import check_events, read_identity
from mlp.runs import DamagedRun, LayerStats, RunDir
from mlp.trainer import Trainer
from sweeps.read.collect import Collection

_LARGEST = 64 * 2**20  # bytes of a text file


def layer_stats(collection: Collection) -> pd.DataFrame:
    """One row for each run, epoch and layer: ``run``, then the fields of :class:`mlp.runs.LayerStats`.

    Runs without stats.csv have none, and what lies beyond the collection's own last epoch is left out.

    Raises:
        DamagedRun: a file is not what it should be.
    """
    rows = []
    for name, epochs in zip(collection.runs["run"], collection.runs["epoch"], strict=True):
        run = RunDir.of(collection.out, name)
        if run.stats.exists():
            _check_file(run.stats, _LARGEST)
            rows += [(name, *row) for row in run.read_stats() if row.epoch <= epochs]
    return pd.DataFrame(rows, columns=["run", *LayerStats._fields])


@dataclass(frozen=True)
class Trained:
    """A run's network at both ends of its training."""

    config: RunConfig
    dataset: Dataset
    trainer: Trainer
    """Holds the trained parameters; evaluates whatever is put into ``trainer.network.theta``."""
    initial: Floats
    """θ before the first step, made again from the seed."""
    epoch: int
    """Epochs behind the trained parameters."""


def restore(run: RunDir) -> Trained:
    """A run's network from its checkpoint.

    Raises:
        DamagedRun: configuration or checkpoint are missing, damaged, or of another network.
        InputError: the data that it was trained on are not there, or have changed.
    """
    config = _config(run)
    dataset = load(config.data.name, config.data.options)
    sizes = (dataset.features, *config.hidden, dataset.classes)
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    _check_checkpoint(run.checkpoint, parameters * np.dtype(config.dtype).itemsize)
    trainer = Trainer(config, dataset)
    initial = trainer.network.theta.copy()
    try:
        history = checkpoint.load(run.checkpoint, trainer.network, trainer.optimizer)
    except MemoryError:
        raise DamagedRun(f"{run.checkpoint}: damaged checkpoint (it claims to be larger than it is)") from None
    if not np.isfinite(trainer.network.theta).all():
        raise DamagedRun(f"{run.checkpoint}: its parameters are not finite")
    return Trained(config, dataset, trainer, initial, len(history))


def _config(run: RunDir) -> RunConfig:
    """From the identity; only the data's place is not in it, and the data found there must be the same."""
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
        _check_file(path, 2**16)
        raw = path.read_bytes()
        check_events(raw)
        value = yaml.safe_load(raw)["data"]["path"]
    except (DamagedRun, OSError, yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {"path": value}


def _check_checkpoint(path: Path, parameter_bytes: int) -> None:
    """Before anything is allocated: as large as its network, and not compressed, so that it cannot blow up."""
    _check_file(path, 2**40)
    if path.stat().st_size < parameter_bytes:
        raise DamagedRun(f"{path}: damaged checkpoint (smaller than its network)")
    try:
        with zipfile.ZipFile(path) as file:
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None
    if not stored:
        raise DamagedRun(f"{path}: damaged checkpoint (compressed; none of ours is)")


def _check_file(path: Path, largest: int) -> None:
    try:
        info = path.stat()
    except OSError as error:
        raise DamagedRun(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(info.st_mode) or info.st_size > largest:
        raise DamagedRun(f"{path}: not a regular file of a run's size")
