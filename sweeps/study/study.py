"""What a study says, section by section.

A study compares *cells*. A cell is a configuration, named by the settings in which it differs from the study's
baseline; its seeds are its sample.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.study.hypotheses import Hypothesis, Settings
from sweeps.study.measures import Measure

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Axis:
    """A key that the study varies."""

    key: str
    values: tuple[Value, ...]
    title: str
    """``learning rate``; the key itself if the file gives none."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Value, as text → its name in figures: ``360`` → ``1 hidden layer``."""
    short: Mapping[str, str] = field(default_factory=dict)
    """Value → its name in tables and labels, where that is another one: ``360`` → ``1L``."""
    train: Mapping[str, str] = field(default_factory=dict)
    """Value → how the program takes it on its command line, where that differs: ``360`` → ``mlp1``."""
    style: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Value → colour and marker."""

    def name(self, value: Value) -> str:
        return self.names.get(written(value), written(value))

    def label(self, value: Value) -> str:
        """``ReLU``, ``1L``, and ``lr 0.01`` for a value without a name."""
        word = self.short.get(written(value)) or self.names.get(written(value))
        return word or f"{self.key} {written(value)}"

    def override(self, value: Value) -> str:
        """``model=mlp1``, in full precision."""
        text = written(value)
        exact = repr(value) if isinstance(value, float) and float(text) != value else text
        return f"{self.key}={self.train.get(text, exact)}"


@dataclass(frozen=True)
class Metric:
    """How a metric is named, drawn and compared."""

    name: str
    title: str
    """``valid accuracy``; the name itself if the file gives none."""
    axis: str
    """With its unit: ``accuracy (%)``; the title if the file gives none."""
    scale: str = "linear"
    """``linear``, ``log``, or ``accuracy``: percent, on an axis that is logarithmic in the error rate."""
    digits: int = 4
    """Decimals in tables."""
    maximize: bool = False
    """Whether its highest value is its extreme."""
    steps: str | None = None
    """The name under which steps within epochs log it: its extreme is over these. None: over epochs."""
    epochs: int | None = None
    """The last epoch that counts for its extreme; None: every epoch counts."""


@dataclass(frozen=True)
class Seeds:
    """Which seeds are for what."""

    key: str
    design: tuple[int, ...]
    """Seeds that were seen when margins were chosen; they are shown, and not judged."""
    looks: tuple[int, ...]
    """Numbers of fresh seeds at which the hypotheses are judged, ascending."""

    given: tuple[int, ...] = ()
    """Fresh seeds that the file names; after them, and without any, it is 0, 1, 2, …"""

    def fresh(self, count: int) -> tuple[int, ...]:
        """The first ``count`` seeds that are not for design."""
        others = (seed for seed in itertools.count() if seed not in self.given)
        seeds = (seed for seed in itertools.chain(self.given, others) if seed not in self.design)
        return tuple(itertools.islice(seeds, count))


@dataclass(frozen=True)
class TableSpec:
    """A table of cells: metrics as rows, cells as columns."""

    name: str
    title: str
    cells: tuple[Settings, ...]
    metrics: Mapping[str, str]
    """Metric → its word in the table."""
    at: tuple[str, ...]
    """Of ``last``, ``best``, ``extreme``."""
    reference: Mapping[str, Mapping[str, float]]
    """Label of a cell → metric → the number to compare with."""
    notes: tuple[str, ...] = ()
    panel: int = 0
    """Columns a part of a wide table; 0: all."""
    axis: str | None = None
    """The key whose values are the cells, if they are one axis: other values of it that were run come last."""


@dataclass(frozen=True)
class Panel:
    """One axes' worth of a figure: a metric's curves over the epochs, a line for each value of an axis."""

    lines: str
    metric: str
    settings: Settings


@dataclass(frozen=True)
class FigureSpec:
    """Panels, row by row."""

    name: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int
    title: str = ""
    """Above the panels, where they are drawn as the reference draws them."""
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The axes whose values are lines."""
        return tuple(dict.fromkeys(panel.lines for panel in self.panels))


