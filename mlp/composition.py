"""Configurations composed from conf/ with Hydra, as the command line does it, for notebooks and scripts."""

from pathlib import Path

import hydra
from hydra.errors import HydraException

from mlp.config import RunConfig
from mlp.training import CONF
from sweeps.launch.compose import composing, initialized, plain, refuse_unnamed_choices, unknown


def compose(*overrides: str, config_dir: Path = CONF) -> RunConfig:
    """The checked configuration that the same overrides on the command line would give.

    >>> compose("activ=gelu", "lr=0.1").activ.name
    'gelu'

    Raises:
        InputError: a value cannot be used, or there is no such key or choice.
        HydraException: an override cannot be read.
    """
    refuse_unnamed_choices(overrides, config_dir)
    try:
        with initialized(config_dir), composing():
            cfg = hydra.compose("config", list(overrides))
    except HydraException as error:
        raise unknown(error) or error from None
    return RunConfig.from_mapping(plain(cfg))
