"""A sweep from Python: any function over a grid, or a program with its Hydra configuration; returns tables."""

import contextlib
import io
import itertools
import math
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
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

from sweeps.launch.compose import composing, initialized, refuse_directories, unknown
from sweeps.launch.grid import refuse_too_many, value_of
from sweeps.launch.job import Job
from sweeps.launch.plugins import DECLARED, GridSweeper, SweepResult, pool
from sweeps.read.collect import Collection, load
from sweeps.runs import program as programs
from sweeps.runs.errors import InputError
from sweeps.runs.files import folder
from sweeps.runs.program import Program
from sweeps.runs.trackers import choice


def sweep(
    function: Program | Callable[..., Any],
    *what: Mapping[str, object] | str,
    out: str | Path = "outputs",
    epochs: int | None = None,
    workers: int | None = None,
    name: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> Collection:
    """Train every point of a grid that is not trained yet, and return their runs and epochs.

    >>> sweep(train, {"lr": [0.1, 0.01], "seed": range(5)}).runs[["lr", "seed", "result"]]
    >>> sweep(mlp.program, {"lr": [0.1, 0.01]}, "experiment=lr", "seed=0,1,2", epochs=3, workers=2)

    Blocks until all runs are done. Workers are processes, also in a notebook, and in a script without
    ``if __name__ == "__main__"``. Ctrl-C stops them at a checkpoint and raises KeyboardInterrupt; the same call
    continues.

    Args:
        function: ``function(cfg)`` or ``function(cfg, run)``; or a :class:`Program`.
        what: grids, of which the union is trained: key → its values, or one value for all. For a program with a Hydra
            configuration also overrides as on the command line, ``"lr=0.1,0.01"``, which every grid is crossed with.
        out: the results tree.
        epochs: of each run, where the program declares a budget; unless a grid says otherwise.
        workers: processes; None: as many as the cores allow.
        name: of the sweep, in ``out``/sweeps; made from the points if there is none.
        quiet: print nothing.
        options: for a plain function: ``budget``, ``ignore``, ``metric`` and so on, as for :func:`sweeps.program`;
            ``tracker``, ``code``, ``retries``, ``timeout``, ``on_error`` and ``detach`` as in the sweeper's and
            launcher's YAML.

    Returns:
        The runs of these points; as of ``epochs``, where all have the same. Failed runs are included, with a warning.

    Raises:
        InputError: a point cannot be used; nothing was trained.
        RuntimeError: every run failed; says why the first one did.
    """
    settings = {key: options.pop(key) for key in _SETTINGS if key in options}
    program: Program = programs.program(function, **options) if options else programs.program(function)
    train = _by_hydra if program.config else _by_grid
    try:
        with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
            swept = train(program, what, Path(out), epochs, workers, name, settings)
    except InputError as error:  # of an argument, by its name on the command line
        field = error.field.removeprefix("hydra.sweeper.").removeprefix("hydra.launcher.")
        if field == error.field:
            raise
        raise InputError(field, error.value, error.allowed) from None
    return _collected(swept, Path(out))


_RETRAIN = 'code="retrain"'
_SETTINGS = ("tracker", "code", "retries", "timeout", "on_error", "detach")


def _by_grid(
    program: Program, what: Any, out: Path, epochs: int | None, workers: int | None, name: str | None, settings: Any
) -> SweepResult:
    """Points from mappings alone, without Hydra's composition."""
    if epochs is not None and program.budget is None:
        raise InputError("epochs", epochs, 'is not known to this function; declare budget="epochs"')
    tracker = choice(settings.get("tracker", "none"))
    jobs: dict[str, Job] = {}
    grids: tuple[Any, ...] = what or ({},)
    for grid in grids:
        if not isinstance(grid, Mapping):
            raise InputError(
                "sweep", grid, "must be a mapping of keys to values; overrides are for a Hydra configuration"
            )
        for overrides, values in _points(grid):
            if epochs is not None and program.budget and program.budget not in grid:
                _put(values, program.budget, epochs)
            spec = program.spec(values, out=out)
            known = jobs.get(spec.run_id)
            if known is None or known.spec.epochs < spec.epochs:
                jobs[spec.run_id] = Job(overrides, replace(spec, tracker=tracker))
    policy = {"retries": 1, "timeout": None, "on_error": "continue"}
    policy |= {key: value for key, value in settings.items() if key in policy}
    launcher = pool(workers, 1, settings.get("detach", False), **policy)
    declared: dict[str, Any] = dict.fromkeys(DECLARED)
    declared |= {"out": str(out), "code": settings.get("code", "warn")}
    sweeper = GridSweeper({}, None, None, False, **declared)
    sweeper.check_options()
    sweeper.retrain = _RETRAIN
    sweeper.program = launcher.program = program
    sweeper.launcher = launcher
    named = name or sweeper.name_of([key for grid in what for key in grid], list(jobs.values()))
    return sweeper.run_jobs(list(jobs.values()), named, [Path(sys.argv[0]).name or "python"])


def _points(grid: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every combination, the last key the fastest."""
    axes = []
    for key, value in grid.items():
        if isinstance(value, range):
            refuse_too_many(key, len(value), str(value))
        plain = _plain(value)
        if isinstance(plain, list) and not plain:
            raise InputError(key, plain, "must have at least one value")
        axes.append([(str(key), item) for item in (plain if isinstance(plain, list) else [plain])])
    refuse_too_many("points", math.prod(map(len, axes)))
    for combination in itertools.product(*axes):
        values: dict[str, Any] = {}
        for key, item in combination:
            _put(values, key, item)
        yield tuple(f"{key}={value_of(item)}" for key, item in combination), values


def _put(values: dict[str, Any], key: str, item: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(key, item, f"cannot be within {parent}, which has a value of its own")
    values[last] = item


def _by_hydra(
    program: Program, what: Any, out: Path, epochs: int | None, workers: int | None, name: str | None, settings: Any
) -> SweepResult:
    """As the program's command line does with ``--multirun``."""
    overrides = [word for word in what if isinstance(word, str)]
    grids = [_plain(grid) for grid in what if not isinstance(grid, str)]
    arguments = {
        "out": str(out),
        program.budget or "epochs": epochs,
        "hydra.launcher.workers": workers,
        "hydra.sweeper.name": name,
        **{f"hydra.sweeper.{key}": settings.get(key) for key in ("code", "tracker")},
        **{f"hydra.launcher.{key}": settings.get(key) for key in ("retries", "timeout", "on_error", "detach")},
    }
    for key, value in arguments.items():
        if value is not None:
            if any(word.startswith(f"{key}=") for word in overrides):
                raise InputError(key, value, "is given twice; leave it to the argument")
            overrides.append(f"{key}={value_of(value)}")
    overrides += [f"+hydra.sweeper.grids.given{number}={value_of(grid)}" for number, grid in enumerate(grids, start=1)]
    refuse_directories(overrides, "out")
    assert program.config
    config_dir, config_name = program.config

    def task(_config: DictConfig) -> JobReturn:
        raise AssertionError("the launchers train by themselves")

    task.program = program  # type: ignore[attr-defined]
    try:
        with initialized(Path(config_dir)) as hydra, composing():
            config = hydra.compose_config(config_name, overrides, RunMode.MULTIRUN, from_shell=False)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=context,
                task_function=task,
                config=config,
            )
        if not isinstance(sweeper, GridSweeper):
            raise InputError("hydra/sweeper", type(sweeper).__name__, "must be grid")
        sweeper.retrain = _RETRAIN
        said = [str(word) for word in config.hydra.overrides.task]
        module = program.function.__module__
        return sweeper.run(said, ["python", "-m", module, "--multirun", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        blamed = error.__cause__ if isinstance(error.__cause__, InputError) else unknown(error)
        raise blamed or InputError("sweep", shlex.join(overrides), str(error).strip().splitlines()[0]) from None


def _collected(swept: SweepResult, out: Path) -> Collection:
    if swept.status > 128:
        if swept.status - 128 == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(swept.status)
    if swept.manifest is None:
        raise InputError("sweep", "", "has nothing to run")
    failed = [f"{result.run_id}: {result.error}" for result in swept.results if result.state == "failed"]
    if failed and len(failed) == len(swept.results):
        raise RuntimeError(f"all {len(failed)} runs failed; the first: {failed[0]}")
    targets = {job.spec.epochs for job in swept.jobs}
    as_of = next(iter(targets)) if len(targets) == 1 and targets != {1} else None
    folder(out, "runs")  # of a sweep that is left there may be none yet
    found = load(out, sweep=swept.manifest.name, epochs=as_of)
    ids = {job.run_id for job in swept.jobs}  # a manifest may know of more
    runs, rows = found.runs, found.epochs
    runs = runs[runs["run"].isin(ids)].reset_index(drop=True)
    if failed:
        warnings.warn(f"{len(failed)} of {len(ids)} runs failed: {'; '.join(failed)}", RuntimeWarning, stacklevel=3)
    return replace(found, runs=runs, epochs=rows[rows["run"].isin(ids)].reset_index(drop=True))


def _plain(value: object) -> Any:
    """NumPy's numbers and arrays, and ranges, as lists and numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    return value
