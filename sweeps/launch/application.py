"""An application with ``@hydra.main`` as a program: each job runs as under Hydra's own launcher."""

import contextlib
import importlib
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.launch.grid import value_of
from sweeps.launch.job import Job
from sweeps.launch.sending import dumps
from sweeps.runs.errors import InputError
from sweeps.runs.program import Program, main_file
from sweeps.runs.session import train
from sweeps.runs.status import Result, State


@dataclass(frozen=True)
class Task:
    """Runs the application's task function under Hydra's own ``run_job``; the configuration is composed already."""

    function: TaskFunction
    context: HydraContext

    def __call__(self, frozen: bytes) -> Any:
        """What the task function returned, or its exception."""
        config: DictConfig = pickle.loads(frozen)
        setup_globals()
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        with _current(config):
            try:
                ret = run_job(
                    hydra_context=self.context,
                    task_function=self.function,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            finally:
                configure_log(config.hydra.hydra_logging, config.hydra.verbose)
                root.handlers[:], root.level = handlers, level
        return ret.return_value

    def __reduce__(self) -> tuple[Any, ...]:
        """To a worker by reference where ``@hydra.main`` left it in a module, e.g. that of a console script."""
        module, name = getattr(self.function, "__module__", None), getattr(self.function, "__qualname__", "")
        if module != "__main__" and _decorated(module, name) is self.function:
            return _imported, (module, name, self.context)
        return Task, (self.function, self.context)


def _decorated(module: str | None, name: str) -> Any:
    return getattr(getattr(sys.modules.get(module or ""), name, None), "__wrapped__", None)


def _imported(module: str, name: str, context: HydraContext) -> Task:
    importlib.import_module(module)
    return Task(_decorated(module, name), context)


@contextlib.contextmanager
def _current(config: DictConfig) -> Iterator[None]:
    """The configuration that ``HydraConfig`` and ``${hydra:…}`` mean."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def application(function: TaskFunction, context: HydraContext, options: Mapping[str, Any]) -> Program:
    """The program of an application that does not use this package.

    Args:
        options: of the sweeper: ``budget``, ``ignore``, ``added``, ``renamed``, which the application cannot declare.
    """
    inner: Any = function
    while hasattr(inner, "func"):  # functools.partial, hydra-zen
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    main = main_file(inner)
    module = Path(main).stem if main else str(inner.__module__)
    return Program(
        Task(function, context), module.rpartition(".")[2].strip("_") or name, options.get("budget"),
        tuple(options.get("ignore") or ()), options.get("added") or {}, options.get("renamed") or {},
        origin=f"{module}:{name}", main=main,
    )  # fmt: skip


def sweep_dir(master: DictConfig) -> str | None:
    """Where Hydra puts the jobs of a sweep; None if its name contains the time, so that it could not be found again.

    A directory from the command line is kept, with or without the time.
    """
    asked = any(text.startswith("hydra.sweep.dir=") for text in master.hydra.overrides.hydra)
    with contextlib.suppress(OmegaConfBaseException, _Unresolvable), _unresolvable(*() if asked else ("now",)):
        return str(master.hydra.sweep.dir)
    return None


def freeze(config: DictConfig) -> bytes:
    """A composed configuration for a worker, with structured configs of ``__main__`` by value.

    Raises:
        InputError: something in it cannot be sent.
    """
    try:
        return dumps(config)
    except Exception as error:  # an object's own pickling can raise anything
        raise InputError("config", config.hydra.job.id, f"cannot be sent to a worker: {error}") from None


def described(frozen: bytes) -> JobReturn:
    """What Hydra's launcher reports of a job, except for its result."""
    config: DictConfig = pickle.loads(frozen)
    hydra = config.hydra
    with _current(config):
        directory = os.path.join(hydra.sweep.dir, str(hydra.sweep.subdir))
    changes = hydra.job.chdir if hydra.job.chdir is not None else not version.base_at_least("1.2")
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return JobReturn(
        cfg=task, hydra_cfg=OmegaConf.masked_copy(config, "hydra"), task_name=hydra.job.name,
        working_dir=directory if changes else os.getcwd(),
    )  # fmt: skip


def run_by_other(launcher: Launcher, program: Program, jobs: Sequence[Job]) -> list[Result]:
    """Run an application's jobs on a launcher that keeps no runs; each result is recorded when its job has ended.

    Hydra's basic launcher, which is serial, gets one at a time, so that a kill costs only one.
    """
    results: list[Result] = []
    batches = [[job] for job in jobs] if isinstance(launcher, BasicLauncher) else [list(jobs)]
    for batch in batches:
        returns = launcher.launch([_placed(job) for job in batch], len(results))
        results += [_kept(program, job, ret) for job, ret in zip(batch, returns, strict=True)]
    return results


def _placed(job: Job) -> list[str]:
    """A job's overrides, and the output directory that was planned for it."""
    sweep = pickle.loads(job.spec.config).hydra.sweep
    places = OmegaConf.to_container(sweep, resolve=False)
    assert isinstance(places, dict)
    return [*job.overrides, *(f"hydra.sweep.{key}={value_of(places[key])}" for key in ("dir", "subdir"))]


def _kept(program: Program, job: Job, ret: JobReturn) -> Result:
    assert isinstance(program.function, Task)
    returned = _Returned(program.function.function, program.function.context, ret)
    try:
        return train(replace(program, function=returned), job.spec)
    except Exception as error:
        print(f"{job.run_id} failed: {type(error).__name__}: {error}")
        return Result(job.run_id, job.run.path, State.FAILED, error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Returned(Task):
    """A task that has run already."""

    ret: JobReturn

    def __call__(self, frozen: bytes) -> Any:
        return self.ret.return_value


def identity_of(task: DictConfig) -> dict[str, Any]:
    """A composed configuration in plain types, interpolations resolved.

    What depends on the job or the time (``${hydra:…}``, ``${now:…}``) stays as it is written: it cannot be part of
    what finds the run again.
    """
    with _unresolvable("hydra", "now"):
        values = _plain(task)
    assert isinstance(values, dict)
    return values


def _plain(node: Any) -> Any:
    if isinstance(node, DictConfig):
        if node._is_none() or node._is_missing():
            return None
        return {str(key): _child(node, key) for key in node}
    if OmegaConf.is_list(node):
        return [] if node._is_none() else [_child(node, i) for i in range(len(node))]
    return node


def _child(parent: Any, key: Any) -> Any:
    if OmegaConf.is_missing(parent, key):
        return "???"
    if OmegaConf.is_interpolation(parent, key):
        raw = parent._get_node(key)._value()
        try:
            return _plain(parent[key])
        except (OmegaConfBaseException, _Unresolvable):
            return str(raw)
    return _plain(parent[key])


class _Unresolvable(Exception):
    pass


class _unresolvable:  # noqa: N801
    """Resolvers that raise for a while."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __enter__(self) -> None:
        from omegaconf.basecontainer import BaseContainer

        self._resolvers = BaseContainer._resolvers
        self._before = dict(self._resolvers)

        def refuse(*_: Any, **__: Any) -> Any:
            raise _Unresolvable

        for name in self._names:
            self._resolvers[name] = refuse

    def __exit__(self, *_: object) -> None:
        self._resolvers.clear()
        self._resolvers.update(self._before)
