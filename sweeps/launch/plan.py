"""A sweep's plan: every point composed, checked and frozen before the first job starts.

Composing a configuration costs Hydra some 50 ms, so it is done once for each combination of group choices, and
plain values are patched into a copy. The result is plain data: no later edit of a YAML file changes a sweep.
"""

import contextlib
import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import split_key
from omegaconf.errors import OmegaConfBaseException

from sweeps.launch.application import Task, freeze, identity_of, sweep_dir
from sweeps.launch.compose import composing
from sweeps.launch.job import Job
from sweeps.runs.conditions import holds
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.program import Program, RunSpec
from sweeps.runs.session import belongs_to
from sweeps.runs.status import Result

_ABSENT = object()
# Numbers that Hydra's grammar reads as Python does.
_NUMBER = re.compile(r"([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)=(-?(?:0|[1-9]\d{0,17})(\.\d{1,18})?(e-?\d{1,2})?)", re.ASCII)


def split(jobs: Iterable[Job], program: Program | None = None) -> tuple[list[Result], list[Job]]:
    """Those that are finished, and those with something left to train."""
    ended, left = [], []
    for job in jobs:
        result: Result | None
        try:
            run = job.run
            status = run.read_status()
            if program:
                belongs_to(program, run, status)
            result = run.result(job.spec.epochs, status)
        except DamagedRun:
            result = None  # the job will find out what can be saved
        if result is None:
            left.append(job)
        else:
            ended.append(result)
    return ended, left


class Planner:
    """Composes the points of a program; ``master`` is the configuration of the multirun itself.

    Args:
        out: the results tree, where the program's own configuration does not name it.
        tracker: name and options, likewise.
    """

    def __init__(
        self, loader: ConfigLoader, master: DictConfig, program: Program, out: Path, tracker: Any = None,
        number_from: int = 0,
    ) -> None:  # fmt: skip
        self._loader, self._master, self._program, self._out, self._tracker = loader, master, program, out, tracker
        self._number = number_from
        self._is_application = isinstance(program.function, Task)
        self._sweep_dir = sweep_dir(master)
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], Any] = {}
        # Hydra answers these in milliseconds, by parsing, reading directories and copying configurations.
        self._parse = sparing(self._parser.parse_override)
        chosen = master.hydra.runtime.choices  # also of groups that a search path alone has
        self._is_group = lru_cache(maxsize=None)(lambda key: key in chosen or bool(loader.get_group_options(key)))
        self._is_key = lru_cache(maxsize=None)(self._find_key)

    def plan(self, points: Iterable[tuple[tuple[str, ...], Sequence[str]]]) -> list[Job]:
        """Different runs, in order; of points with the same run, the one with the most epochs.

        Args:
            points: overrides, and the conditions that must hold.

        Raises:
            InputError: a point cannot be used; the message says which.
        """
        planned: dict[str, Job] = {}
        for number, (overrides, conditions) in enumerate(points, start=1):
            job = self._point(number, overrides, conditions)
            if job is not None:
                known = planned.get(job.run_id)
                if known is None or known.spec.epochs < job.spec.epochs:
                    planned[job.run_id] = job
        if self._is_application:
            return [self._numbered(job) for job in planned.values()]
        return list(planned.values())

    def _point(self, number: int, overrides: tuple[str, ...], conditions: Sequence[str]) -> Job | None:
        with _named(number, overrides):
            composed = self._composed_with(overrides)
        values = identity_of(_task(composed)) if self._is_application else composed
        if conditions:
            names = flat(values) | self._choices(overrides)
            if not all(holds(condition, names) for condition in conditions):
                return None
        with _named(number, overrides):
            spec = self._spec(values)
        if self._is_application:
            spec = replace(spec, config=composed, values={})
        return Job(overrides, spec)

    def _spec(self, values: Mapping[str, Any]) -> RunSpec:
        spec = self._program.spec(values, out=self._out)
        return spec if self._tracker is None else replace(spec, tracker=self._tracker)

    def _numbered(self, job: Job) -> Job:
        """An application's job with what Hydra's launcher would say of it, and its output directory."""
        config, number = job.spec.config, self._number
        self._number += 1
        with open_dict(config.hydra):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
            if self._sweep_dir is None:
                config.hydra.sweep.dir = str(job.run.path)
                config.hydra.sweep.subdir = "job"  # apart from our files: it may have a metrics.csv, too
        return replace(job, spec=replace(job.spec, config=freeze(config)))

    def _composed_with(self, overrides: tuple[str, ...]) -> Any:
        """What Hydra would compose: a nested mapping, or, for an application, its whole configuration."""
        parsed = [self._parse(text) for text in overrides]
        plain = [self._is_plain(override) for override in parsed]
        composing = tuple(text for text, is_plain in zip(overrides, plain, strict=True) if not is_plain)
        base = self._composed.get(composing)
        if base is None:
            base = self._composed[composing] = self._compose(composing)
        patched = copy.deepcopy(base) if isinstance(base, DictConfig) else _copied(base)
        for override in itertools.compress(parsed, plain):
            self._patch(patched, override)
        if self._is_application:
            self._say_overrides(patched, overrides, parsed)
        elif isinstance(patched, DictConfig):
            return _plain(patched)
        return patched

    def _say_overrides(self, config: DictConfig, overrides: Sequence[str], parsed: Sequence[Override]) -> None:
        with open_dict(config.hydra):
            config.hydra.overrides.task = list(overrides)
            names = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = get_overrides_dirname(
                overrides=[override for override in parsed if not override.key_or_group.startswith("hydra")],
                kv_sep=names.kv_sep, item_sep=names.item_sep, exclude_keys=names.exclude_keys,
            )  # fmt: skip

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
        """Whether it sets a value that is there, no ${…} or mapping to be merged, so that it needs no composing."""
        key = override.key_or_group
        return (
            not (override.is_add() or override.is_delete() or override.package)
            and "{" not in override.get_value_element_as_str()
            and not self._is_group(key)
            and self._is_key(key)
        )

    def _compose(self, overrides: tuple[str, ...]) -> Any:
        with composing():
            composed = self._loader.load_sweep_config(self._master, list(overrides))
        if self._is_application:
            return composed
        task = composed
        with read_write(task), open_dict(task):
            del task["hydra"]
        # Without interpolations and types a plain mapping will do, which is a hundred times cheaper to copy and patch.
        raw = OmegaConf.to_container(task, resolve=False)
        return task if "${" in str(raw) or _is_typed(task) else _plain(task)

    def _patch(self, values: Any, override: Override) -> None:
        if isinstance(values, DictConfig):
            try:
                OmegaConf.update(values, override.key_or_group, override.value(), merge=True)
            except OmegaConfBaseException as error:
                said = str(error).splitlines()[0]
                raise InputError(override.key_or_group, override.get_value_element_as_str(), said) from None
            return
        *parents, last = split_key(override.key_or_group)
        for parent in parents:
            values = values[_place(values, parent)]
        values[_place(values, last)] = override.value()


