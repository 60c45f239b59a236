"""Read a study's YAML file and check every field of it: a name or a path → :class:`~sweeps.study.study.Study`."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sweeps.runs.errors import InputError
from sweeps.runs.schema import Check, flag, integer, list_of, number, one_of, suggest, text
from sweeps.study.hypotheses import Contrast, Hypothesis, Settings, contrasts
from sweeps.study.measures import MEASURES, Measure, Time
from sweeps.study.study import (
    Axis,
    FigureSpec,
    Metric,
    Panel,
    Reference,
    Seeds,
    Study,
    TableSpec,
    Untested,
    Value,
    written,
)

T = TypeVar("T")

MOST_SEEDS = 10_000
"""Of a study: each of them is a training of every cell."""
_MOST_CELLS = 10_000
_REQUIRED: Any = object()
_SUFFIX = ".yaml"
_OWN = Path("conf/study")


# -- finding the file ------------------------------------------------------------------------------------------------


def read(name: str, folders: Iterable[Path] = ()) -> Study:
    """The study in ``conf/study/<name>.yaml`` of the current directory or in one of ``folders``, or in a file ``name``.

    Raises:
        InputError: there is no such study, or a field of its file cannot be used.
    """
    path = find(name, folders)
    return parse(_content("study", name, path), path, name)


def _content(field: str, name: str, path: Path) -> object:
    """A YAML file's content; ``field`` and ``name`` say in an error which file it is."""
    try:
        return yaml.load(path.read_bytes(), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(field, name, f"cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split()).replace('in "<byte string>", ', "at ")
        raise InputError(field, name, f"is not YAML: {reason}") from None


def find(name: str, folders: Iterable[Path] = ()) -> Path:
    """The file that :func:`read` reads.

    Raises:
        InputError: there is none.
    """
    places = [_OWN, *folders]
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if path.is_file():
            return path
        raise InputError("study", name, "there is no such file")
    for folder in places:
        path = folder / f"{name}{_SUFFIX}"
        if path.is_file():
            return path
    known = sorted({path.stem for folder in places for path in folder.glob(f"*{_SUFFIX}")})
    listed = ", ".join(known) or "none"
    raise InputError("study", name, f"no such study{suggest(name, known)}; known: {listed}; or give a .yaml file")


def only(folders: Iterable[Path] = ()) -> str:
    """The name of the only study that can be found by name.

    Raises:
        InputError: there is none, or there are several.
    """
    known = sorted({path.stem for folder in [_OWN, *folders] for path in folder.glob(f"*{_SUFFIX}")})
    if len(known) != 1:
        raise InputError("study", "???", f"name one, as in study=NAME; known: {', '.join(known) or 'none'}")
    return known[0]


class _Loader(yaml.SafeLoader):
    """YAML as Hydra reads it: 1e-3 is a number, and a key that stands twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # what "<<" merges is not in it yet, and may be overridden
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


# -- from YAML to a Study --------------------------------------------------------------------------------------------


def parse(content: object, path: Path, word: str) -> Study:
    """A Study from the file's content.

    Raises:
        InputError: names the field, its value and what is allowed.
    """
    top = _fields(
        "",
        content,
        title=text(),
        source=(text(), ""),
        language=(text(), "en"),
        train=text(),
        runs=(_texts, ()),
        out=(text(), "hydra.sweeper.out"),
        epochs=integer(ge=1),
        seeds=(_as_is, [0, 1, 2]),
        baseline=_mapping,
        axes=(_mapping, {}),
        held=(_mapping, {}),
        metrics=(_mapping, {}),
        reference=(_as_is, None),
        measures=(_mapping, {}),
        variance=(one_of("pooled", "separate", "paired"), "pooled"),
        tables=(_mapping, {}),
        figures=(_mapping, {}),
        hypotheses=(_mapping, {}),
        untested=(_as_is, ()),
    )
    axes = {key: _axis(f"axes.{key}", key, value) for key, value in top["axes"].items()}
    for section, key in [*(("axes", key) for key in axes), *(("held", key) for key in top["held"])]:
        if key not in top["baseline"]:
            known = ", ".join(top["baseline"])
            raise InputError(
                f"{section}.{key}", key, f"must be a key of the baseline, which says where it is held; they are {known}"
            )
    measures = {
        name: _measure(f"measures.{name}", name, value, top["epochs"]) for name, value in top["measures"].items()
    }
    reference = _reference(top["reference"], path)
    numbers = _numbers(reference)
    build = _Builder(top["baseline"], axes, measures, numbers)
    return Study(
        name=path.stem,
        word=word,
        path=path,
        title=top["title"],
        source=top["source"],
        language=top["language"],
        command=top["train"],
        runs=top["runs"],
        out=top["out"],
        epochs=top["epochs"],
        seeds=_seeds(top["seeds"]),
        baseline=top["baseline"],
        axes=axes,
        held=_each("held", top["held"], _held),
        metrics=_each("metrics", top["metrics"], _metric),
        reference=reference,
        measures=measures,
        variance=top["variance"],
        tables=_each("tables", top["tables"], build.table),
        figures=_each("figures", top["figures"], build.figure),
        hypotheses=_each("hypotheses", top["hypotheses"], build.hypothesis),
        untested=_untested(top["untested"]),
    )


def _axis(where: str, key: str, content: object) -> Axis:
    if isinstance(content, (list, tuple)):
        content = {"values": content}
    words = _fields(
        where,
        content,
        values=_values,
        title=(text(), key),
        names=(_names, {}),
        short=(_names, {}),
        train=(_names, {}),
        style=(_names, {}),
    )
    style = {value: _style(f"{where}.style.{value}", look) for value, look in words.pop("style").items()}
    return Axis(key=key, style=style, **words)


def _held(where: str, key: str, content: object) -> Axis:
    return Axis(key, (), **_fields(where, content, title=(text(), key), names=(_names, {})))


def _metric(where: str, name: str, content: object) -> Metric:
    words = _fields(
        where,
        content,
        title=(text(), name),
        axis=(text(), None),
        scale=(one_of("linear", "log", "accuracy"), "linear"),
        digits=(integer(ge=0, le=15), 4),
        maximize=(flag(), None),
        extreme=(_mapping, {}),
    )
    extreme = _fields(f"{where}.extreme", words.pop("extreme"), steps=(text(), None), epochs=(integer(ge=1), None))
    words["axis"] = words["axis"] or words["title"]
    words["maximize"] = words["scale"] == "accuracy" if words["maximize"] is None else words["maximize"]
    return Metric(name, **words, **extreme)


def _style(where: str, look: str) -> tuple[str, str]:
    match look.split():
        case [color, marker]:
            return color, marker
    raise InputError(where, look, "must be a colour and a marker, as in '#0072B2 o'")


def _seeds(content: object) -> Seeds:
    if isinstance(content, (list, tuple)):
        seeds = tuple(dict.fromkeys(_whole_numbers("seeds", content)))
        if not 1 <= len(seeds) <= MOST_SEEDS:
            raise InputError("seeds", content, f"must be a list of 1 to {MOST_SEEDS:,} seeds")
        return Seeds("seed", (), (len(seeds),), seeds)
    words = _fields("seeds", content, key=(text(), "seed"), design=(_whole_numbers, ()), looks=(_whole_numbers, (3,)))
    if max(words["looks"], default=0) > MOST_SEEDS:
        raise InputError("seeds.looks", words["looks"], f"must be at most {MOST_SEEDS:,} seeds")
    if not words["looks"] or list(words["looks"]) != sorted(set(words["looks"])) or words["looks"][0] < 2:
        raise InputError("seeds.looks", words["looks"], "must be numbers of seeds, ascending, the first at least 2")
    return Seeds(**words)


def _measure(where: str, name: str, content: object, epochs: int) -> Measure:
    kinds = ", ".join(MEASURES)
    if not isinstance(content, Mapping) or not isinstance(content.get("take"), str):
        raise InputError(where, content, f"must be a mapping with take: one of {kinds}")
    take = one_of(*MEASURES)(f"{where}.take", content["take"])
    kind = MEASURES[take]
    words = _fields(
        where,
        {key: value for key, value in content.items() if key != "take"},
        **kind.options,
        unit=(text(), kind.unit),
        resolution=(number(ge=0), 0.0),
        level=(number(gt=0), None),
        diverged=(number(), None),
        items=(text(), None),
    )
    common = {key: words.pop(key) for key in ("unit", "resolution", "level", "diverged", "items")}
    return kind.build(name=name, horizon=epochs, **common, **words)


def _reference(content: object, path: Path) -> Reference | None:
    if content is None:
        return None
    words = _fields(
        "reference",
        content,
        name=text(),
        numbers=(text(), None),
        curves=(text(), None),
        reading=(_mapping, {}),
        notes=(_texts, ()),
    )

    def file(kind: str) -> Path | None:
        found = words[kind] and path.parent / words[kind]
        if found and not found.is_file():
            raise InputError(f"reference.{kind}", words[kind], f"there is no such file beside {path.name}")
        return found or None

    reading = {name: number(ge=0)(f"reference.reading.{name}", value) for name, value in words["reading"].items()}
    return Reference(words["name"], file("numbers"), file("curves"), reading, words["notes"])


def _numbers(reference: Reference | None) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    if reference is None or reference.numbers is None:
        return {}
    content = _content("reference.numbers", reference.numbers.name, reference.numbers)
    name = f"reference.numbers ({reference.numbers.name})"
    return {
        group: {
            cell: {
                key: number()(f"{group}.{cell}.{key}", value) for key, value in _mapping(f"{group}.{cell}", row).items()
            }
            for cell, row in _mapping(group, rows).items()
        }
        for group, rows in _mapping(name, content).items()
    }


def _untested(content: object) -> tuple[Untested, ...]:
    rows = list_of(_as_is, allowed="must be a list", at_most=1000)("untested", content) if content else []
    return tuple(
        Untested(**_fields(f"untested[{i}]", row, text=text(), quote=(text(), ""), reason=text()))
        for i, row in enumerate(rows)
    )


@dataclass(frozen=True)
class _Builder:
    """Sections that refer to other sections."""

    baseline: Settings
    axes: Mapping[str, Axis]
    measures: Mapping[str, Measure]
    numbers: Mapping[str, Mapping[str, Mapping[str, float]]]

    def table(self, where: str, name: str, content: object) -> TableSpec:
        words = _fields(
            where,
            content,
            title=text(),
            cells=_as_is,
            metrics=_as_is,
            at=(_texts, ("last", "best")),
            reference=(text(), None),
            notes=(_texts, ()),
            panel=(integer(ge=0), 0),
        )
        for i, place in enumerate(words["at"]):
            one_of("last", "best", "extreme")(f"{where}.at[{i}]", place)
        metrics = words["metrics"]
        if isinstance(metrics, (list, tuple)):
            metrics = {metric: metric for metric in _texts(f"{where}.metrics", metrics)}
        return TableSpec(
            name=name,
            title=words["title"],
            cells=self.cells(f"{where}.cells", words["cells"]),
            metrics=_names(f"{where}.metrics", metrics),
            at=words["at"],
            reference=self._group(f"{where}.reference", words["reference"]),
            notes=words["notes"],
            panel=words["panel"],
            axis=words["cells"] if isinstance(words["cells"], str) else None,
        )

    def figure(self, where: str, name: str, content: object) -> FigureSpec:
        words = _fields(
            where,
            content,
            caption=text(),
            title=(text(), ""),
            lines=_as_is,
            metrics=_texts,
            rows=(_as_is, [{}]),
            notes=(_texts, ()),
        )
        lines = (words["lines"],) if isinstance(words["lines"], str) else _texts(f"{where}.lines", words["lines"])
        for i, key in enumerate(lines):
            one_of(*self.axes)(f"{where}.lines[{i}]", key)
        rows = self.cells(f"{where}.rows", words["rows"])
        panels = [Panel(key, metric, settings) for key in lines for settings in rows for metric in words["metrics"]]
        return FigureSpec(name, words["caption"], tuple(panels), len(words["metrics"]), words["title"], words["notes"])

    def hypothesis(self, where: str, name: str, content: object) -> Hypothesis:
        words = _fields(
            where,
            content,
            text=text(),
            quote=(text(), ""),
            measure=one_of(*self.measures),
            also=(_texts, ()),
            each=(_as_is, [{}]),
            order=(_as_is, None),
            much=(number(gt=0), None),
            among=(_as_is, None),
            within=(number(gt=0), None),
            best=(_as_is, None),
            compare=(_as_is, None),
            at_least=(integer(ge=1), 0),
            ratio=(flag(), False),
            notes=(_texts, ()),
        )
        for i, other in enumerate(words["also"]):
            one_of(*self.measures)(f"{where}.also[{i}]", other)
        each = self.cells(f"{where}.each", words["each"])
        measure = self.measures[words["measure"]]
        is_ratio = words["ratio"] or isinstance(measure, Time)
        relation = {key: words[key] for key in ("order", "much", "among", "within", "best", "compare")}
        values = {key: axis.values for key, axis in self.axes.items()}
        found = contrasts(where, relation, each, values, equal=1.0 if is_ratio else 0.0)
        for contrast in found:
            for cell in contrast.cells:
                self._check_keys(where, cell)
        if words["at_least"] > len(found):
            raise InputError(f"{where}.at_least", words["at_least"], f"must be at most {len(found)}, its comparisons")
        if is_ratio:
            for contrast in found:
                self._check_ratio(where, contrast)
        return Hypothesis(
            name=name,
            text=words["text"],
            quote=words["quote"],
            measure=measure,
            also=tuple(self.measures[other] for other in words["also"]),
            contrasts=found,
            at_least=words["at_least"],
            ratio=is_ratio,
            notes=words["notes"],
        )

    def cells(self, where: str, content: object) -> tuple[Settings, ...]:
        """``model`` (every value of the axis), ``{model: [..], activ: [..]}`` (all combinations), or a list of such."""
        if isinstance(content, (list, tuple)):
            return tuple(cell for i, part in enumerate(content) for cell in self.cells(f"{where}[{i}]", part))
        if isinstance(content, str):
            content = {one_of(*self.axes)(where, content): None}
        columns = []
        for key, values in _mapping(where, content).items():
            if values is None:
                one_of(*self.axes)(where, key)
                values = self.axes[key].values
            columns.append([(key, value) for value in (values if isinstance(values, (list, tuple)) else [values])])
        if math.prod(map(len, columns)) > _MOST_CELLS:
            raise InputError(
                where, f"{math.prod(map(len, columns)):,} combinations", f"must be at most {_MOST_CELLS:,}"
            )
        cells = tuple(dict(combination) for combination in itertools.product(*columns))
        for cell in cells:
            self._check_keys(where, cell)
        return cells

    def _check_keys(self, where: str, cell: Settings) -> None:
        for key, value in cell.items():
            if key not in self.baseline:
                known = ", ".join(self.baseline)
                raise InputError(
                    where, key, f"must be a key of the baseline{suggest(key, self.baseline)}; they are {known}"
                )
            _value(f"{where}.{key}", value)

    def _group(self, where: str, name: str | None) -> Mapping[str, Mapping[str, float]]:
        return {} if name is None else self.numbers[one_of(*self.numbers)(where, name)]

    @staticmethod
    def _check_ratio(where: str, contrast: Contrast) -> None:
        if contrast.over is None:
            raise InputError(where, "ratio", "needs two cells to compare; give over")
        if not (contrast.low > 0 or contrast.low == -math.inf) or not contrast.high > 0:
            raise InputError(where, "ratio", "needs factors above 0 in above and below")


def _each(section: str, content: Mapping[str, object], build: Callable[[str, str, object], T]) -> dict[str, T]:
    return {str(name): build(f"{section}.{name}", str(name), value) for name, value in content.items()}


# -- checks ----------------------------------------------------------------------------------------------------------


def _fields(where: str, content: object, /, **checks: Check | tuple[Check, Any]) -> dict[str, Any]:
    """Check a mapping field by field; a pair is a check and the value of a field that is not there."""
    prefix = f"{where}." if where else ""
    if not isinstance(content, Mapping):
        raise InputError(where or "study", content, "must be a mapping of names to values")
    for key in content:
        if key not in checks:
            raise InputError(
                f"{prefix}{key}", content[key], f"no such field{suggest(key, checks)}; known: {', '.join(checks)}"
            )
    found = {}
    for key, check in checks.items():
        check, default = check if isinstance(check, tuple) else (check, _REQUIRED)
        if key in content:
            found[key] = check(f"{prefix}{key}", content[key])
        elif default is _REQUIRED:
            raise InputError(f"{prefix}{key}", "???", "is missing; give it a value")
        else:
            found[key] = default
    return found


def _as_is(where: str, value: object) -> object:
    return value


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, (str, int)) for key in value):
        raise InputError(where, value, "must be a mapping of names to values")
    return {str(key): item for key, item in value.items()}


def _names(where: str, value: object) -> dict[str, str]:
    return {written(key): text()(f"{where}.{key}", word) for key, word in _mapping_of_any(where, value).items()}


def _mapping_of_any(where: str, value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(where, value, "must be a mapping of values to names")
    return value


def _texts(where: str, value: object) -> tuple[str, ...]:
    items: Sequence[object] = (
        [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    )
    return tuple(text()(f"{where}[{i}]", item) for i, item in enumerate(items))


def _whole_numbers(where: str, value: object) -> tuple[int, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(integer(ge=0, le=2**63 - 1)(f"{where}[{i}]", item) for i, item in enumerate(items))


def _values(where: str, value: object) -> tuple[Value, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(where, value, "must be a list of values")
    return tuple(_value(f"{where}[{i}]", item) for i, item in enumerate(value))


def _value(where: str, value: object) -> Value:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise InputError(where, value, "must be a number, a text, true, false or null")
