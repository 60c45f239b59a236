"""Where Hydra looks for plugins.

Hydra imports this module at every start of every application, so what the plugins do is imported from :mod:`sweeps`
only when one of them is chosen.
"""

import importlib
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper


class SweepsSearchPath(SearchPathPlugin):
    """Makes hydra/sweeper=grid, hydra/launcher=pool and the others known to every Hydra application."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("mlp-sweeps", "pkg://sweeps.conf")


class _Chosen:
    """A plugin that becomes what ``home`` (module:name) makes of its options."""

    home: ClassVar[str]

    def __new__(cls, **options: Any) -> Any:
        module, _, name = cls.home.partition(":")
        return getattr(importlib.import_module(module), name)(**options)

    def setup(self, **_: Any) -> None: ...

    def sweep(self, arguments: list[str]) -> Any: ...

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any: ...


class GridSweeper(_Chosen, Sweeper):
    """hydra/sweeper=grid"""

    home = "sweeps.launch.plugins:GridSweeper"


class OptunaSweeper(_Chosen, Sweeper):
    """hydra/sweeper=optuna"""

    home = "sweeps.search.plugins:OptunaSweeper"


class HalvingSweeper(_Chosen, Sweeper):
    """hydra/sweeper=halving"""

    home = "sweeps.search.plugins:HalvingSweeper"


class PoolLauncher(_Chosen, Launcher):
    """hydra/launcher=pool"""

    home = "sweeps.launch.plugins:pool"


class DaskLauncher(_Chosen, Launcher):
    """hydra/launcher=dask, pbs, sge, lsf"""

    home = "sweeps.launch.plugins:dask"


class SlurmLauncher(_Chosen, Launcher):
    """hydra/launcher=slurm"""

    home = "sweeps.launch.plugins:slurm"


class RayLauncher(_Chosen, Launcher):
    """hydra/launcher=ray"""

    home = "sweeps.launch.plugins:ray"
