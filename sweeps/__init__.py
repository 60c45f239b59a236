"""Run many, and read them back: tables, figures and checked conclusions from the run directories of :mod:`mlp`.

Names are imported when they are first used, so that ``import sweeps`` costs nothing.
"""

from typing import TYPE_CHECKING

from mlp.lazy import attributes

if TYPE_CHECKING:
    from sweeps.read.collect import Collection as Collection
    from sweeps.read.collect import load as load
    from sweeps.run.sweep import sweep as sweep

_EXPORTS = {
    "Collection": "sweeps.read.collect",
    "load": "sweeps.read.collect",
    "sweep": "sweeps.run.sweep",
}

__all__ = list(_EXPORTS)
__getattr__ = attributes(__name__, _EXPORTS)
