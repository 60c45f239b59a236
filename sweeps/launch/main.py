"""The command line of a program: one run, or with ``--multirun`` a sweep, composed by Hydra.

Exit status: 0 finished or diverged (both are results), 1 failed, 2 unusable input, 130 / 143 interrupted by SIGINT /
SIGTERM.
"""

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.launch.compose import plain, refuse_unnamed_choices, unreadable
from sweeps.runs import command, progress
from sweeps.runs import program as programs
from sweeps.runs.command import fail
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.program import Program, RunSpec
from sweeps.runs.schema import suggest
from sweeps.runs.session import train
from sweeps.runs.status import Result
from sweeps.runs.trackers import choice


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
    keys: Iterable[str] = (),
    own_directory: bool = False,
) -> Callable[[], None]:
    """The program's ``main()``; errors that the user can mend are said on one screen.

    Args:
        keys: of the configuration, to suggest one for a misspelt key.
        own_directory: the configuration itself names the run's directory by ``${run_id:}``, and our sweeper.
    """
    results: list[Result] = []  # Hydra's main returns nothing

    def task(cfg: DictConfig) -> Result:
        with contextlib.chdir(HydraConfig.get().runtime.cwd):  # which relative paths mean, with hydra.job.chdir too
            spec = _spec(program, cfg, HydraConfig.get().sweeper)
        with progress.epochs(spec.epochs, program.describe) as show:
            result = train(program, spec, on_epoch=show)
        print(progress.summary(result, spec.epochs, program.describe))
        results.append(result)
        return result

    functools.update_wrapper(task, program.function)
    task.program = program  # type: ignore[attr-defined]
    run = hydra.main(config_path=config_path, config_name=config_name, version_base="1.3")(task)

    @functools.wraps(program.function)
    def main() -> None:
        command.begin(lasting=True)
        _register(program)
        traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through to here
        words = ["hydra.sweeper.dry_run=true" if word == "--dry-run" else word for word in sys.argv[1:]]
        sys.argv[1:] = words if own_directory else _with_ours(words)
        try:
            os.getcwd()
        except FileNotFoundError:  # which Hydra wants to know
            sys.exit(fail("the working directory has been deleted; cd to another", 2))
        try:
            if config_path and "://" not in config_path:
                refuse_unnamed_choices(words, Path(config_path))
            run()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if traceback_wanted:
                raise
            sys.exit(_report(error, keys))
        signum = results[-1].signal if results else None
        sys.exit(128 + signum if signum else 0)

    main.program = program  # type: ignore[attr-defined]
    return main


def _with_ours(words: list[str]) -> list[str]:
    """The command line, with what a configuration that says nothing of us needs, unless it says otherwise itself."""
    given = {word.lstrip("+~").partition("=")[0] for word in words}
    wanted = {
        "hydra/sweeper": "grid",
        "hydra/launcher": "pool",
        "hydra.run.dir": "${run_dir:}",
        "hydra.job.chdir": "false",
    }
    ours = [f"{key}={value}" for key, value in wanted.items() if key not in given]
    overrides = (i for i, word in enumerate(words) if word[:1] == "~" or (word[:1] != "-" and "=" in word))
    place = next(overrides, len(words))  # beside the user's: Hydra's parser wants all of them in one place
    return [*words[:place], *ours, *words[place:]]


def _spec(program: Program, cfg: DictConfig, sweeper: DictConfig) -> RunSpec:
    """The run of a configuration, in the results tree and with the tracker that a sweep of it would have."""
    spec = program.spec(plain(cfg), out=sweeper.get("out") or "outputs")
    tracker = sweeper.get("tracker")
    if tracker is None:
        return spec
    return replace(spec, tracker=choice(OmegaConf.to_container(tracker) if OmegaConf.is_config(tracker) else tracker))


def _register(program: Program) -> None:
    """``${run_id:}`` and ``${run_dir:}``: name the run, and check everything before Hydra makes its directory."""

    def spec(root: DictConfig) -> Any:
        found = _spec(program, root, root.hydra.sweeper)
        found.run.refuse_links()  # Hydra writes there, too
        return found

    def run_id(*, _root_: DictConfig) -> str:
        return str(spec(_root_).run_id)

    def run_dir(*, _root_: DictConfig) -> str:
        return str(spec(_root_).run.path)

    OmegaConf.register_new_resolver("run_id", run_id, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def _report(error: Exception, keys: Iterable[str]) -> int:
    """Print the root of an error; 2 if the input is to blame, 1 if not."""
    chain = list(_causes(error))
    status = 2
    blamed = next((cause for cause in chain if isinstance(cause, InputError)), None) or unreadable(error)
    if blamed:
        message = str(blamed)
    elif isinstance(error, OverrideParseException):
        message = f"{error.override}: {error.message.splitlines()[0]}"
    elif isinstance(error, (HydraException, OmegaConfBaseException)):
        message = str(error).strip()
        for cause in chain:
            if isinstance(cause, OmegaConfBaseException) and cause.full_key:
                message += suggest(cause.full_key.rpartition(".")[2], keys)
                break
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
