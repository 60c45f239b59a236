"""Where Hydra looks for plugins. What they do is in :mod:`sweeps`, imported when one is used."""

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from sweeps.launch import plugins
from sweeps.search import plugins as search


class SweepsSearchPath(SearchPathPlugin):
    """Makes hydra/sweeper=grid, hydra/launcher=pool and the others known to every Hydra application."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("mlp-sweeps", "pkg://sweeps.conf")


class GridSweeper(plugins.GridSweeper):
    """hydra/sweeper=grid"""


class OptunaSweeper(search.OptunaSweeper):
    """hydra/sweeper=optuna"""


class HalvingSweeper(search.HalvingSweeper):
    """hydra/sweeper=halving"""


class PoolLauncher(plugins.SweepLauncher):
    """hydra/launcher=pool"""

    def __init__(self, workers: int | None, threads: int, **policy: Any) -> None:
        from sweeps.launch.pool import Pool, workers_for

        slots = workers_for(workers, threads)
        super().__init__(lambda: Pool(workers=slots, threads=threads), slots, threads, policy)


class DaskLauncher(plugins.SweepLauncher):
    """hydra/launcher=dask, slurm, pbs, sge, lsf"""

    def __init__(self, threads: int, retries: int, timeout: float | None, on_error: str, **options: Any) -> None:
        from sweeps.launch.dask import Dask, Options

        policy = {"retries": retries, "timeout": timeout, "on_error": on_error}
        checked = Options.of(threads=threads, **options)
        super().__init__(lambda: Dask(checked), checked.expected_slots, checked.threads, policy)


class RayLauncher(plugins.SweepLauncher):
    """hydra/launcher=ray"""

    def __init__(self, threads: int, retries: int, timeout: float | None, on_error: str, **options: Any) -> None:
        from sweeps.launch.ray import Options, Ray

        policy = {"retries": retries, "timeout": timeout, "on_error": on_error}
        checked = Options.of(threads=threads, **options)
        super().__init__(lambda: Ray(checked), 1, checked.threads, policy)
