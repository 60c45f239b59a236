"""Libraries that come with an extra (pyproject.toml): imported only where they are used, and one line if missing."""

import importlib
from typing import Any

from sweeps.runs.errors import InputError


def install(extra: str) -> str:
    """The command that installs it.

    >>> install("onnx")
    "pip install 'mlp-sweeps[onnx]'"
    """
    return f"pip install 'mlp-sweeps[{extra}]'"


def load(module: str, *, extra: str, field: str, value: str) -> Any:
    """Import ``module``; ``field=value`` is what asked for it.

    Raises:
        InputError: it cannot be imported; says which extra brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(field, value, f"{error}; {install(extra)}") from None
