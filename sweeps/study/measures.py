"""What a study measures of a run: one number from its learning curve, by name.

    last    a metric's mean over the last epochs
    first   its mean over the first epochs: how fast a run learns
    best    its value at the epoch at which another (or the same) is best
    lowest, highest   its extreme over the epochs
    until   epochs until it passes a threshold, interpolated
    rise    percent by which it has risen from its lowest, in means of several epochs
    table   a number from another table of the run, such as networks' stats.csv
    time    seconds of an epoch, timed alone (``timing.json``), by a name made of the cell's settings

A measure that is not here is a class and a line in :data:`MEASURES`.
"""

import io
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sweeps.read import filters
from sweeps.runs.errors import InputError
from sweeps.runs.files import read_file
from sweeps.runs.schema import Check, flag, integer, number, one_of, text

if TYPE_CHECKING:
    import pandas as pd


Curve = Mapping[str, npt.NDArray[np.float64]]
"""Metric → its value at each epoch."""


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """One number of a run."""

    name: str
    horizon: int
    """The study's epochs: later ones are not looked at, so that an extended run counts like the others."""
    unit: str
    resolution: float = 0.0
    """Step to which its values are rounded where they are recorded."""
    level: float | None = None
    """Differences of at most this much count as none; None: the study does not say."""
    diverged: float | None = None
    """What a metric counts as after a run diverged; None: such a run has no value."""
    items: str | None = None
    """What a run logged of single items (test images), whose mean is the metric: for statements beyond these items."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What is measured, for a reader."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The columns of the epochs that it reads."""

    @property
    def needs(self) -> int:
        """Epochs that a run must have."""
        return self.horizon

    @abstractmethod
    def of(self, curve: Curve, run: Path) -> float:
        """The number of a run.

        Args:
            curve: of each of ``metrics`` its (needs,) values, an epoch each.
            run: its directory.

        Raises:
            InputError: the run has not what is measured.
        """


@dataclass(frozen=True, kw_only=True)
class OfMetric(Measure):
    """Of one metric's curve."""

    metric: str

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)


@dataclass(frozen=True, kw_only=True)
class Last(OfMetric):
    minus: str | None
    """A metric to be subtracted."""
    epochs: int

    @property
    def text(self) -> str:
        what = _said(self.metric) if self.minus is None else f"{_said(self.metric)} less {_said(self.minus)}"
        if self.epochs == 1:
            return f"{what} at epoch {self.horizon}"
        return f"mean {what} over epochs {self.horizon - self.epochs + 1}–{self.horizon}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if self.minus is None else (self.metric, self.minus)

    def of(self, curve: Curve, run: Path) -> float:
        less = curve[self.minus][-self.epochs :].mean() if self.minus is not None else 0.0
        return float(curve[self.metric][-self.epochs :].mean() - less)


@dataclass(frozen=True, kw_only=True)
class First(OfMetric):
    """The area under the curve, as its mean height: it exists for runs that never pass a threshold, too."""

    epochs: int

    @property
    def text(self) -> str:
        return f"mean {_said(self.metric)} over the first {self.epochs} epochs"

    @property
    def needs(self) -> int:
        return self.epochs

    def of(self, curve: Curve, run: Path) -> float:
        return float(curve[self.metric].mean())


@dataclass(frozen=True, kw_only=True)
class Best(OfMetric):
    by: str
    maximize: bool

    @property
    def text(self) -> str:
        return f"best epoch's {_said(self.metric)}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, self.by)

    def of(self, curve: Curve, run: Path) -> float:
        by = curve[self.by]
        return float(curve[self.metric][np.argmax(by) if self.maximize else np.argmin(by)])


@dataclass(frozen=True, kw_only=True)
class Extreme(OfMetric):
    highest: bool

    @property
    def text(self) -> str:
        return f"{'highest' if self.highest else 'lowest'} {_said(self.metric)}"

    def of(self, curve: Curve, run: Path) -> float:
        values = curve[self.metric]
        return float(values.max() if self.highest else values.min())


@dataclass(frozen=True, kw_only=True)
class Until(OfMetric):
    """A run that never passes the threshold counts with all its epochs."""

    below: float | None
    above: float | None
    start: float
    """The metric before the first epoch."""
    epochs: int | None
    said: str | None

    @property
    def text(self) -> str:
        if self.said:
            return self.said
        side = f"below {self.below:g}" if self.below is not None else f"above {self.above:g}"
        return f"epochs until {_said(self.metric)} is {side}"

    @property
    def needs(self) -> int:
        return self.epochs or self.horizon

    def of(self, curve: Curve, run: Path) -> float:
        values = np.concatenate([[self.start], curve[self.metric]])
        threshold = self.below if self.below is not None else self.above
        assert threshold is not None
        passed = np.flatnonzero(values < threshold if self.below is not None else values > threshold)
        if not passed.size:
            return float(len(values) - 1)
        end = int(passed[0])
        if end == 0:
            return 0.0
        return float(end - 1 + (values[end - 1] - threshold) / (values[end - 1] - values[end]))


@dataclass(frozen=True, kw_only=True)
class Rise(OfMetric):
    epochs: int

    @property
    def text(self) -> str:
        return (
            f"mean {_said(self.metric)} over epochs {self.horizon - self.epochs + 1}–{self.horizon} against the lowest "
            f"earlier mean of {self.epochs} epochs"
        )

    def of(self, curve: Curve, run: Path) -> float:
        values = curve[self.metric]
        whole = values[len(values) % self.epochs :]  # blocks end at the last epoch
        blocks = whole.reshape(-1, self.epochs).mean(axis=1)
        return float(100 * (blocks[-1] / blocks[:-1].min() - 1))


