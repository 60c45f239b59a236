"""Checks for the values of a configuration, and their errors.

A check turns a plain value (as YAML or the command line gives it) into its canonical form or raises
:class:`InputError`, which names the field, the value and what is allowed. Registries (activations,
losses, optimizers, datasets) declare the checks of their own options beside their code.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sweeps.runs.errors import InputError

T = TypeVar("T")

Check = Callable[[str, object], Any]
"""``check(field, value) -> canonical value``; raises :class:`InputError`."""


LARGEST = 2**63 - 1
"""Of whole numbers: what a column of a table and NumPy's indices hold."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What a registry holds under a name: how to build the thing, and the checks of its options."""

    build: Callable[..., T]
    options: Mapping[str, Check]


def entry(build: Callable[..., T], **options: Check) -> Entry[T]:
    """``entry(GELU, approximate=one_of("tanh", "none"))``."""
    return Entry(build, options)


def number(
    *, gt: float | None = None, ge: float | None = None, lt: float | None = None, le: float | None = None
) -> Check:
    """A finite real number within bounds; integers are converted to float."""
    allowed = "must be a number" + _bounds(gt, ge, lt, le)

    def check(field: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(field, value, allowed)
        try:
            x = float(value)
        except OverflowError:
            raise InputError(field, value, allowed) from None
        if not (math.isfinite(x) and _within(x, gt, ge, lt, le)):
            raise InputError(field, value, allowed)
        return x + 0.0  # -0.0 and 0.0 are one value, and must be one identity

    return check


def integer(*, ge: int, le: int = LARGEST) -> Check:
    """A whole number within bounds; ``200.0`` is not one."""

    def check(field: str, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and ge <= value <= le:
            return value
        is_too_large = isinstance(value, int) and value > le
        bounds = _bounds(None, ge, None, le if le < LARGEST or is_too_large else None)
        raise InputError(field, value, "must be a whole number" + bounds)

    return check


def flag() -> Check:
    """true or false."""

    def check(field: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise InputError(field, value, "must be true or false")
        return value

    return check


def one_of(*choices: str) -> Check:
    """One of the choices; the error suggests the nearest."""

    def check(field: str, value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise InputError(field, value, f"must be one of {', '.join(choices)}{suggest(value, choices)}")

    return check


def optional(check_value: Check) -> Check:
    """``null``, or what ``check_value`` allows."""

    def check(field: str, value: object) -> Any:
        return None if value is None else check_value(field, value)

    return check


def text() -> Check:
    """A string that is not empty and can be a path: no NUL byte."""

    def check(field: str, value: object) -> str:
        if value == "???":  # OmegaConf's mark
            raise InputError(field, value, "is missing; give it a value")
        if not isinstance(value, str) or not value or "\0" in value:
            raise InputError(field, value, "must be a text that is not empty")
        return value

    return check


def list_of(item: Check, *, allowed: str, at_most: int) -> Check:
    """A list of 1 to ``at_most`` items; an error names the item by its index."""

    def check(field: str, value: object) -> list[Any]:
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= at_most:
            raise InputError(field, value, allowed)
        return [item(f"{field}[{i}]", x) for i, x in enumerate(value)]

    return check


def fields(checks: Mapping[str, Check], prefix: str, values: object) -> dict[str, Any]:
    """Check a mapping field by field: none may be missing, none may be unknown."""
    if not isinstance(values, Mapping):
        raise InputError(prefix.rstrip(".") or "config", values, "must be a mapping of names to values")
    for key in values:
        if key not in checks:
            known = ", ".join(checks) or "none"
            raise InputError(f"{prefix}{key}", values[key], f"no such field; known: {known}{suggest(key, checks)}")
    for key in checks:
        if key not in values:
            raise InputError(f"{prefix}{key}", "???", "is missing; give it a value")
    return {key: check(prefix + key, values[key]) for key, check in checks.items()}


def suggest(value: object, choices: Iterable[str]) -> str:
    """``" (did you mean gelu?)"``, or nothing when no choice is near."""
    near = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _within(x: float, gt: float | None, ge: float | None, lt: float | None, le: float | None) -> bool:
    return (gt is None or x > gt) and (ge is None or x >= ge) and (lt is None or x < lt) and (le is None or x <= le)


def _bounds(gt: float | None, ge: float | None, lt: float | None, le: float | None) -> str:
    bounds = ((">", gt), ("≥", ge), ("<", lt), ("≤", le))
    texts = (
        f" {sign} {bound if isinstance(bound, int) else f'{bound:g}'}" for sign, bound in bounds if bound is not None
    )
    return " and".join(texts)
