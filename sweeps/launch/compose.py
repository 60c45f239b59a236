"""Configurations composed with Hydra, in a process that may use Hydra itself."""

import contextlib
import copy
import re
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from sweeps.runs.errors import InputError
from sweeps.runs.schema import suggest

_NO_NAME = re.compile(r"null|true|false|[-+]?(inf|nan|[0-9_]*\.?[0-9_]+\.?(e[-+]?[0-9_]+)?)", re.IGNORECASE)

_global_state = threading.Lock()  # Hydra's state is the process's


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as a nested mapping of plain values, without Hydra's own part.

    Raises:
        InputError: a value is missing.
    """
    if "hydra" in cfg:  # a masked copy would lose the types
        cfg = copy.deepcopy(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(str(error.full_key), "???", "is missing; give it a value") from None
    assert isinstance(values, dict)
    return values


def refuse_unnamed_choices(overrides: Sequence[str], config_dir: Path) -> None:
    """Hydra does not read ``activ=true`` as a name, and its error has neither field nor value.

    Raises:
        InputError: a group's choice would be read as null, true, false or a number.
    """
    for override in overrides:
        group, _, value = override.partition("=")
        if group.replace("/", "").isidentifier() and (config_dir / group).is_dir() and _NO_NAME.fullmatch(value):
            names = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
            raise InputError(group, value, f"must be one of {', '.join(names)}")


def refuse_directories(overrides: Sequence[str], out: str) -> None:
    """A run's directory is named by its settings, so that the same configuration finds it again.

    Args:
        out: the key that moves the results tree.

    Raises:
        InputError: another directory is requested.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
            raise InputError(key, value, f"a run's directory is OUT/runs/RUN_ID; {out}=DIR moves the results tree")


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """A context for composing, in which unreadable YAML and unusable overrides are an InputError.

    Raises:
        InputError: names the file and the line, or the override.
        HydraException, OmegaConfBaseException: others, whose messages are clear already.
    """
    try:
        yield
    except Exception as error:
        if said := unreadable(error):
            raise said from None
        raise


def unreadable(error: Exception) -> InputError | None:
    """An error about the configuration, if an exception without a clear message came while Hydra composed."""
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return None
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return InputError("config", f"{mark.name}:{mark.line + 1}:{mark.column + 1}", error.problem or "is no YAML")
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(frame.f_code.co_name == "load_configuration" for frame in frames):
        return None
    if isinstance(error, OSError):
        return InputError("config", error.filename, error.strerror or "") if error.filename else None
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    for frame in reversed(frames):  # the exception does not name its file
        about = frame.f_locals.get("override")
        if isinstance(about, Override):
            return InputError(about.key_or_group, about.get_value_element_as_str(), said)
        path = frame.f_locals.get("full_path")  # of the file that is being read
        if isinstance(path, str) and path.endswith((".yaml", ".yml")):
            return InputError("config", path, said)
    return InputError("config", type(error).__name__, said)


def unknown(error: BaseException) -> InputError | None:
    """One line for Hydra's exceptions about unknown keys and choices."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return InputError(group, name, f"must be one of {', '.join(error.options)}{suggest(name, error.options)}")
    return unknown_key(error) if isinstance(error, ConfigCompositionException) else None


def unknown_key(error: BaseException) -> InputError | None:
    """About an override with an unknown key, with the nearest known key, or all of them."""
    cause = error.__cause__
    _, found, override = str(error).partition("To append to your config use +")
    if not found or not isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return None
    key, _, value = override.partition("=")
    parent = cause.parent_node
    siblings = [str(name) for name in parent if name != "hydra"] if OmegaConf.is_dict(parent) else []
    near = suggest(key.rpartition(".")[2], siblings) or f"; known: {', '.join(siblings)}"
    return InputError(key, value, f"no such key{near}")


@contextlib.contextmanager
def initialized(config_dir: Path) -> Iterator[Hydra]:
    """Hydra over a directory of configurations; restores what the process had initialized before."""
    state = GlobalHydra.instance()
    with _global_state:
        before = state.hydra
        state.clear()
        try:
            with hydra.initialize_config_dir(str(config_dir), version_base="1.3"):
                assert state.hydra
                yield state.hydra
        finally:
            GlobalHydra.set_instance(state)
            state.hydra = before
