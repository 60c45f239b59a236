"""Fingerprints of the user's code: results are found by configuration, so a changed program must be noticed.

A module is the user's own if it was imported from a file that is neither the standard library's, nor in site-packages,
nor this package's.
"""

import functools
import hashlib
import importlib.util
import inspect
import os
import site
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Protocol

_PACKAGE = str(Path(__file__).resolve().parents[1])
_FOREIGN = tuple(
    os.path.realpath(folder) + os.sep
    for folder in {
        os.path.dirname(os.__file__),  # the standard library's; sysconfig would take milliseconds
        *getattr(site, "getsitepackages", list)(),
        site.getusersitepackages() or "",
        os.path.join(_PACKAGE, os.pardir, "hydra_plugins"),
        _PACKAGE,
    }
    if folder
)


class Fingerprinted(Protocol):
    """What matters of a program here."""

    @property
    def function(self) -> Callable[..., Any]: ...

    @property
    def source(self) -> str:
        """``module:name``"""

    @property
    def main(self) -> str | None:
        """The file of ``__main__``, if the function is from there."""

    @property
    def sources(self) -> Mapping[str, str] | None:
        """The sender's fingerprints of code that is sent by value."""


def own_modules() -> dict[str, str]:
    """Name → file of every imported module that is the user's own."""
    files = ((name, getattr(module, "__dict__", {}).get("__file__")) for name, module in list(sys.modules.items()))
    return {name: path for name, file in files if type(file) is str and (path := _own(file)) and name not in _NOT_OWN}


_NOT_OWN = {"__mp_main__", "sitecustomize", "usercustomize"}  # Debian's Python has the second in /etc


@functools.cache
def _own(file: str) -> str:
    """The real path of a source of the user's own; empty for any other file."""
    path = os.path.realpath(file)
    return path if file.endswith(".py") and not path.startswith(_FOREIGN) else ""


def fingerprint(program: Fingerprinted) -> dict[str, str]:
    """Name → SHA-256 of the source of every module of the user's own, and of what was sent by value.

    A module's digest is that of its first run in this process: an edit while a sweep runs does not reach the modules
    that are imported already.
    """
    files = own_modules()
    files.pop("__main__", None)
    digests = {name: _digest_when_imported(name, path) for name, path in sorted(files.items())}
    return {name: digest for name, digest in digests.items() if digest} | dict(sources(program))


def changed(recorded: Mapping[str, str], program: Fingerprinted) -> list[str]:
    """The recorded modules and functions whose source has changed, or cannot be found."""
    now = sources(program)
    return [
        name
        for name, digest in recorded.items()
        if (now.get(name) if name.startswith("__main__") else _digest_of(_file_of(name))) != digest
    ]


def sources(program: Fingerprinted) -> Mapping[str, str]:
    """SHA-256 of what goes to workers by value: the main script, or functions and classes of a notebook by name.

    On a worker, it is the sender's.
    """
    if program.sources is not None:
        return program.sources
    if program.main:
        digest = _digest_when_imported("__main__", program.main)
        return {"__main__": digest} if digest else {}
    if getattr(program.function, "__module__", None) != "__main__":
        return {}
    found: dict[str, str] = {}
    todo: list[Any] = [program.function]
    while todo:
        used = todo.pop()
        name = f"__main__:{getattr(used, '__qualname__', '')}"
        if isinstance(used, type):
            todo += [value for value in vars(used).values() if inspect.isfunction(value)]
        elif inspect.isfunction(used) and name not in found:
            found[name] = _digest_of_function(used)
            values = map(used.__globals__.get, _names(used.__code__))
            todo += [value for value in values if getattr(value, "__module__", None) == "__main__"]
    return dict(sorted(found.items()))


def _digest_of_function(function: FunctionType) -> str:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # of stdin, say
        text = "".join(f"{code.co_code!r} {code.co_names} {_constants(code)}" for code in _codes(function.__code__))
    return hashlib.sha256(text.encode()).hexdigest()


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions, lambdas and comprehensions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names(code: CodeType) -> list[str]:
    return [name for part in _codes(code) for name in part.co_names]


def _constants(code: CodeType) -> list[str]:
    """In an order that does not depend on the process, as a set's does."""
    plain = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    return [repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value) for value in plain]


def package_digest(module: str) -> str:
    """SHA-256 over the sources of the top-level package of a module: tells whether two machines have the same code."""
    file = _file_of(module.partition(".")[0])
    if not file:
        return ""
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    total = hashlib.sha256()
    for source in files:
        total.update(str(source.relative_to(path.parent)).encode() + b"\0" + source.read_bytes() + b"\0")
    return total.hexdigest()


def folder_of(program: Fingerprinted) -> Path:
    """Where the program's sources are."""
    file = program.main or _file_of(program.source.rpartition(":")[0])
    return Path(file).resolve().parent if file else Path.cwd()


def _file_of(name: str) -> str | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec else None
    return file if isinstance(file, str) else None


def _digest_of(path: str | None) -> str | None:
    try:
        info = os.stat(path or "")
        return _remembered(path or "", info.st_size, info.st_mtime_ns, info.st_ino)
    except OSError:
        return None


_imported: dict[str, tuple[object, str | None]] = {}  # name → the import (a reload is another), digest


def _digest_when_imported(name: str, path: str) -> str | None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    known = _imported.get(name)
    if known is None or known[0] is not spec:
        known = _imported[name] = (spec, _digest_of(path))
    return known[1]


@functools.lru_cache(maxsize=4096)
def _remembered(path: str, size: int, mtime_ns: int, inode: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
