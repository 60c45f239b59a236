"""How every figure looks: one colour and marker for one meaning, sizes for one text column, and the axes' scales.

The colours are Okabe and Ito's, told apart with any colour vision, the two lightest a little darker, so that all have a
contrast of 3 with the page; each comes with a marker of its own, so that a
grey print is readable too. Ordered keys (lr, wd, mo) take a ramp instead, and the larger stands out more from the page:
in every figure, curves and maps alike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

WIDTH = 3.5  # inches: one column of a two-column page, so that the type is as large there as it is meant to be
WIDE = 7.2  # both columns

RC: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib: the same figure on every machine
    "text.parse_math": False,  # a $ in a configuration is a $
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.0,
    "legend.borderpad": 0,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "savefig.dpi": 300,
    "svg.hashsalt": "mlp-sweeps",  # ids in the file follow from its content alone
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

NOTE_SIZE = 6.5
NOTE_CHARACTERS = 66  # of that size in one column
CHARACTER = 0.054  # inches: of a title or legend, on average; a wide estimate
QUIET = "#4d5661"  # of notes


@dataclass(frozen=True)
class Style:
    """How a curve is drawn."""

    color: str
    marker: str


@dataclass(frozen=True)
class Metric:
    """How a column of the epochs is named and drawn."""

    title: str
    axis: str
    scale: str  # "log", "accuracy" (percent, logarithmic in the error rate) or "linear"


_METRICS: Mapping[str, Metric] = {
    f"{split}_{kind}": Metric(f"{split} {word}", axis, scale)
    for split in ("train", "valid", "test")
    for kind, word, axis, scale in (
        ("loss", "loss", "loss (mean per image)", "log"),
        ("acc", "accuracy", "accuracy (%)", "accuracy"),
    )
} | {
    "seconds": Metric("training time", "training time (s / epoch)", "linear"),
    "eval_seconds": Metric("evaluation time", "evaluation time (s / epoch)", "linear"),
}

# For values without a style of their own; twelve differ in colour and marker both.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#B07A00", "#3D9BD1")
_MARKERS = ("o", "D", "s", "^", "<", "v", "p", "P", ">", "h", "d", "8")


RAMP = colormaps["magma"]  # from dark to light

_LONGEST = 40
ABSENT = "–"  # an option that a run does not have


def metric(name: str) -> Metric:
    """How a metric is shown; one that is not known goes by its name, on a linear scale."""
    return _METRICS.get(name) or Metric(name, name, "linear")


def rc(changes: Mapping[str, Any] = MappingProxyType({})) -> AbstractContextManager[None]:
    """The style, for as long as a figure is made or saved."""
    return rc_context(cast(Any, {**RC, **changes}))


def name(value: object) -> str:
    """What a value is called in a figure: relu, 0.01, –."""
    if value is None or value != value:
        return ABSENT
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def label(keys: Iterable[str], values: Iterable[Any]) -> str:
    """``activ=relu, lr=0.01``; options that are absent are left out."""
    pairs = [(name(key), name(value)) for key, value in zip(keys, values, strict=True)]
    return ", ".join(f"{key}={word}" for key, word in pairs if word != ABSENT)


def styles(values: Sequence[Any], given: Sequence[Style | None] = ()) -> list[Style]:
    """The style of each value of a key; numbers take the ramp, the largest the darkest, and markers in order.

    Args:
        values: of one figure, each once; numbers in ascending or descending order.
        given: of each value, where it has a style of its own; the others take none of their colours.
    """
    given = given or [None] * len(values)
    if len(values) > 1 and not any(given) and all(_is_number(value) for value in values):
        rank = np.argsort(np.argsort(np.asarray(values, float)))
        return [Style(_ramp(int(i), len(values)), _MARKERS[int(i) % len(_MARKERS)]) for i in rank]
    taken = {look.color.lower() for look in given if look}
    free = [i for i, color in enumerate(_COLORS) if color.lower() not in taken]
    spare = (Style(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]) for i in [*free, *range(len(_COLORS), 1000)])
    return [look or next(spare) for look in given]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _ramp(rank: int, count: int) -> str:
    return to_hex(RAMP(0.68 - 0.44 * rank / max(count - 1, 1)))


# -- axes ------------------------------------------------------------------------------------------------------------


MOST_LINEAR = 30  # epochs, which have room on a linear axis


def epoch_axis(axes: Axes, last: int, *, linear: bool = False) -> None:
    """Epochs on a log axis: the first ten matter as much as the last fifty. Few epochs are on a linear one."""
    if linear:  # with the start, which a reference may have measured
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        return
    if last <= MOST_LINEAR:
        pad = 0.04 * (last - 1) or 0.5
        axes.set_xlim(1 - pad, last + pad)
        step = next(step for step in (1, 2, 5) if last <= 6 * step or step == 5)
        ticks = [1, *range(step if step > 1 else 2, last + 1, step)]
    else:
        axes.set_xscale("log")
        axes.set_xlim(0.93, last * 1.08)
        decade = float(axes.bbox.width / axes.figure.dpi) / math.log10(last)  # inches
        room = 0.065 * (len(str(last)) - 0.5) + 0.04  # of a number, between the middles of the last two
        choices = (((1, 2, 5), math.log10(2)), ((1, 3), math.log10(3)))
        steps = next((steps for steps, gap in choices if gap * decade > room), (1,))
        ticks = [step * 10**power for power in range(7) for step in steps if step * 10**power <= last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


_LEAST_ERROR = 0.005  # percent; a flawless 100 % is drawn here, a third of an image of 60,000 short of it


def _accuracy_forward(accuracy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(-np.log10(np.clip(100 - np.asarray(accuracy, float), _LEAST_ERROR, 1000)))


def _accuracy_inverse(position: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(100 - 10 ** -np.asarray(position, float))


def positions(scale: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where values stand on an axis of ``scale``, up to a factor; what has no place there is left out."""
    x = np.asarray(values, float)
    x = np.clip(x[np.isfinite(x)], -_FARTHEST, _FARTHEST)
    if scale == "log":
        return np.asarray(np.log10(np.maximum(x[x > 0], 1 / _FARTHEST)))
    return _accuracy_forward(x) if scale == "accuracy" else x


