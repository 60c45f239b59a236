"""Extensions of the readers by other packages, found through entry points.

sweeps.columns   a function ``columns(identity)``: a run's configuration columns, or None for another program's runs
sweeps.commands  a function ``add(command)``: further commands of ``mlp-sweeps``
sweeps.studies   a function ``studies()``: a folder of studies, each a .yaml file
"""

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

COLUMNS = "sweeps.columns"
COMMANDS = "sweeps.commands"
STUDIES = "sweeps.studies"


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """``name=module:function`` of each entry point of a group, sorted."""
    return tuple(sorted(f"{point.name}={point.value}" for point in _entry_points(group)))


@functools.cache
def load(group: str) -> tuple[Callable[..., Any], ...]:
    """The functions of a group by name; one that cannot be imported is left out."""
    found = []
    for point in sorted(_entry_points(group), key=lambda point: (point.name, point.value)):
        try:
            found.append(point.load())
        except (ImportError, AttributeError):
            continue
    return tuple(found)


def _entry_points(group: str) -> set[importlib.metadata.EntryPoint]:
    return set(importlib.metadata.entry_points(group=group))
