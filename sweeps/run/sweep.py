"""A sweep from Python: the command line's own planner, pool and results tree, and a Collection of what came of it."""

import contextlib
import io
import shlex
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mlp.composition import initialized
from mlp.schema import InputError
from sweeps.read.collect import Collection, load
from sweeps.run.grid import value_of
from sweeps.run.plugins import GridSweeper, Swept


def sweep(
    *what: Mapping[str, object] | str,
    out: str | Path = "outputs",
    epochs: int | None = None,
    workers: int | None = None,
    name: str | None = None,
    quiet: bool = False,
) -> Collection:
    """Train every point of a grid that is not trained yet, and return their runs and epochs.

    >>> sweep({"lr": [0.1, 0.01], "activ": ["relu", "gelu"]}, epochs=3).runs[["lr", "activ", "test_acc"]]
    >>> sweep("experiment=lr", "seed=0,1,2", workers=2)

    Blocks until all is done. Workers are processes of their own, also in a notebook, and in a script without
    ``if __name__ == "__main__"``. Ctrl-C stops them at a checkpoint and raises KeyboardInterrupt; the same call again
    goes on.

    Args:
        what: grids as under ``hydra.sweeper.grids`` in an experiment, of which the union is trained; and words of the
            command line, ``"lr=0.1,0.01"``, which every grid is crossed with.
        out: the results tree.
        epochs: of each run, unless a grid says otherwise.
        workers: processes; None is as many as the cores hold.
        name: of the sweep, in ``out``/sweeps; made from the points if there is none.
        quiet: print nothing.

    Returns:
        The runs of these points; as of ``epochs``, where all have the same. What failed is in it too, and warned of.

    Raises:
        InputError: a point cannot be used; nothing was trained.
    """
    words = [word for word in what if isinstance(word, str)]
    grids = [_plain(grid) for grid in what if not isinstance(grid, str)]
    for key in ("out", "epochs", "hydra.launcher.workers", "hydra.sweeper.name"):
        given = {"out": out, "epochs": epochs, "hydra.launcher.workers": workers, "hydra.sweeper.name": name}[key]
        if given is not None:
            if any(word.startswith(f"{key}=") for word in words):
                raise InputError(key, given, "is given twice; leave it to the argument")
            words.append(f"{key}={value_of(given if isinstance(given, int) else str(given))}")
    words += [f"+hydra.sweeper.grids.given{number}={value_of(grid)}" for number, grid in enumerate(grids, start=1)]

    swept = _run(words, quiet)
    if swept.status > 128:
        if swept.status - 128 == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(swept.status)
    if swept.manifest is None:
        raise InputError("sweep", shlex.join(words), "has nothing to run")
    points = [item.point for item in swept.ended]
    targets = {point.config.epochs for point in points}
    found = load(out, sweep=swept.manifest.name, epochs=targets.pop() if len(targets) == 1 else None)
    ids = {point.run_id for point in points}  # a manifest may know of more
    runs, rows = found.runs, found.epochs
    runs = runs[runs["run"].isin(ids)].reset_index(drop=True)
    failed = [f"{item.point.run_id}: {item.outcome.error}" for item in swept.ended if item.outcome.state == "failed"]
    if failed:
        warnings.warn(f"{len(failed)} of {len(points)} runs failed: {'; '.join(failed)}", RuntimeWarning, stacklevel=2)
    return replace(found, runs=runs, epochs=rows[rows["run"].isin(ids)].reset_index(drop=True))


def _run(words: list[str], quiet: bool) -> Swept:
    """What ``python -m mlp.train --multirun`` does with the words."""
    try:
        with initialized() as hydra:
            config = hydra.compose_config("config", words, RunMode.MULTIRUN, from_shell=False)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=_task, config=config)
        if not isinstance(sweeper, GridSweeper):
            raise InputError("hydra/sweeper", type(sweeper).__name__, "must be grid")
        arguments = [str(word) for word in config.hydra.overrides.task]
        with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
            return sweeper.run(arguments, ["python", "-m", "mlp.train", "--multirun", *words])
    except (HydraException, OmegaConfBaseException) as error:
        blamed = error.__cause__ if isinstance(error.__cause__, InputError) else None
        raise blamed or InputError("sweep", shlex.join(words), str(error).strip().splitlines()[0]) from None


def _task(_config: DictConfig) -> JobReturn:
    raise AssertionError("the launchers train by themselves")


def _plain(value: object) -> Any:
    """NumPy's numbers and arrays, and ranges, as lists and numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    return value
