"""Where Hydra looks for plugins. What they do is in :mod:`sweeps`, imported when one is used."""

from typing import Any

from sweeps import plugins


class GridSweeper(plugins.GridSweeper):
    """hydra/sweeper=grid"""


class PoolLauncher(plugins.SweepLauncher):
    """hydra/launcher=pool"""

    def __init__(self, workers: int | None, threads: int, **policy: Any) -> None:
        from sweeps.pool import Pool, workers_for

        slots = workers_for(workers, threads)
        super().__init__(lambda: Pool(workers=slots), slots, threads, policy)
