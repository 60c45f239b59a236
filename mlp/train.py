"""``python -m mlp.train``: compose a run's configuration from conf/ with Hydra, train it, exit with what came of it.

Exit status: 0 finished or diverged (both are results), 1 failed, 2 unusable input, 130 / 143 interrupted by
SIGINT / SIGTERM.
"""

import os
import sys
from collections.abc import Iterator
from types import ModuleType

import hydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp import data, progress
from mlp.command import fail
from mlp.composition import CONF, plain, refuse_unnamed_choices
from mlp.composition import compose as compose
from mlp.config import RunConfig
from mlp.runs import Result, RunDir
from mlp.schema import InputError, suggest
from mlp.session import train


def _run_id(*, _root_: DictConfig) -> str:
    """``${run_id:}``: names the run directory, and checks everything before Hydra makes it."""
    config = RunConfig.from_mapping(plain(_root_))
    data.load(config.data.name, config.data.options)
    RunDir.of(config.out, config.run_id).refuse_links()  # Hydra writes there, too
    return config.run_id


OmegaConf.register_new_resolver("run_id", _run_id, replace=True)

_results: list[Result] = []  # Hydra's main returns nothing


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _task(cfg: DictConfig) -> Result:
    config = RunConfig.from_mapping(plain(cfg))
    with progress.epochs(config.epochs) as show:
        result = train(config, on_epoch=show)
    print(progress.summary(result, config.epochs))
    _results.append(result)
    return result


def main() -> None:
    """The command line; errors that the user can mend are said on one screen."""
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through to here
    sys.argv[1:] = ["hydra.sweeper.dry_run=true" if word == "--dry-run" else word for word in sys.argv[1:]]
    try:
        refuse_unnamed_choices(sys.argv[1:])
        _task()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # somebody's `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if traceback_wanted:
            raise
        sys.exit(_report(error))
    signum = _results[-1].signal if _results else None
    sys.exit(128 + signum if signum else 0)


def _report(error: Exception) -> int:
    """Print the root of an error; 2 if the input is to blame, 1 if not."""
    chain = list(_causes(error))
    status = 2
    blamed = next((cause for cause in chain if isinstance(cause, InputError)), None)
    if blamed:
        message = str(blamed)
    elif isinstance(error, OverrideParseException):
        message = f"{error.override}: {error.message.splitlines()[0]}"
    elif isinstance(error, (HydraException, OmegaConfBaseException)):
        message = str(error).strip()
        for cause in chain:
            if isinstance(cause, OmegaConfBaseException) and cause.full_key:
                message += suggest(cause.full_key.rpartition(".")[2], RunConfig.__dataclass_fields__)
                break
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"out: {error.filename}: {error.strerror}"
    else:
        message = f"{type(error).__name__}: {error}\nHYDRA_FULL_ERROR=1 shows the traceback"
        status = 1
    return fail(message, status)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class _Callable(ModuleType):
    """Importing this module puts it where ``from mlp import train`` finds the function; so it can be called as well."""

    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
