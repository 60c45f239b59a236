"""A program: a training function, and declarations about its configuration.

@sweeps.program(budget="epochs", ignore=["device"])
def train(cfg, run):
    for epoch in run.epochs(cfg.epochs, state=...):
        run.log(loss=...)
"""

import enum
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.runs.identity import digest
from sweeps.runs.metrics import Row
from sweeps.runs.schema import integer


@dataclass(frozen=True)
class RunSpec:
    """One run as requested: frozen, with everything that a worker needs."""

    run_id: str
    identity: Mapping[str, Any]
    """What decides its numbers, in plain types."""
    epochs: int
    """How far to take it."""
    out: Path
    """The results tree."""
    config: Any
    """What the training function gets."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The composed configuration, in plain types, as Hydra's record shows it."""
    tracker: tuple[str, Mapping[str, Any]] = ("none", {})
    checkpoint_every: int = 1
    """Epochs between checkpoints."""

    @property
    def run(self) -> RunDir:
        return RunDir.of(self.out, self.run_id)


def _describe(row: Row) -> str:
    shown = [f"{name} {value:.4g}" for name, value in row.metrics.items() if not name.endswith("seconds")]
    return "  ".join(shown[:4])


def _one(config: Any) -> float:
    return 1.0


def _no_advice(metric: str, config: Any) -> str | None:
    return None


def _as_it_is(spec: RunSpec, threads: int) -> RunSpec:
    return spec


def _lacks_nothing(spec: RunSpec) -> str | None:
    return None


@dataclass(frozen=True)
class Program:
    """A training function with its declarations; see :func:`sweeps.run` and :func:`sweeps.sweep`.

    Args:
        function: ``function(cfg)`` or ``function(cfg, run)``. What it returns (a number, or a mapping of names to
            numbers) is the result of a run without epochs.
        name: begins the ids of its runs.
        budget: the key that says how far to train (``epochs``), and does not change the result on the way.
        ignore: further keys that do not decide the result, such as ``device``.
        added: new key → the default that behaves as before: at that value it is not part of
            the identity, so that adding a key orphans no run.
        renamed: new key → the old one, under which it stays in the identity.
        metric: the metric that judges an epoch; the best epoch has its highest value, or lowest.
        maximize: which of the two.
        prepare: for programs that check configurations themselves: values → :class:`RunSpec`.
        describe: an epoch's metrics on one line; ``brief``: the one or two that matter.
        shown: the metric of a sweep's summary, and the names of its last and best value there.
        cost: of an epoch of this configuration, in any unit; ``speed`` is units a second, as far as is known.
        speed: measures that.
        advise: why a metric must not select configurations, e.g. since it is the test set's; None if it may.
        sized: the same specification for workers with this number of threads.
        lacks: a message about a finished run that lacks something that was requested, and is not trained again for it.
        config: the directory and name of its Hydra configuration, if it has one.
    """

    function: Callable[..., Any]
    name: str
    budget: str | None = None
    ignore: tuple[str, ...] = ()
    added: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    maximize: bool = True
    prepare: Callable[[Mapping[str, Any]], RunSpec] | None = None
    describe: Callable[[Row], str] = _describe
    brief: Callable[[Row], str] | None = None
    shown: tuple[str, str, str] | None = None
    cost: Callable[[Any], float] = _one
    speed: Callable[[], float] | None = None
    advise: Callable[[str, Any], str | None] = _no_advice
    sized: Callable[[RunSpec, int], RunSpec] = _as_it_is
    lacks: Callable[[RunSpec], str | None] = _lacks_nothing
    config: tuple[str, str] | None = None
    metrics: tuple[str, ...] | None = None
    """The names that it logs, if declared: a search can then reject a wrong one early."""
    origin: str | None = None
    """``module:name``, where that is not the function's own."""
    registries: tuple[str, ...] = ()
    """``module:NAME`` of mappings that users add to; their entries are sent to workers."""
    main: str | None = None
    """The file of ``__main__``, if the function is from there."""
    sources: Mapping[str, str] | None = None
    """SHA-256 of what was sent by value, on a worker; see :func:`sweeps.runs.code.sources`."""

    @property
    def source(self) -> str:
        """``module:name`` of the function."""
        if self.origin:
            return self.origin
        module = self.function.__module__
        if module == "__main__" and self.main:
            module = Path(self.main).stem
        return f"{module}:{getattr(self.function, '__qualname__', self.name)}"

    def spec(self, values: Mapping[str, Any], *, out: str | Path = "outputs") -> RunSpec:
        """Check a configuration and say which run it is.

        Raises:
            InputError: a value has no canonical form, or the budget is not a whole number ≥ 1.
        """
        if self.prepare:
            return self.prepare(values)
        epochs = 1
        if self.budget:
            asked = _get(values, self.budget)
            if asked is _ABSENT:
                raise InputError(self.budget, "???", "is missing; give it a value")
            epochs = integer(ge=1, le=10**9)(self.budget, asked)
        identity = self.identity(values)
        run_id = f"{_slug(self.name)}-{digest(identity)[:10]}"
        return RunSpec(run_id, identity, epochs, Path(os.path.abspath(out)), values, canonical(values))

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the run's numbers: the configuration without budget, ignored keys and defaults of added ones."""
        plain = canonical(values)
        for key in (self.budget, *self.ignore):
            if key is not None:
                _drop(plain, key)
        for new, old in self.renamed.items():
            if (value := _drop(plain, new)) is not _ABSENT:
                _put(plain, old, value)
        for key, default in self.added.items():
            found = _get(plain, key)
            if found is not _ABSENT and digest({key: found}) == digest({key: _canonical(key, default)}):
                _drop(plain, key)  # compared by digest, for which 1 is not True
        return plain

    def call(self, config: Any, run: object) -> Any:
        """What the function, with its run if it takes one, returns; None where it ends by ``sys.exit(0)``."""
        if self.prepare is None and isinstance(config, dict):
            from omegaconf import OmegaConf
            from omegaconf.errors import OmegaConfBaseException

            try:
                config = OmegaConf.create(config)
            except OmegaConfBaseException:  # NumPy's numbers, say
                config = OmegaConf.create(canonical(config))
        try:
            return self.function(config, run) if self._takes_run else self.function(config)
        except SystemExit as end:
            if end.code:
                raise
            return None

    @property
    def _takes_run(self) -> bool:
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            return False
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        return len([p for p in positional if p.default is p.empty]) >= 2 or any(p.name == "run" for p in positional[1:])


