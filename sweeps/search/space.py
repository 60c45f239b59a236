"""A search's space in Hydra's override syntax, from the command line or from YAML.

    lr=tag(log,interval(1e-4,1e-1))   a number, continuous, here uniform in its logarithm
    mo=interval(0,0.99)
    bsz=int(interval(10,500))         a whole number, both ends included
    wd=range(0,0.01,0.001)            steps; the end is not included, as in Python
    activ=relu,gelu                   one of these, also choice(relu,gelu)

A key with one value is a plain override; ``seed`` with several is not part of the space: each point is
averaged over them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any, final

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from sweeps.launch.grid import value_of
from sweeps.runs.errors import InputError
from sweeps.runs.schema import Check, integer, list_of

_SEED = "seed"
MOST_VALUES = 1_000_000
"""Of an axis whose values are gone through one by one, and points of a space likewise."""
_MOST_SEEDS = 1000

Value = str | int | float
"""A number of a span, or the words of a choice as an override has them."""

Params = Mapping[str, Value]


@final
@dataclass(frozen=True)
class Choice:
    """One of some values that have no order."""

    key: str
    texts: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.texts)

    def values(self) -> Sequence[Value]:
        return self.texts

    def probes(self) -> Sequence[Value]:
        return self.texts

    def draw(self, rng: np.random.Generator) -> Value:
        return self.texts[int(rng.integers(len(self.texts)))]

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, "values": list(self.texts)}


@final
@dataclass(frozen=True)
class Span:
    """A number from ``low`` to ``high``, both included: any, or every ``step``-th; whole if the ends are."""

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def count(self) -> int | None:
        """Values; None if it is continuous."""
        if self.step is None:
            return None
        width = self.high - self.low
        return int(width) // int(self.step) + 1 if self.whole else round(width / self.step) + 1

    def values(self) -> Sequence[Value]:
        """All of them.

        Raises:
            InputError: it is continuous, or too many.
        """
        if self.count is None:
            raise InputError(self.key, self._shown(), "is continuous; a grid wants values, e.g. 0.1,0.01 or range(…)")
        if self.count > MOST_VALUES:
            raise InputError(self.key, self._shown(), f"has {self.count:,} values; must have at most {MOST_VALUES:,}")
        return [self._at(i) for i in range(self.count)]

    def _at(self, i: int) -> Value:
        step = self.step or 0
        if self.whole:
            return self.low + i * int(step)
        return float(Decimal(repr(self.low)) + i * Decimal(repr(step)))  # 0.1 + 2 × 0.1 is 0.3

    def probes(self) -> Sequence[Value]:
        return [self.low, self.high]

    def draw(self, rng: np.random.Generator) -> Value:
        if self.count is not None and not self.log:
            return self._at(int(rng.integers(self.count)))
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        x = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        x = min(max(x, self.low), self.high)
        return round(x) if self.whole else x

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, "low": self.low, "high": self.high, "step": self.step, "log": self.log}

    def _shown(self) -> str:
        return f"{self.low:g} to {self.high:g}"


Axis = Choice | Span


@final
@dataclass(frozen=True)
class Space:
    """Axes to choose along, what is fixed, and the seeds of every point (none: what the configuration says)."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]
    seeds: tuple[str, ...]

    @classmethod
    def parse(cls, parser: OverridesParser, params: object, arguments: Sequence[str], seeds: object) -> "Space":
        """From ``hydra.sweeper.params`` and the command line, which wins where both name a key.

        Args:
            seeds: ``hydra.sweeper.seeds``: how many, or which; None leaves it to ``seed``.

        Raises:
            InputError: names the key.
        """
        words = {**_from_yaml(params), **{_key(parser, text): text for text in arguments}}
        axes: list[Axis] = []
        fixed: list[str] = []
        drawn: tuple[str, ...] = ()
        for override in parser.parse_overrides(list(words.values())):
            key = override.get_key_element()
            if not override.is_sweep_override():
                fixed.append(_setting(override))
            elif key == _SEED:
                drawn = _seeds_of(override)
            else:
                axes.append(_axis(override))
        if seeds is not None:
            if drawn or any(text.startswith(f"{_SEED}=") for text in fixed):
                raise InputError("hydra.sweeper.seeds", seeds, "is given beside seed; give one of the two")
            drawn = _seeds_option(seeds)
        if not axes:
            raise InputError(
                "hydra.sweeper.params",
                "{}",
                "has nothing to search; e.g. lr=tag(log,interval(1e-4,1e-1)) activ=relu,gelu",
            )
        return cls(tuple(axes), tuple(fixed), drawn)

    def without(self, key: str) -> "Space":
        """The same without a fixed override."""
        return Space(self.axes, tuple(text for text in self.fixed if text.split("=")[0] != key), self.seeds)

    def overrides(self, params: Params) -> tuple[str, ...]:
        """Without seeds."""
        return (*self.fixed, *(f"{axis.key}={params[axis.key]}" for axis in self.axes))

    def probes(self) -> Iterator[Params]:
        """Points that together contain both ends of every span and every choice."""
        first = {axis.key: axis.probes()[0] for axis in self.axes}
        yield first
        for axis in self.axes:
            for value in axis.probes()[1:]:
                yield {**first, axis.key: value}

    @property
    def size(self) -> int | None:
        """Points of the grid; None if an axis is continuous."""
        counts = [axis.count for axis in self.axes]
        return None if None in counts else math.prod(count or 0 for count in counts)

    def grid(self) -> Iterator[Params]:
        """Every point, the last axis the fastest."""
        keys = [axis.key for axis in self.axes]
        for values in product(*(axis.values() for axis in self.axes)):
            yield dict(zip(keys, values, strict=True))

    def draw(self, rng: np.random.Generator) -> Params:
        return {axis.key: axis.draw(rng) for axis in self.axes}


