"""Configurations composed from conf/ with Hydra, as the command line does it, for whoever is not the command line."""

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

from mlp.config import RunConfig
from mlp.schema import InputError

_PACKAGE = Path(__file__).resolve().parent
# In a wheel the configs are inside the package, in a checkout beside it.
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir())

_NO_NAME = re.compile(r"true|false|[-+]?(inf|nan|[0-9_]*\.?[0-9_]+\.?(e[-+]?[0-9_]+)?)", re.IGNORECASE)

_alone = threading.Lock()  # Hydra's state is the process's


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as the nested mapping that :class:`RunConfig` checks, without Hydra's own part."""
    values: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), resolve=True, throw_on_missing=True
    )
    assert isinstance(values, dict)
    return values


def compose(*overrides: str, config_dir: Path = CONF) -> RunConfig:
    """The checked configuration that the same words on the command line would give.

    >>> compose("activ=gelu", "lr=0.1").activ.name
    'gelu'

    Raises:
        InputError: a value cannot be used.
        HydraException: a word cannot be read, or there is no such key or choice.
    """
    refuse_unnamed_choices(overrides)
    with initialized(config_dir):
        cfg = hydra.compose("config", list(overrides))
    return RunConfig.from_mapping(plain(cfg))


def refuse_unnamed_choices(words: Sequence[str]) -> None:
    """To Hydra ``activ=true`` is no name, and its own error tells neither field nor value.

    Raises:
        InputError: a group's choice would be read as true, false or a number.
    """
    for word in words:
        group, _, value = word.partition("=")
        if group.replace("/", "").isidentifier() and (CONF / group).is_dir() and _NO_NAME.fullmatch(value):
            names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
            raise InputError(group, value, f"must be one of {', '.join(names)}")


@contextlib.contextmanager
def initialized(config_dir: Path = CONF) -> Iterator[Hydra]:
    """Hydra over a directory of configurations; what the process had initialized before is there again afterwards."""
    state = GlobalHydra.instance()
    with _alone:
        before = state.hydra
        state.clear()
        try:
            with hydra.initialize_config_dir(str(config_dir), version_base="1.3"):
                assert state.hydra
                yield state.hydra
        finally:
            GlobalHydra.set_instance(state)
            state.hydra = before
