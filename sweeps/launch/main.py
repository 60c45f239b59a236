"""The command line of a program: one run, or with ``--multirun`` a sweep, composed by Hydra.

Exit status: 0 finished or diverged (both are results), 1 failed, 2 unusable input, 130 / 143 interrupted by SIGINT /
SIGTERM.
"""

import contextlib
import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import sweeps
from sweeps.launch.compose import plain, refuse_directories, refuse_unnamed_choices, unknown, unknown_key, unreadable
from sweeps.runs import command, progress
from sweeps.runs import program as programs
from sweeps.runs.command import fail, started_with
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.program import Program, RunSpec
from sweeps.runs.session import train
from sweeps.runs.status import Result
from sweeps.runs.trackers import choice

_OURS = {
    "hydra/sweeper": "grid",
    "hydra/launcher": "pool",
    "hydra.run.dir": "${run_dir:}",
    "hydra.job.chdir": "false",
}
_DRY = {
    "hydra.sweeper.dry_run": "true",
    "hydra.run.dir": "${no_dir:}",
    "hydra.output_subdir": "null",
    "hydra/job_logging": "none",
}


def main(
    *, config_path: str | None = None, config_name: str | None = None, **declared: Any
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """A decorator like ``@hydra.main`` for a training function ``train(cfg, run)``; calling it is the command line.

    Args:
        config_path: the directory of the configuration, relative to the function's file.
        declared: as for :func:`sweeps.program`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[[], None]:
        program: Program = programs.program(**declared)(function)
        folder = Path(inspect.getfile(function)).resolve().parent
        path = str(folder / config_path) if config_path is not None and "://" not in config_path else config_path
        return command_line(program, config_path=path, config_name=config_name)

    return decorate


def command_line(
    program: Program,
    *,
    config_path: str | None,
    config_name: str | None,
    own_directory: bool = False,
    name: str | None = None,
) -> Callable[[], None]:
    """The program's ``main()``; errors that the user can fix are printed on one screen.

    Args:
        own_directory: the configuration itself names the run's directory by ``${run_id:}``, and our sweeper.
        name: of the command that is installed with this package, whose version ``--version`` then shows.
    """
    results: list[Result] = []  # Hydra's main returns nothing

    def task(cfg: DictConfig) -> Result | None:
        with contextlib.chdir(HydraConfig.get().runtime.cwd):  # which relative paths mean, with hydra.job.chdir too
            spec = _spec(program, cfg, HydraConfig.get().sweeper)
            if HydraConfig.get().sweeper.get("dry_run"):
                _show_plan(program, spec)
                return None
        with progress.epochs(spec.epochs, program.describe) as show:
            result = train(program, spec, on_epoch=show)
        print(progress.summary(result, spec.epochs, program.describe))
        results.append(result)
        return result

    functools.update_wrapper(task, program.function)
    task.program = program  # type: ignore[attr-defined]
    run = hydra.main(config_path=config_path, config_name=config_name, version_base="1.3")(task)

    def answer(words: Sequence[str]) -> None:
        """``--version`` and ``--help`` end the process."""
        if name and "--version" in words:
            print(name, sweeps.__version__)
            sys.exit()
        file = Path(config_path or "", f"{config_name}.yaml")
        if {"--help", "-h"} & {*words} and file.is_file():  # without a file, use Hydra's own help
            from sweeps.launch import usage

            print(usage.text(name or shlex.join(started_with()[: -len(words)]), file))
            sys.exit()

    @functools.wraps(program.function)
    def main() -> None:
        traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through to here
        words = sys.argv[1:]
        try:
            with command.working(lasting=True):
                answer(words)
                _register(program)
                sys.argv[1:] = _completed(words, own_directory)
                _refuse_deleted_directory()
                refuse_directories(words, "out" if own_directory else "hydra.sweeper.out")
                if config_path and "://" not in config_path:
                    refuse_unnamed_choices(words, Path(config_path))
                run()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if traceback_wanted:
                raise
            sys.exit(_report(error, program))
        signum = results[-1].signal if results else None
        sys.exit(128 + signum if signum else 0)

    main.program = program  # type: ignore[attr-defined]
    return main


def _refuse_deleted_directory() -> None:
    """Hydra needs the working directory."""
    try:
        os.getcwd()
    except FileNotFoundError:
        sys.exit(fail("the working directory has been deleted; cd to another", 2))


def _completed(words: Sequence[str], own_directory: bool) -> list[str]:
    """The command line, with the overrides that a configuration needs which does not choose our plugins.

    A dry run of one run is a run whose task shows the plan; Hydra creates no directory and no file for it.
    """
    dry = {"--dry-run", "hydra.sweeper.dry_run=true"}
    given = [word for word in words if word not in dry]
    wanted = {} if own_directory else _OURS
    if len(given) < len(words):
        wanted = wanted | _DRY
    keys = {word.lstrip("+~").partition("=")[0] for word in given}
    ours = [f"{key}={value}" for key, value in wanted.items() if key not in keys]
    overrides = (i for i, word in enumerate(given) if word[:1] == "~" or (word[:1] != "-" and "=" in word))
    place = next(overrides, len(given))  # beside the user's: Hydra's parser wants all of them in one place
    return [*given[:place], *ours, *given[place:]]


def _show_plan(program: Program, spec: RunSpec) -> None:
    """Print what a sweep of this one run would print."""
    from sweeps.launch.job import Job
    from sweeps.launch.plan import split
    from sweeps.launch.plugins import describe, plan_line, reconcile

    jobs = [Job(tuple(HydraConfig.get().overrides.task), spec)]
    ended, left = reconcile(program, "ignore", *split(jobs, program), jobs)
    print(describe(spec.run_id, program, jobs, ended, left, None), plan_line(jobs[0], ended), sep="\n")


def _spec(program: Program, cfg: DictConfig, sweeper: DictConfig) -> RunSpec:
    """The run of a configuration, in the results tree and with the tracker that a sweep of it would have."""
    spec = program.spec(plain(cfg), out=sweeper.get("out") or "outputs")
    tracker = sweeper.get("tracker")
    if tracker is None:
        return spec
    return replace(spec, tracker=choice(OmegaConf.to_container(tracker) if OmegaConf.is_config(tracker) else tracker))


def _register(program: Program) -> None:
    """``${run_id:}`` and ``${run_dir:}``: name the run, and check everything before Hydra makes its directory.

    ``${no_dir:}`` checks, and makes Hydra create none.
    """

    def spec(root: DictConfig) -> Any:
        found = _spec(program, root, root.hydra.sweeper)
        found.run.refuse_links()  # Hydra writes there, too
        return found

    def run_id(*, _root_: DictConfig) -> str:
        return str(spec(_root_).run_id)

    def run_dir(*, _root_: DictConfig) -> str:
        return str(spec(_root_).run.path)

    def no_dir(*, _root_: DictConfig) -> str:
        spec(_root_)
        return "."

    OmegaConf.register_new_resolver("no_dir", no_dir, replace=True)
    OmegaConf.register_new_resolver("run_id", run_id, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def _report(error: Exception, program: Program) -> int:
    """Print the root of an error; 2 if the input is to blame, 1 if not."""
    chain = list(_causes(error))
    status = 2
    blamed = next(filter(None, (cause if isinstance(cause, InputError) else unknown(cause) for cause in chain)), None)
    blamed = blamed or unreadable(error)
    if blamed:
        message = str(blamed)
        if program.prepare is None and any(map(unknown_key, chain)):
            message += f"; +{blamed.field}={blamed.value} adds it"
    elif isinstance(error, OverrideParseException):
        message = f"{error.override}: {error.message.splitlines()[0]}"
    elif isinstance(error, (HydraException, OmegaConfBaseException)):
        message = str(error).strip()
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"out: {error.filename}: {error.strerror}"
    elif isinstance(error, DamagedRun):
        message, status = str(error), 1
    else:
        message = f"{type(error).__name__}: {error}\nHYDRA_FULL_ERROR=1 shows the traceback"
        status = 1
    return fail(message, status)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
