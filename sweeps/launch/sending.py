"""How a program reaches a worker: by reference where the worker can import it, by value (cloudpickle) where not.

Sent by value: functions and classes of ``__main__``, which is a script, a notebook or stdin, with or without ``if
__name__ == "__main__"``; the worker never runs the script. With them go the search path, what was registered with
Hydra and OmegaConf (ConfigStore, resolvers), and entries that were added to the program's registries.
"""

import contextlib
import functools
import importlib
import inspect
import os
import pickle
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from sweeps.runs import code
from sweeps.runs.errors import InputError
from sweeps.runs.program import Program


@dataclass(frozen=True)
class Sent:
    """A program on its way; ``content`` is unpickled once in each worker."""

    path: tuple[str, ...]
    content: bytes
    folder: str
    """The working directory, which a job's relative paths mean."""
    sweep: str
    """Distinguishes sweeps, between which the user may have edited the code."""
    packages: tuple[tuple[str, str], ...] = ()
    """This package, and that of a program which the worker imports, with the SHA-256 of their sources here."""


def pack(program: Program) -> Sent:
    """The program for workers.

    Raises:
        InputError: it cannot be sent; names what holds it back.
    """
    path = tuple(os.path.abspath(entry) for entry in sys.path)
    imported = _reference(program)
    names = ("sweeps", program.function.__module__.partition(".")[0]) if imported else ("sweeps",)
    packages = tuple((name, code.package_digest(name)) for name in names)
    try:
        return Sent(path, _dumps(imported or _by_value(program)), os.getcwd(), uuid.uuid4().hex, packages)
    except Exception as error:  # an object's own pickling can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            "function", program.source, f"cannot be sent to a worker{_because_of(program.function)}: {reason}"
        ) from None


def _because_of(function: Any) -> str:
    """The variable of a function, or of the functions that it calls, which cannot be pickled: ``, which uses lock``."""
    seen: set[int] = set()
    todo = [(function, "")]
    while todo:
        found, name = todo.pop()
        function = getattr(found, "function", found)  # an application's task
        if id(function) in seen or _goes(found):
            continue
        seen.add(id(function))
        if not inspect.isfunction(function):
            return f", for it uses {name}" if name else ""
        used = inspect.getclosurevars(function)
        todo += [(value, name) for name, value in {**used.globals, **used.nonlocals}.items()]
    return ""


@contextlib.contextmanager
def unpacked(sent: Sent) -> Iterator[Program]:
    """The program, on a worker, and the sender's working directory if it is there."""
    program = _unpack(sent)
    before = os.getcwd()
    with contextlib.suppress(OSError):
        os.chdir(sent.folder)
    try:
        yield program
    finally:
        os.chdir(before)


@functools.lru_cache(maxsize=8)
def foreign(sent: Sent) -> str | None:
    """A package that differs from the sender's, if one does."""
    _unpack(sent)  # for its search path
    return next((name for name, digest in sent.packages if code.package_digest(name) != digest), None)


_brought: list[str] = []  # to sys.path, by the sweep before


@functools.lru_cache(maxsize=8)
def _unpack(sent: Sent) -> Program:
    if _unpack.cache_info().misses > 1:
        # A worker of a cluster outlives sweeps: this one's modules may be edited ones, or another project's.
        for name in code.own_modules().keys() - {"__main__"}:
            del sys.modules[name]
        importlib.invalidate_caches()
    sys.path[:] = [entry for entry in sys.path if entry not in _brought]
    _brought[:] = [entry for entry in sent.path if entry not in sys.path]
    sys.path += _brought
    parts = pickle.loads(sent.content)
    main = sys.modules.setdefault("__main__", ModuleType("__main__"))
    for name, value in parts.get("main", {}).items():
        setattr(main, name, value)
    if "singletons" in parts:
        _set_singletons(parts["singletons"])
    for place, entries in parts.get("registries", {}).items():
        _attribute(place).update(entries)
    program: Program = _attribute(parts["at"]) if "at" in parts else parts["program"]
    return program


def _reference(program: Program) -> dict[str, Any] | None:
    """Where the worker finds the program, if it is a module's own."""
    module = sys.modules.get(program.function.__module__)
    if module is None or module.__name__ == "__main__":
        return None
    for name, value in vars(module).items():
        if value is program:
            return {"at": f"{module.__name__}:{name}", "registries": _added(program)}
    return None


def _by_value(program: Program) -> dict[str, Any]:
    sources = code.sources(program)
    if sources:  # of __main__: what it imported may have gone into values that are sent, and the module never be
        sources = code.fingerprint(program)
    program = replace(program, sources=sources)
    parts: dict[str, Any] = {"program": program, "registries": _added(program), "main": _definitions()}
    if "hydra" in sys.modules:
        parts["singletons"] = _singletons()
    try:
        dumps(parts)
    except Exception:  # something that the function may not need
        parts = {key: value for key, value in parts.items() if key in ("program", "registries")}
        if "hydra" in sys.modules:
            parts["singletons"] = _singletons(essential=True)
    return parts


def _definitions() -> dict[str, Any]:
    """Functions and classes of the main program that can be sent, for ``_target_: __main__.Net`` and the like."""
    main = sys.modules.get("__main__")
    own = {
        name: value
        for name, value in vars(main).items()
        if getattr(value, "__module__", None) == "__main__" and isinstance(value, type | type(_definitions))
    }
    return {name: value for name, value in own.items() if _goes(value)}


def _goes(value: Any) -> bool:
    with contextlib.suppress(Exception):
        dumps(value)
        return True
    return False


def _singletons(essential: bool = False) -> dict[str, Any]:
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    state = dict(Singleton.get_state())
    instances = {kind: value for kind, value in state["instances"].items() if kind is not HydraConfig}
    if essential:
        instances = {kind: value for kind, value in instances.items() if kind in (VersionBase, JobRuntime)}
    state["instances"] = {kind: value for kind, value in instances.items() if _goes((kind, value))}
    state["omegaconf_resolvers"] = {k: v for k, v in state["omegaconf_resolvers"].items() if _goes(v)}
    return state


def _set_singletons(state: Mapping[str, Any]) -> None:
    from hydra.core.singleton import Singleton
    from omegaconf.basecontainer import BaseContainer

    Singleton._instances = {**Singleton._instances, **state["instances"]}
    BaseContainer._resolvers.update(state["omegaconf_resolvers"])


def _added(program: Program) -> dict[str, dict[str, Any]]:
    """The user's entries in the program's registries: those not from its own package."""
    package = program.function.__module__.partition(".")[0]
    added = {}
    for place in program.registries:
        registry = _attribute(place)
        entries = {
            name: entry
            for name, entry in registry.items()
            if getattr(entry.build, "__module__", "").partition(".")[0] != package
        }
        if entries:
            added[place] = entries
    return added


def _attribute(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _dumps(parts: Mapping[str, Any]) -> bytes:
    parts = {key: value for key, value in parts.items() if value}
    if set(parts) == {"at"}:  # which any pickle can read, without cloudpickle
        return pickle.dumps(parts)
    return dumps(parts)


def dumps(value: Any) -> bytes:
    """Pickled, with what is of ``__main__`` by value."""
    import cloudpickle  # which a single run does not need, and Hydra imports this module at every start

    content: bytes = cloudpickle.dumps(value)
    return content
