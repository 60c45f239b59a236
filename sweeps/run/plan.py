"""A sweep's plan: every point composed, checked and frozen before the first job starts.

Composing a configuration costs Hydra some 50 ms, so it is done once for each combination of group choices, and
plain values are patched into a copy. The result is plain data: no later edit of a YAML file changes a sweep.
"""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from mlp import data
from mlp.config import RunConfig
from mlp.files import DamagedRun
from mlp.runs import RunDir
from mlp.schema import InputError
from sweeps.run import where
from sweeps.run.job import Outcome

_ABSENT = object()


@dataclass(frozen=True)
class Point:
    """One run of a sweep: what was asked for, and the frozen configuration that came of it."""

    overrides: tuple[str, ...]
    values: Mapping[str, Any]  # as RunConfig.from_mapping takes them; out and other paths absolute
    config: RunConfig

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def run(self) -> RunDir:
        return RunDir.of(self.config.out, self.run_id)

    def with_threads(self, threads: int) -> "Point":
        """The same run on so many BLAS threads, unless the configuration says how many itself."""
        if self.config.threads is not None:
            return self
        return Point(self.overrides, {**self.values, "threads": threads}, replace(self.config, threads=threads))


@dataclass(frozen=True)
class Ended:
    """A point and how it ended."""

    point: Point
    outcome: Outcome


def split(points: list[Point]) -> tuple[list[Ended], list[Point]]:
    """Those that have come to their end already, and those with something left to train."""
    ended, left = [], []
    for point in points:
        try:
            result = point.run.result(point.config.epochs)
        except DamagedRun:
            result = None  # the job will find out what can be saved
        if result is None:
            left.append(point)
        else:
            ended.append(Ended(point, Outcome.of(result)))
    return ended, left


class Planner:
    """Composes points; ``master`` is the configuration of the multirun itself."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], dict[str, Any] | DictConfig] = {}
        # Hydra answers these in milliseconds, by reading directories and copying configurations.
        self._parse = lru_cache(maxsize=None)(self._parser.parse_override)
        self._is_group = lru_cache(maxsize=None)(lambda key: bool(loader.get_group_options(key)))
        self._is_key = lru_cache(maxsize=None)(self._find_key)

    def plan(self, points: Iterable[tuple[tuple[str, ...], Sequence[str]]]) -> list[Point]:
        """Different runs, in order; of points that are one run, the one with the most epochs.

        Args:
            points: overrides, and the conditions that must hold.

        Raises:
            InputError: a point cannot be used; the message says which.
        """
        planned: dict[str, Point] = {}
        for number, (overrides, conditions) in enumerate(points, start=1):
            point = self._point(number, overrides, conditions)
            if point is not None:
                known = planned.get(point.run_id)
                if known is None or known.config.epochs < point.config.epochs:
                    planned[point.run_id] = point
        for choice in {str(point.config.data): point.config.data for point in planned.values()}.values():
            data.load(choice.name, choice.options)  # a damaged file is an error now, and the cache is filled once
        return list(planned.values())

    def _point(self, number: int, overrides: tuple[str, ...], conditions: Sequence[str]) -> Point | None:
        values = self._values(overrides)
        if conditions:
            names = flat(values) | self._choices(overrides)
            if not all(where.holds(condition, names) for condition in conditions):
                return None
        try:
            config = RunConfig.from_mapping(values)
        except InputError as error:
            raise InputError(
                error.field, error.value, f"{error.allowed} (point {number}: {' '.join(overrides)})"
            ) from None
        return Point(overrides, values, config)

    def _values(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        """The nested mapping that Hydra would compose."""
        parsed = [self._parse(text) for text in overrides]
        composing = tuple(
            text for text, override in zip(overrides, parsed, strict=True) if not self._is_plain(override)
        )
        base = self._composed.get(composing)
        if base is None:
            base = self._composed[composing] = self._compose(composing)
        patched = copy.deepcopy(base)
        for override in parsed:
            if self._is_plain(override):
                self._patch(patched, override)
        if isinstance(patched, DictConfig):
            return _plain(patched)
        return patched

    def _choices(self, overrides: tuple[str, ...]) -> dict[str, str]:
        """Group → what was chosen of it, e.g. model → mlp2."""
        chosen = {str(group): str(name) for group, name in self._master.hydra.runtime.choices.items()}
        for override in map(self._parse, overrides):
            if self._is_group(override.key_or_group):
                chosen[override.key_or_group] = str(override.value())
        return chosen

    def _find_key(self, key: str) -> bool:
        return OmegaConf.select(self._master, key, throw_on_missing=False, default=_ABSENT) is not _ABSENT

    def _is_plain(self, override: Override) -> bool:
        """Whether it sets a value that is there, so that it needs no composing."""
        key = override.key_or_group
        return (
            not (override.is_add() or override.is_delete() or override.package)
            and not self._is_group(key)
            and self._is_key(key)
        )

    def _compose(self, overrides: tuple[str, ...]) -> dict[str, Any] | DictConfig:
        composed = self._loader.load_sweep_config(self._master, list(overrides))
        task = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        # Without interpolations a plain mapping will do, which is a hundred times cheaper to copy and patch.
        raw = OmegaConf.to_container(task, resolve=False)
        return task if "${" in str(raw) else _plain(task)

    def _patch(self, values: dict[str, Any] | DictConfig, override: Override) -> None:
        if isinstance(values, DictConfig):
            OmegaConf.update(values, override.key_or_group, override.value(), merge=True)
            return
        *parents, last = override.key_or_group.split(".")
        for parent in parents:
            values = values[parent]
        values[last] = override.value()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"data": {"name": "mnist"}}`` → ``{"data.name": "mnist"}``."""
    names: dict[str, Any] = {}
    for key, value in values.items():
        names |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return names


def _plain(task: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(task, resolve=True)
    values["out"] = os.path.abspath(values["out"])
    for group, option in (("data", "path"), ("tracker", "dir")):
        if values[group].get(option) is not None:
            values[group][option] = os.path.abspath(values[group][option])
    return dict(values)