_FARTHEST = 1e100  # of an axis's ends; beyond, one run's 1e308 would leave no number for its margin


def value_axis(axes: Axes, scale: str, values: npt.ArrayLike) -> None:
    """Scale and limits that fit ``values``.

    Losses are on a log axis; accuracies are logarithmic in the error rate, which shows 10 % and the difference
    between 99.0 % and 99.5 % alike.
    """
    x = np.asarray(values, float)
    x = np.clip(x[np.isfinite(x)], -_FARTHEST, _FARTHEST)
    if scale == "log":
        x = np.maximum(x[x > 0], 1 / _FARTHEST)
        low, high = (x.min(), x.max()) if x.size else (0.1, 1.0)
        pad = max((high / low) ** 0.06, 1.05)
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(low / pad, high * pad)
        decades = np.log10(high / low * pad**2)
        axes.yaxis.set_major_locator(
            LogLocator(10, subs=(1, 2, 5) if decades < 1.7 else (1, 3) if decades < 2.6 else (1,))
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale == "accuracy":
        ends = _accuracy_forward([x.min(), x.max()] if x.size else [90, 99])
        pad = max(0.06 * float(ends[1] - ends[0]), 0.02)
        axes.set_yscale("function", functions=(_accuracy_forward, _accuracy_inverse))
        axes.set_ylim(*_accuracy_inverse([ends[0] - pad, min(ends[1] + pad, -np.log10(_LEAST_ERROR))]))
        axes.yaxis.set_major_locator(FixedLocator(_accuracy_ticks(*axes.get_ylim())))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif x.size:
        low, high = x.min(), x.max()
        pad = max(0.05 * (high - low), 0.01 * abs(high), 1e-9)
        axes.set_ylim(low - pad, high + pad)


def scale_note(scales: Iterable[str], last: int) -> str:
    """How to read the axes, for the figure's notes; empty if they are linear.

    Args:
        scales: of the value axes.
        last: the figure's last epoch.
    """
    found = {*scales}
    curved = last > MOST_LINEAR
    if curved and found == {"log"}:
        return "Both axes are logarithmic."
    said = []
    if "accuracy" in found:
        said.append("Accuracy axis: logarithmic in the error rate.")
    if "log" in found:
        said.append("The other value axis: logarithmic." if said else "Value axis: logarithmic.")
    return " ".join([*said, *(["Epoch axis: logarithmic."] if curved else [])])


def _accuracy_ticks(low: float, high: float) -> list[float]:
    """Round accuracies, about equally far apart in the logarithm of the error; more of them on a short axis."""
    coarse = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99]
    fine = sorted({*coarse, 20, 40, 60, 70, 85, 92, 93, 94, 96, 97, 97.5, 98.5, 98.8, 99.2, 99.3, 99.4, 99.6, 99.7})
    inside = [tick for tick in coarse if low <= tick <= high]
    return inside if len(inside) >= 3 else [tick for tick in fine if low <= tick <= high]