def program(
    function: "Callable[..., Any] | Program | None" = None,
    *,
    name: str | None = None,
    budget: str | None = None,
    ignore: Iterable[str] = (),
    added: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
    metric: str | None = None,
    maximize: bool = True,
    origin: str | None = None,
) -> Any:
    """Make a :class:`Program` of a function; with arguments, a decorator.

    Raises:
        InputError: it is not a function that can be called with a configuration.
    """

    def decorate(function: Callable[..., Any] | Program) -> Program:
        if isinstance(function, Program):
            return function
        if not callable(function):
            raise InputError("function", function, "must be a function of a configuration")
        own_name = getattr(function, "__name__", "function").strip("_<>")
        return Program(
            function, name or own_name, budget, tuple(ignore), added or {}, renamed or {}, metric, maximize,
            origin=origin, main=main_file(function),
        )  # fmt: skip

    return decorate if function is None else decorate(function)


def main_file(function: object) -> str | None:
    """The file of the main program, if the function is of it."""
    if getattr(function, "__module__", None) != "__main__":
        return None
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if file and os.path.isfile(file) else None  # with stdin it says "<stdin>"


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON's types, by value: 1.0 and −0.0 stay floats, paths and enums become text.

    Raises:
        InputError: a value has no canonical form; names its key.
    """
    return _canonical_mapping("config", "", values)


def _canonical_mapping(field: str, prefix: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {_key(key): _canonical(f"{prefix}{_key(key)}", value) for key, value in values.items()}
    if len(plain) < len(values):
        raise InputError(field, ", ".join(map(repr, values)), "must not have a key twice")
    return plain


def _key(key: object) -> str:
    if isinstance(key, (str, int, float, bool)):
        return str(key)
    raise InputError("config", key, "must have keys of text")


def _canonical(key: str, value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return str(value.name)
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, str):  # JSON and YAML do not have subclasses
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, float):
        return str(float(value)) if not math.isfinite(value) else float(value) + 0.0
    if isinstance(value, Mapping):
        return _canonical_mapping(key, f"{key}.", value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_canonical(f"{key}[{i}]", item) for i, item in enumerate(value)]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return _canonical(key, value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise InputError(key, value, f"a {type(value).__name__} has no canonical form; use numbers, texts, lists, mappings")


_ABSENT = object()


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return _ABSENT
        values = values[part]
    return values


def _drop(values: dict[str, Any], key: str) -> Any:
    """Take it out, and its groups if nothing else is in them."""
    first, _, rest = key.partition(".")
    if not rest:
        return values.pop(first, _ABSENT)
    group = values.get(first)
    if not isinstance(group, dict):
        return _ABSENT
    value = _drop(group, rest)
    if value is not _ABSENT and not group:
        del values[first]
    return value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError("renamed", key, f"cannot be within {parent}, which has a value of its own")
    values[last] = value


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:60] or "run"


def plain(config: Any) -> Mapping[str, Any]:
    if type(config).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(config, resolve=True)
    if not isinstance(config, Mapping):
        raise InputError("config", config, "must be a mapping of names to values")
    return config
