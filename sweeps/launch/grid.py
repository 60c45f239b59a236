"""From grids to points: which combinations of overrides a sweep consists of, in which order.

A point is a list of overrides, ``["activ=gelu", "lr=0.1"]``. Grids come from an experiment's YAML, further axes (and
fixed values) from the command line, which wins over the YAML where both name a key:

    hydra:
      sweeper:
        grids:                        # a list, or a mapping of names to grids, which experiments can merge
          - activ: [relu, gelu]       # every combination …
            lr: 0.1,0.01              # … in Hydra's own syntax or as a list
            zip: {model: [mlp1, mlp2], epochs: [30, 60]}   # these vary together
            where: lr < 0.1 or activ == 'relu'             # only the points of which this is true
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, RangeSweep

from sweeps.runs.errors import InputError

Axis = list[tuple[str, ...]]
"""The settings of one key, or of several that vary together: each a tuple of overrides."""

_SEED = "seed"
_MOST = 100_000  # points of a sweep, all of which are composed and kept before the first is trained


class Grids:
    """The union of grids, each crossed with what the command line adds.

    Args:
        parser: Hydra's, which knows the config groups (for ``glob``).
        grids: from YAML, as plain data.
        params: axes of all grids, as Hydra's basic sweeper has them under ``hydra.sweeper.params``.
    """

    def __init__(self, parser: OverridesParser, grids: object, params: object = None) -> None:
        self._parser = parser
        self._grids = _as_list(grids)
        if not isinstance(params, Mapping | None):
            raise InputError("hydra.sweeper.params", params, "must be a mapping of keys to values")
        self._params = dict(params or {})

    def points(self, arguments: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str | None]]:
        """Pairs of a point's overrides and its grid's own ``where``; seeds outermost, then grid by grid.

        Raises:
            InputError: a grid is not what it should be.
        """
        line = {
            override.get_key_element(): self._axis(override)
            for override in self._parser.parse_overrides(list(arguments))
        }
        for key, value in self._params.items():
            line.setdefault(str(key), self._settings(f"hydra.sweeper.params.{key}", str(key), value))
        expanded = [self._expand(number, grid, line) for number, grid in enumerate(self._grids, start=1)]
        # A seed may come from the command line or from the grids; the same seeds are gathered across grids.
        seeds = dict.fromkeys(seed for axes, _ in expanded for seed in axes.get(_SEED, [()]))
        refuse_too_many("points", sum(math.prod(map(len, axes.values())) for axes, _ in expanded))
        for seed in seeds:
            for axes, where in expanded:
                if seed in axes.get(_SEED, [()]):
                    others = [axis for key, axis in axes.items() if key != _SEED]
                    for combination in itertools.product(*others):
                        yield (*itertools.chain(*combination), *seed), where

    def _expand(self, number: int, grid: object, line: Mapping[str, Axis]) -> tuple[dict[str, Axis], str | None]:
        """A grid's axes by key, the command line's first, and its own ``where``."""
        field = f"hydra.sweeper.grids[{number}]"
        if not isinstance(grid, Mapping):
            raise InputError(field, grid, "must be a mapping of keys to values")
        grid = dict(grid)
        where = condition(f"{field}.where", grid.pop("where", None))
        zipped = grid.pop("zip", None) or []
        axes: dict[str, Axis] = dict(line)
        for key, value in grid.items():
            if key not in line:
                axes[str(key)] = self._settings(f"{field}.{key}", str(key), value)
        for together in zipped if isinstance(zipped, (list, tuple)) else [zipped]:
            axis = self._zip(f"{field}.zip", together, line)
            if axis:
                axes[",".join(map(str, together))] = axis
        return axes, where

    def _zip(self, field: str, together: object, line: Mapping[str, Axis]) -> Axis:
        if not isinstance(together, Mapping) or len(together) < 2:
            raise InputError(field, together, "must be a mapping of two keys or more to lists of one length")
        columns = [
            self._settings(f"{field}.{key}", str(key), value) for key, value in together.items() if key not in line
        ]
        if len({len(column) for column in columns}) > 1:
            raise InputError(field, together, "must have lists of one length")
        return [tuple(itertools.chain(*row)) for row in zip(*columns, strict=True)]

    def _settings(self, field: str, key: str, value: object) -> Axis:
        if isinstance(value, (list, tuple)):
            if not value:
                raise InputError(field, value, "must have at least one value")
            values = [value_of(item) for item in value]
        else:
            values = [value_of(value)]
        if isinstance(value, str):  # Hydra's own syntax: 0.1,0.01 or range(1,5) or glob(*)
            values = [value]
        overrides = self._parser.parse_overrides([f"{key}={text}" for text in values])
        return [setting for override in overrides for setting in self._axis(override)]

    @staticmethod
    def _axis(override: Override) -> Axis:
        key = override.get_key_element()
        if override.is_delete():
            return [(str(override.input_line),)]
        if not override.is_sweep_override():
            return [(f"{key}={override.get_value_element_as_str()}",)]
        if not override.is_discrete_sweep():
            raise InputError(
                key,
                override.get_value_string(),
                "is a continuous range; the grid sweeper wants values, or choose a search",
            )
        value = override.value()
        if isinstance(value, RangeSweep):
            refuse_too_many(key, steps(key, value), str(override.input_line).partition("=")[2])
        return [(f"{key}={text}",) for text in override.sweep_string_iterator()]


def condition(field: str, value: object) -> str | None:
    """A check as in :mod:`sweeps.runs.schema`: null, or the text of a condition."""
    if value is not None and not isinstance(value, str):
        raise InputError(field, value, "must be a condition as a text, like lr <= 0.01 or model == 'mlp2'")
    return value or None


def steps(key: str, values: RangeSweep) -> float:
    """How many values a range has.

    Raises:
        InputError: it never ends.
    """
    assert values.start is not None
    assert values.stop is not None
    count = (values.stop - values.start) / values.step if values.step else math.inf
    if not math.isfinite(count):
        raise InputError(key, f"range({values.start},{values.stop},{values.step})", "must have an end")
    return max(0, math.ceil(count))


def refuse_too_many(field: str, count: float, value: str = "") -> None:
    """Raise InputError if a sweep has too many points for the memory."""
    if count > _MOST:
        said = f"{count:,}" if count < 10**15 else f"{count:.0e}"
        raise InputError(field, value or said, f"would be {said} points; a sweep has at most {_MOST:,}")


def value_of(value: object) -> str:
    """A YAML value in the words of Hydra's override grammar."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(value_of, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{value_of(item)}" for key, item in value.items()) + "}"
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote(value)
    return str(value)


def _quote(text: str) -> str:
    plain = text.isascii() and text and all(character.isalnum() or character in "_-./" for character in text)
    if plain:
        return text
    from hydra.core.override_parser.types import Quote

    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _as_list(grids: object) -> list[Any]:
    if not grids:
        return [{}]
    if isinstance(grids, Mapping):
        return list(grids.values())
    if isinstance(grids, Iterable) and not isinstance(grids, str):
        return list(grids)
    raise InputError("hydra.sweeper.grids", grids, "must be a list of grids, or a mapping of names to grids")
