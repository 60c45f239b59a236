"""Names of a package that are imported when they are first used, so that the package itself costs nothing."""

from __future__ import annotations

TYPE_CHECKING = False  # to a type checker it is True
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562); ``homes``: name → the module that has it."""

    def find(name: str) -> Any:
        import importlib.metadata

        if name == "__version__":
            return importlib.metadata.version("mlp-sweeps")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return find