def sparing(parse: Callable[[str], Override]) -> Callable[[str], Override]:
    """The same, by parsing a text once, and of a key's numbers, such as thousands of seeds, but one."""
    parse_once = lru_cache(maxsize=None)(parse)

    def parsed(text: str) -> Override:
        number = _NUMBER.fullmatch(text)
        if not number:
            return parse_once(text)
        key, value, *is_float = number.groups()
        return replace(parse_once(f"{key}=1"), _value=float(value) if any(is_float) else int(value), input_line=text)

    return parsed


def _is_typed(node: Any) -> bool:
    """Whether there are declared types, into which Hydra converts values."""
    if OmegaConf.get_type(node) not in (dict, list, None) or node._metadata.element_type not in (Any, None):
        return True
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return False
    children = (node._get_node(key) for key in (node if OmegaConf.is_dict(node) else range(len(node))))
    return any(
        _is_typed(child) if OmegaConf.is_config(child) else child._metadata.ref_type is not Any for child in children
    )


def _copied(values: Any) -> Any:
    """Of mappings, lists and values that nothing changes; deepcopy takes seven times as long."""
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}
    return [_copied(value) for value in values] if isinstance(values, list) else values


def _place(values: Any, key: str) -> Any:
    return int(key) if isinstance(values, list) else key  # model.hidden.0 and model.hidden[0] are a list's


@contextlib.contextmanager
def _named(number: int, overrides: Sequence[str]) -> Iterator[None]:
    """An InputError says which point it is of."""
    try:
        yield
    except InputError as error:
        raise InputError(error.field, error.value, f"{error.allowed} (point {number}: {' '.join(overrides)})") from None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"data": {"name": "mnist"}}`` → ``{"data.name": "mnist"}``."""
    names: dict[str, Any] = {}
    for key, value in values.items():
        names |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return names


def _task(composed: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's own part."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _plain(task: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(task, resolve=True, throw_on_missing=False)
    return dict(values)
