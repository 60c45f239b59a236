"""Run many, and read them back: tables, figures and checked conclusions from the run directories of :mod:`mlp`.

Names are imported when they are first used, so that ``import sweeps`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
