"""Configurations composed with Hydra in a process that may have a Hydra of its own."""

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
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from sweeps.runs.errors import InputError

_NO_NAME = re.compile(r"null|true|false|[-+]?(inf|nan|[0-9_]*\.?[0-9_]+\.?(e[-+]?[0-9_]+)?)", re.IGNORECASE)

_global_state = threading.Lock()  # Hydra's state is the process's


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as a nested mapping of plain values, without Hydra's own part."""
    if "hydra" in cfg:  # a masked copy would lose the types
        cfg = copy.deepcopy(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return values


def refuse_unnamed_choices(overrides: Sequence[str], config_dir: Path) -> None:
    """To Hydra ``activ=true`` is no name, and its own error tells neither field nor value.

    Raises:
        InputError: a group's choice would be read as null, true, false or a number.
    """
    for override in overrides:
        group, _, value = override.partition("=")
        if group.replace("/", "").isidentifier() and (config_dir / group).is_dir() and _NO_NAME.fullmatch(value):
            names = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
            raise InputError(group, value, f"must be one of {', '.join(names)}")


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Hydra composes here: what it and the YAML reader let through as it comes is an InputError.

    Raises:
        InputError: names the file and the line, or the override.
        HydraException, OmegaConfBaseException: those have words for the user already.
    """
    try:
        yield
    except Exception as error:
        if said := unreadable(error):
            raise said from None
        raise


def unreadable(error: Exception) -> InputError | None:
    """What an exception says of the configuration, if it came while Hydra composed one, and has no words of its own."""
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
    for frame in reversed(frames):  # the exception itself does not name what it is about
        about = frame.f_locals.get("override")
        if isinstance(about, Override):
            return InputError(about.key_or_group, about.get_value_element_as_str(), said)
        path = frame.f_locals.get("full_path")  # of the file that is being read
        if isinstance(path, str) and path.endswith((".yaml", ".yml")):
            return InputError("config", path, said)
    return InputError("config", type(error).__name__, said)


@contextlib.contextmanager
def initialized(config_dir: Path) -> Iterator[Hydra]:
    """Hydra over a directory of configurations; what the process had initialized before is there again afterwards."""
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