@dataclass(frozen=True)
class Reference:
    """Published numbers to compare with."""

    name: str
    numbers: Path | None
    """YAML: groups of cells, each with its metrics."""
    curves: Path | None
    """CSV: :mod:`sweeps.study.reference`."""
    reading: Mapping[str, float]
    """Metric → how far two readings of one point of the curves may differ."""
    notes: tuple[str, ...] = ()
    """What its numbers are, for the tables that show them."""


@dataclass(frozen=True)
class Untested:
    """A statement that the study cannot test, and why."""

    text: str
    quote: str
    reason: str


@dataclass(frozen=True)
class Study:
    """What a study's file says."""

    name: str
    word: str
    """Its name or path, as given."""
    path: Path
    title: str
    source: str
    language: str
    """Of the quotations, as HTML names it: ``zh``."""
    command: str
    """What trains its runs, before the overrides: ``python -m mlp.train``."""
    runs: tuple[str, ...]
    """Overrides, each entry of one sweep: ``experiment=report``."""
    out: str
    """The key by which the command takes the results tree."""
    epochs: int
    """The epoch up to which its runs are trained, and at which they are compared."""
    seeds: Seeds
    baseline: Settings
    axes: Mapping[str, Axis]
    held: Mapping[str, Axis]
    """Keys that are not varied, for their titles and names."""
    metrics: Mapping[str, Metric]
    reference: Reference | None
    measures: Mapping[str, Measure]
    variance: str
    """How variances are estimated: ``pooled``, ``separate`` or ``paired``."""
    tables: Mapping[str, TableSpec]
    figures: Mapping[str, FigureSpec]
    hypotheses: Mapping[str, Hypothesis]
    untested: tuple[Untested, ...]

    def label(self, settings: Settings) -> str:
        """``ReLU 2L``, ``lr 0.01``: the settings in words, in the axes' order; ``baseline`` for none."""
        order = list(self.axes)
        keys = sorted(settings, key=lambda key: order.index(key) if key in order else len(order))
        return " ".join(self.axis(key).label(settings[key]) for key in keys) or "baseline"

    def overrides(self, settings: Settings) -> tuple[str, ...]:
        """What the command takes for a cell: every axis, since the program's own defaults may not be the baseline's."""
        complete = {key: self.baseline[key] for key in self.axes} | dict(settings)
        return tuple(self.axis(key).override(value) for key, value in complete.items())

    def differences(self, settings: Settings) -> tuple[str, ...]:
        """A cell in short: those of its overrides that are not the baseline's."""
        return tuple(
            self.axis(key).override(value) for key, value in settings.items() if value != self.baseline.get(key)
        )

    @property
    def training(self) -> tuple[str, ...]:
        """The command that trains its runs."""
        return "mlp-sweeps", "train", f"study={self.word}"

    def axis(self, key: str) -> Axis:
        """The key's axis; of a key without one, an axis without names."""
        return self.axes.get(key) or self.held.get(key) or Axis(key, (), key)

    def metric(self, name: str) -> Metric:
        """How a metric is shown; one that is not in the file is shown by its name."""
        return self.metrics.get(name) or Metric(name, name, name)

    def cells(self) -> tuple[Settings, ...]:
        """Every cell that a table, figure or hypothesis needs, each once."""
        needed = [cell for table in self.tables.values() for cell in table.cells]
        for figure in self.figures.values():
            for panel in figure.panels:
                needed += [{**panel.settings, panel.lines: value} for value in self.axes[panel.lines].values]
        needed += [cell for hypothesis in self.hypotheses.values() for cell in hypothesis.cells]
        unique = {tuple(sorted(self.complete(cell).items(), key=lambda item: item[0])): cell for cell in needed}
        return tuple(unique.values())

    def complete(self, settings: Settings) -> dict[str, Value]:
        """A cell with the baseline's values for what it does not set."""
        return {**self.baseline, **settings}


def written(value: Value) -> str:
    """A value as labels and overrides have it: ``0.01``, ``relu``, ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