def _from_yaml(params: object) -> dict[str, str]:
    if not isinstance(params, Mapping):
        raise InputError("hydra.sweeper.params", params, "must be a mapping of keys to values")
    words = {}
    for key, value in params.items():
        if isinstance(value, (list, tuple)):
            if not value:
                raise InputError(f"hydra.sweeper.params.{key}", value, "must have at least one value")
            words[str(key)] = f"{key}={','.join(map(value_of, value))}"
        else:  # a text is in Hydra's own words
            words[str(key)] = f"{key}={value if isinstance(value, str) else value_of(value)}"
    return words


def _key(parser: OverridesParser, text: str) -> str:
    return str(parser.parse_override(text).get_key_element())


def _setting(override: Override) -> str:
    if override.is_delete():
        return str(override.input_line)
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _seeds_of(override: Override) -> tuple[str, ...]:
    if not override.is_discrete_sweep():
        raise InputError(
            _SEED, override.get_value_string(), "must be values, e.g. seed=0,1,2: each point is averaged over"
        )
    value = override.value()
    count = _ends(override, value)[0] if isinstance(value, RangeSweep) else 0
    if count > _MOST_SEEDS:
        raise InputError(_SEED, override.get_value_string(), f"has {count:,} values; must have at most {_MOST_SEEDS:,}")
    return tuple(dict.fromkeys(override.sweep_string_iterator()))


def _ends(override: Override, sweep: RangeSweep) -> tuple[int, float, float]:
    """How many values a range has, the lowest and the highest; without going through them.

    Raises:
        InputError: it is empty or has no end.
    """
    key, text = override.get_key_element(), override.get_value_string()
    assert sweep.start is not None
    assert sweep.stop is not None
    try:
        start, stop, step = map(Fraction, (sweep.start, sweep.stop, sweep.step))
        count = math.ceil((stop - start) / step)
    except (ValueError, ArithmeticError):
        raise InputError(key, text, "must go from a number to another, in steps other than 0") from None
    if count < 1:
        raise InputError(key, text, "is an empty range")
    if count >= 2**63:
        raise InputError(key, text, f"has {float(count):.0e} values, which is too many to draw from")
    last = start + (count - 1) * step
    whole = all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step))
    ends = [int(end) if whole else float(end) for end in (start, last)]
    return count, min(ends), max(ends)


_COUNT: Check = integer(ge=1, le=_MOST_SEEDS)
_LIST: Check = list_of(integer(ge=0), allowed="must be how many, or a list of seeds", at_most=_MOST_SEEDS)


def _seeds_option(seeds: object) -> tuple[str, ...]:
    field = "hydra.sweeper.seeds"
    numbers = _LIST(field, seeds) if isinstance(seeds, (list, tuple)) else range(_COUNT(field, seeds))
    return tuple(dict.fromkeys(map(str, numbers)))


def _axis(override: Override) -> Axis:
    key, value = override.get_key_element(), override.value()
    tags = getattr(value, "tags", None) or set()
    if tags - {"log"} or (tags and override.is_choice_sweep()):
        raise InputError(key, override.get_value_string(), "has an unknown tag; there is log, for interval and range")
    if override.is_choice_sweep():
        return Choice(key, tuple(dict.fromkeys(override.sweep_string_iterator())))
    ends: list[float]
    step: float | None = None
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        ends = [value.start, value.end]
        if all(isinstance(end, int) for end in ends):
            step = 1
        if ends[0] == ends[1]:
            raise InputError(key, override.get_value_string(), "is one value alone")
    else:
        assert isinstance(value, RangeSweep)
        ends = list(_ends(override, value)[1:])
        step = abs(value.step)
    if not all(map(math.isfinite, ends)) or ends[0] > ends[1]:
        raise InputError(key, override.get_value_string(), "must go from a number to a larger one")
    log = "log" in tags
    if log and (ends[0] <= 0 or step not in (None, 1)):
        raise InputError(
            key, override.get_value_string(), "is logarithmic: its ends must be > 0, and a step can only be 1"
        )
    return Span(key, ends[0], ends[1], step, log)
