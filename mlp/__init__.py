"""Train multi-layer perceptrons in NumPy: configured by Hydra, reproducible, resumable.

Names are imported when they are first used, so that ``import mlp`` costs nothing.
"""

from sweeps.runs.lazy import attributes

TYPE_CHECKING = False  # to a type checker it is True; the module typing takes longer than all else here
if TYPE_CHECKING:
    from mlp.composition import compose as compose
    from mlp.model import Model as Model
    from mlp.model import load as load
    from mlp.training import program as program
    from mlp.training import train as train

    __version__: str

_EXPORTS = {
    "Model": "mlp.model",
    "compose": "mlp.composition",
    "load": "mlp.model",
    "program": "mlp.training",
    "train": "mlp.training",
}

__all__ = list(_EXPORTS)
__getattr__ = attributes(__name__, _EXPORTS)