@dataclass(frozen=True, kw_only=True)
class FromTable(Measure):
    """From a CSV file of the run with a header: a column, at the rows that a condition chooses."""

    file: str
    column: str
    where: str
    """As filters have it: ``"layer=1 epoch<=6"``."""
    over: str | None
    """The rows whose number divides the other."""
    reduce: str
    scale: float
    said: str | None

    @property
    def text(self) -> str:
        over = f" over that at {self.over}" if self.over is not None else ""
        return self.said or f"{self.reduce} {self.column} of {self.file} at {self.where}{over}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    def of(self, curve: Curve, run: Path) -> float:
        import pandas as pd

        try:
            table = pd.read_csv(io.BytesIO(read_file(run / self.file)))
            whole = self._number(table, self.where)
            return self.scale * (whole if self.over is None else whole / self._number(table, self.over))
        except FileNotFoundError:
            raise InputError(self.name, self.file, "the run has no such table") from None
        except (OSError, ValueError) as error:
            raise InputError(self.name, self.file, f"cannot be read: {error}") from None

    def _number(self, table: "pd.DataFrame", where: str) -> float:
        rows = filters.apply(table, filters.parse([where]))
        values = rows[filters.known(self.column, table.columns)].to_numpy(float)
        if not len(values):
            raise InputError(self.name, where, f"no row of {self.file} is so")
        return float(values.mean() if self.reduce == "mean" else values.max() if self.reduce == "max" else values.min())


@dataclass(frozen=True, kw_only=True)
class Time(Measure):
    """Of ``timing.json``, not of a run: the times of a sweep's own runs come from a busy machine."""

    key: str
    """``"{activ}-{loss}-{model}"``: the name under which a cell is timed."""

    @property
    def text(self) -> str:
        return "training time of an epoch"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    def of(self, curve: Curve, run: Path) -> float:
        raise TypeError("a time is measured by the timing command, not from a run")

    def cell(self, settings: Mapping[str, Any]) -> str:
        """The name of a complete cell in ``timing.json``."""
        return self.key.format_map({key: str(value) for key, value in settings.items()})


@dataclass(frozen=True)
class Kind:
    """How a measure is built, and the checks of its options; a pair is a check and a default."""

    build: Callable[..., Measure]
    options: Mapping[str, Check | tuple[Check, Any]]
    unit: str = ""


def _template(field: str, value: object) -> str:
    words: str = text()(field, value)
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(words) if name is not None]
    except ValueError as error:
        raise InputError(field, value, f"is not a template of {{key}}s: {error}") from None
    if not names or not all(name.replace("_", "").isalnum() for name in names):
        raise InputError(field, value, "must name settings in braces, as in '{activ}-{model}'")
    return words


def _file_name(field: str, value: object) -> str:
    name: str = text()(field, value)
    if "/" in name or name.startswith("."):
        raise InputError(field, value, "must be the name of a file in the run's directory")
    return name


def _until(*, below: float | None, above: float | None, name: str, **words: Any) -> Until:
    if (below is None) == (above is None):
        raise InputError(f"measures.{name}", "until", "must have one of below and above")
    return Until(name=name, below=below, above=above, **words)


def _within_horizon(build: type[Any]) -> Any:
    def checked(*, name: str, horizon: int, epochs: int, **words: Any) -> Any:
        if epochs > horizon:
            raise InputError(f"measures.{name}.epochs", epochs, f"must be at most the study's epochs, {horizon}")
        return build(name=name, horizon=horizon, epochs=epochs, **words)

    return checked


def _extreme(*, highest: bool) -> Any:
    return lambda **words: Extreme(highest=highest, **words)


MEASURES: Mapping[str, Kind] = {
    "last": Kind(_within_horizon(Last), {"metric": text(), "minus": (text(), None), "epochs": (integer(ge=1), 1)}),
    "first": Kind(_within_horizon(First), {"metric": text(), "epochs": integer(ge=1)}),
    "best": Kind(Best, {"metric": text(), "by": text(), "maximize": (flag(), True)}),
    "lowest": Kind(_extreme(highest=False), {"metric": text()}),
    "highest": Kind(_extreme(highest=True), {"metric": text()}),
    "until": Kind(
        _until,
        {
            "metric": text(),
            "below": (number(), None),
            "above": (number(), None),
            "start": number(),
            "epochs": (integer(ge=1), None),
            "said": (text(), None),
        },
        "epochs",
    ),
    "rise": Kind(_within_horizon(Rise), {"metric": text(), "epochs": (integer(ge=1), 10)}, "%"),
    "table": Kind(
        FromTable,
        {
            "file": _file_name,
            "column": text(),
            "where": text(),
            "over": (text(), None),
            "reduce": (one_of("mean", "max", "min"), "mean"),
            "scale": (number(), 1.0),
            "said": (text(), None),
        },
    ),
    "time": Kind(Time, {"key": _template}, "×"),
}
"""Measures by the name that ``take`` gives."""


def _said(metric: str) -> str:
    """``test accuracy`` for ``test_acc``."""
    return metric.replace("_acc", " accuracy").replace("_", " ")
