"""What a study expects: hypotheses, and the comparisons that each of them is made of.

A hypothesis's relation is one of

    order: {activ: relu > gelu > tanh >> sigmoid}    each above the next; >> by more than ``much``
    among: {activ: [relu, gelu, tanh]}, within: 0.5  every two of them within a margin of each other
    best: {lr: 0.01}                                 above every other value of the axis (or of ``among``)
    compare: {of: …, over: …, above: 0, below: 1}    a difference, or a single cell, between bounds; or a list of these

and holds at each of the settings under ``each``.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.runs.errors import InputError
from sweeps.study.measures import Measure

Settings = Mapping[str, Any]
"""Keys and values in which a cell differs from the baseline."""

_RELATIONS = ("order", "among", "best", "compare")


@dataclass(frozen=True)
class Contrast:
    """The expectation that a − b, or a alone, lies between two bounds."""

    of: Settings
    over: Settings | None = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def cells(self) -> tuple[Settings, ...]:
        return (self.of,) if self.over is None else (self.of, self.over)


@dataclass(frozen=True)
class Hypothesis:
    """What is expected of the runs, before they are looked at."""

    name: str
    text: str
    quote: str
    """The words of a source that it restates; may be empty."""
    measure: Measure
    also: tuple[Measure, ...]
    """Other ways to measure the same: one that clearly says the opposite leaves the hypothesis undecided."""
    contrasts: tuple[Contrast, ...]
    at_least: int
    """How many of them must hold; 0: all."""
    ratio: bool
    """Whether bounds are factors, and what is compared are ratios."""
    notes: tuple[str, ...]

    @property
    def cells(self) -> list[Settings]:
        """Those that it compares, each once."""
        unique = {str(sorted(cell.items())): cell for contrast in self.contrasts for cell in contrast.cells}
        return list(unique.values())


def contrasts(
    where: str,
    relation: Mapping[str, Any],
    each: Sequence[Settings],
    axes: Mapping[str, Sequence[Any]],
    *,
    equal: float = 0.0,
) -> tuple[Contrast, ...]:
    """The comparisons of a relation, at each of the settings.

    Args:
        where: the hypothesis's place in the file, for errors.
        relation: ``order``, ``much``, ``among``, ``within``, ``best``, ``compare``; None for what is not given.
        axes: key → its values in the study.
        equal: what the comparison of two equal cells gives: 0, or 1 for ratios.

    Raises:
        InputError: it is not exactly one relation, or that one is not what it should be.
    """
    given = [name for name in _RELATIONS if relation[name] is not None]
    if relation["best"] is not None:
        given = [name for name in given if name != "among"]
    if len(given) != 1:
        raise InputError(where, ", ".join(given) or "no relation", f"must have one of {', '.join(_RELATIONS)}")
    build = {"order": _order, "among": _among, "best": _best, "compare": _compare}[given[0]]
    base = build(where, relation, axes, equal)
    return tuple(
        Contrast(
            {**contrast.of, **settings},
            None if contrast.over is None else {**contrast.over, **settings},
            contrast.low,
            contrast.high,
        )
        for settings in each
        for contrast in base
    )


def _order(where: str, relation: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], equal: float) -> list[Contrast]:
    key, order = _pair(f"{where}.order", relation["order"])
    if not isinstance(order, str):
        raise InputError(f"{where}.order.{key}", order, "must be values with > or >> between them, as in 'relu > gelu'")
    words = re.split(r"\s*(>>|>)\s*", order.strip())
    values = [_of_axis(f"{where}.order.{key}", word, axes.get(key, ())) for word in words[::2]]
    if len(values) < 2:
        raise InputError(f"{where}.order.{key}", order, "must be values with > or >> between them, as in 'relu > gelu'")
    if ">>" in words and relation["much"] is None:
        raise InputError(f"{where}.much", "???", "is missing: by how much is >>?")
    margins = [relation["much"] if sign == ">>" else equal for sign in words[1::2]]
    return [
        Contrast({key: a}, {key: b}, low=margin)
        for (a, b), margin in zip(itertools.pairwise(values), margins, strict=True)
    ]


def _among(where: str, relation: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], equal: float) -> list[Contrast]:
    key, values = _pair(f"{where}.among", relation["among"])
    margin = relation["within"]
    if margin is None:
        raise InputError(f"{where}.within", "???", "is missing: within which margin?")
    if not isinstance(values, (list, tuple)) or len(values) < 2:
        raise InputError(f"{where}.among.{key}", values, "must be a list of two values or more")
    return [
        Contrast({key: a}, {key: b}, low=equal - margin, high=equal + margin)
        for a, b in itertools.combinations(values, 2)
    ]


def _best(where: str, relation: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], equal: float) -> list[Contrast]:
    key, best = _pair(f"{where}.best", relation["best"])
    values: Sequence[Any] = axes.get(key, ())
    if relation["among"] is not None:
        other, values = _pair(f"{where}.among", relation["among"])
        if other != key:
            raise InputError(f"{where}.among", other, f"must be values of {key}, as best is")
    others = [value for value in values if value != best]
    if not others:
        raise InputError(f"{where}.best.{key}", best, "has nothing to be compared with; give the axis its values")
    return [Contrast({key: best}, {key: value}, low=equal) for value in others]


def _compare(
    where: str, relation: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], equal: float
) -> list[Contrast]:
    content = relation["compare"]
    return [
        _one_comparison(f"{where}.compare[{i}]", part)
        for i, part in enumerate(content if isinstance(content, (list, tuple)) else [content])
    ]


def _one_comparison(where: str, content: Any) -> Contrast:
    if not isinstance(content, Mapping) or not {*content} <= {"of", "over", "above", "below"} or "of" not in content:
        raise InputError(where, content, "must be a mapping with of, and if need be over, above and below")
    bounds = {}
    for word, bound in (("above", -math.inf), ("below", math.inf)):
        value = content.get(word, bound)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise InputError(f"{where}.{word}", value, "must be a number")
        bounds[word] = float(value)
    if not bounds["above"] < bounds["below"]:
        raise InputError(f"{where}.above", bounds["above"], "must be less than below")
    if math.isinf(bounds["above"]) and math.isinf(bounds["below"]):
        raise InputError(where, "no bound", "must have above, below, or both")
    cells = [content["of"], content.get("over")]
    for word, cell in zip(("of", "over"), cells, strict=True):
        if cell is not None and not isinstance(cell, Mapping):
            raise InputError(f"{where}.{word}", cell, "must be a mapping of keys to values; {} is the baseline")
    return Contrast(cells[0], cells[1], bounds["above"], bounds["below"])


def _pair(where: str, content: object) -> tuple[str, Any]:
    if not isinstance(content, Mapping) or len(content) != 1:
        raise InputError(where, content, "must be one key and its values")
    ((key, value),) = content.items()
    return str(key), value


def _of_axis(where: str, word: str, values: Sequence[Any]) -> Any:
    """The axis's value that is written so."""
    for value in values:
        if is_written(value, word):
            return value
    known = ", ".join(map(str, values)) or "none"
    raise InputError(where, word, f"must be a value of the axis; they are {known}")


def is_written(value: Any, word: str) -> bool:
    """Whether a text says the value: ``relu``, and 0.1 as ``0.1`` or ``1e-1``."""
    if str(value) == word:
        return True
    try:
        return isinstance(value, (int, float)) and float(word) == value
    except ValueError:
        return False
