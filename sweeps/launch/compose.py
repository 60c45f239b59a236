"""Configurations composed with Hydra in a process that may have a Hydra of its own."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sweeps.runs.errors import InputError

_NO_NAME = re.compile(r"true|false|[-+]?(inf|nan|[0-9_]*\.?[0-9_]+\.?(e[-+]?[0-9_]+)?)", re.IGNORECASE)

_global_state = threading.Lock()  # Hydra's state is the process's


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as a nested mapping of plain values, without Hydra's own part."""
    values: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), resolve=True, throw_on_missing=True
    )
    assert isinstance(values, dict)
    return values


def refuse_unnamed_choices(overrides: Sequence[str], config_dir: Path) -> None:
    """To Hydra ``activ=true`` is no name, and its own error tells neither field nor value.

    Raises:
        InputError: a group's choice would be read as true, false or a number.
    """
    for override in overrides:
        group, _, value = override.partition("=")
        if group.replace("/", "").isidentifier() and (config_dir / group).is_dir() and _NO_NAME.fullmatch(value):
            names = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
            raise InputError(group, value, f"must be one of {', '.join(names)}")


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
