"""One training run of a multi-layer perceptron in NumPy: configured, reproducible, continuable.

Names are imported when they are first used, so that ``import mlp`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp.composition import compose as compose
    from mlp.model import Model as Model
    from mlp.model import load as load
    from mlp.session import train as train

_EXPORTS = {
    "Model": "mlp.model",
    "compose": "mlp.composition",
    "load": "mlp.model",
    "train": "mlp.session",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
