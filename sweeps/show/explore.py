"""Curves and heatmaps by any keys that were swept."""

import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.read.filters import known
from sweeps.runs.errors import InputError
from sweeps.runs.schema import one_of
from sweeps.show import style
from sweeps.show.dark import luminance
from sweeps.show.draw import (
    DIVERGED_MARKER,
    Curve,
    draw,
    handles,
    held,
    kind_of,
    page,
    same,
    sample_notes,
    series,
    split_note,
    varying,
)

MOST_CURVES = 12  # with a colour and marker each; more are summed up in bands
NAMED = 4  # of those, the best still get a line of their own
_LABEL = 45  # characters of a line of a curve's label
_MOST_WRITTEN = 8  # columns of a heatmap whose cells have room for their number

_TOGETHER = "\x1ftogether"  # the column that names a combination of several keys' values; no key is called so
_VALUE, _DIVERGED, _SHORT = "\x1fvalue", "\x1fdiverged", "\x1fshort"
_DARK = 0.226  # luminance of a cell below which white is readable; above it black is, in either palette
_SHADES = ListedColormap(colormaps["cividis"](np.linspace(1, 0.12, 256)))  # the larger the darker, as for curves


def curves(collection: Collection, *, metric: str | None = None, by: str | Sequence[str] | None = None) -> Figure:
    """A metric over the epochs, one curve for each value (or combination of values) of ``by``.

    Runs that differ in anything else are averaged, seeds and other keys alike; the figure says which. Beyond
    ``MOST_CURVES`` it shows the best few, and all of them as bands.

    Args:
        metric: a column of ``Collection.epochs``; None takes the one that the runs judge by.
        by: identity columns, as a list or in one text with commas; None takes every key that varies.

    Raises:
        InputError: unknown metric or key, or no epochs to draw.
    """
    runs = collection.runs
    metric = metric or summary.judged(collection)[0]
    if collection.epochs.empty or metric is None:
        raise InputError("curves", metric or "no metric", "no run has finished an epoch")
    one_of(*(column for column in collection.epochs.columns if column not in ("run", "epoch")))("metric", metric)
    runs, others = _having(metric, collection)
    keys = by.split(",") if isinstance(by, str) else list(by or varying(runs) or _any_key(runs))
    keys = [_identity("by", key, runs) for key in dict.fromkeys(keys)]
    key = keys[0] if len(keys) == 1 else _TOGETHER
    runs = runs.assign(**{_TOGETHER: _together(runs, keys)})
    runs = runs[runs[key].notna()]
    values = ordered(runs[key])
    kind = kind_of(metric, collection)
    epochs = collection.epochs[collection.epochs["run"].isin(runs["run"])]
    last = int(epochs["epoch"].max())
    pooled = _pooled(runs, keys, "curve")
    facts = [_held(runs.drop(columns=_TOGETHER), keys), split_note([metric], epochs)]
    facts += [*pooled, *([f"{others} of the runs chosen have no {metric}."] if others else [])]
    with style.rc():
        if len(values) <= MOST_CURVES:
            parts = series(collection, runs, key, values, metric, labels=_labels(key, values))
            reading = sample_notes([(part.label, part) for part in parts], "run" if pooled else "seed")
            reading.append(style.scale_note([kind.scale], last))
            lines = sum(1 + part.label.count("\n") for part in parts) + any(len(part.diverged) for part in parts)
            figure, (axes,), below = page(
                rows=1, columns=1, panel=2.0, notes=_paragraphs(facts, reading), legend=lines + (key != _TOGETHER)
            )
            draw(axes, parts, kind)
            entries = handles(parts)
        else:
            stopped = int((runs["state"] == "diverged").sum())
            reading = [f"{len(values):,} curves of {len(runs):,} runs.", style.scale_note([kind.scale], last)]
            reading += [f"{stopped:,} of the runs diverged: × each."] if stopped else []
            rows = summary.curves(runs.assign(**{_TOGETHER: runs[key]}), collection.epochs, [_TOGETHER], metric)
            table = rows.pivot(index="epoch", columns=_TOGETHER, values="mean")
            reading += _thinning(table)
            best = _best(table, is_better_high=_is_better_high(metric, collection))
            parts = series(collection, runs[runs[key].isin(best)], key, best, metric, labels=_labels(key, best))
            lines = sum(1 + part.label.count("\n") for part in parts) + any(len(part.diverged) for part in parts) + 3
            figure, (axes,), below = page(
                rows=1, columns=1, panel=2.0, notes=_paragraphs(facts, reading), legend=lines + (key != _TOGETHER)
            )
            entries = _crowd(axes, collection, runs, parts, metric, table)
        axes.set_title(f"{kind.title} by {', '.join(keys)}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(kind.axis)
        corner = (axes.get_position().x0, below)
        title = "" if key == _TOGETHER else key
        figure.legend(handles=entries, title=title, loc="upper left", bbox_to_anchor=corner, alignment="left")
    return figure


def _having(metric: str, collection: Collection) -> tuple[pd.DataFrame, int]:
    """The runs but for those that log other metrics, and how many those are."""
    runs, epochs = collection.runs, collection.epochs
    missing = epochs[metric].isna()
    if not missing.any():
        return runs, 0
    having, lacking = (epochs["run"][rows].unique() for rows in (~missing, missing))
    logs_others = runs["run"].isin(lacking) & ~runs["run"].isin(having)
    logs_others &= runs["state"] != "diverged"
    return runs[~logs_others], int(logs_others.sum())


def _held(runs: pd.DataFrame, keys: Sequence[str]) -> str:
    common = {key: value for key, value in same(runs).items() if key not in keys}
    return held([f"{key} {style.name(value)}" for key, value in common.items()])


def _paragraphs(*parts: Sequence[str]) -> list[str]:
    return [" ".join(filter(None, part)) for part in parts]


def _thinning(curves: pd.DataFrame) -> list[str]:
    """A note if some of the curves end before others.

    Args:
        curves: epochs × curves; NaN after a curve's end.
    """
    counts = curves.notna().sum(axis=1)
    fewer = counts[counts < counts.iloc[0]]
    if fewer.empty:
        return []
    return [f"From epoch {fewer.index[0]} on bands and median are of those that go on, in the end {fewer.iloc[-1]:,}."]


def _labels(key: str, values: Sequence[Any]) -> list[str]:
    """Of curves; a combination's is whole."""
    return [value if key == _TOGETHER else style.name(value) for value in values]


def _best(curves: pd.DataFrame, *, is_better_high: bool) -> list[Any]:
    """The columns that end best."""
    return list(curves.ffill().iloc[-1].sort_values(ascending=not is_better_high).index[:NAMED])


def _crowd(
    axes: Axes, collection: Collection, runs: pd.DataFrame, best: Sequence[Curve], metric: str, table: pd.DataFrame
) -> list[Artist]:
    """More curves than can be told apart: bands over them, the best on top, a cross for each run that diverged."""
    kind, is_better_high = kind_of(metric, collection), _is_better_high(metric, collection)
    x, y = table.index.to_numpy(float), table.to_numpy(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an epoch at which no run has the metric
        low, lower, middle, upper, high = np.nanquantile(y, [0, 0.25, 0.5, 0.75, 1], axis=1)
    draw(axes, best, kind, last=int(x.max()))
    style.value_axis(axes, kind.scale, np.concatenate([lower, high, middle, low]))
    axes.fill_between(x, low, high, color="#dddddd", linewidth=0)
    axes.fill_between(x, lower, upper, color="#b5b5b5", linewidth=0)
    axes.plot(x, middle, color="#555555", linestyle=(0, (4, 2)), linewidth=0.9)
    stopped = runs[runs["state"] == "diverged"]
    ends = collection.epochs.drop_duplicates("run", keep="last").set_index("run")[metric].reindex(stopped["run"])
    edge = axes.get_ylim()[0 if is_better_high else 1]
    axes.plot(stopped["epoch"].clip(lower=1), ends.fillna(edge), color="#444444", clip_on=False, **DIVERGED_MARKER)
    return [
        *handles(best),
        Line2D([], [], color="#555555", linestyle=(0, (4, 2)), linewidth=0.9, label="median curve"),
        Patch(color="#b5b5b5", label="middle half of the curves"),
        Patch(color="#dddddd", label="all curves"),
    ]


def _is_better_high(metric: str, collection: Collection) -> bool:
    """By the metric's known scale, else as the runs judge by it; a metric of neither is better low."""
    scale = kind_of(metric, collection).scale
    judged, maximize = summary.judged(collection)
    return scale == "accuracy" or (scale == "linear" and metric == judged and maximize)


def _any_key(runs: pd.DataFrame) -> list[str]:
    """A key to go by where none varies."""
    return [*summary.identity_columns(runs), "run"][:1]


def heatmap(collection: Collection, *, x: str, y: str, value: str | None = None) -> Figure:
    """A run metric over two swept keys: the mean of each cell's runs, blank without any.

    Runs that diverged or have not come as far as the others are left out, as in tables, and marked.

    Args:
        x, y: identity columns.
        value: a column of numbers of ``Collection.runs``; None takes the best value of the metric that they judge by.

    Raises:
        InputError: unknown column, or no run has a value.
    """
    runs = collection.runs
    _identity("x", x, runs), _identity("y", y, runs)
    value = known(summary.value_column(value, collection) if value else best_column(collection), runs.columns)
    if x == y:
        raise InputError("y", y, "must be another key than x")
    if not pd.api.types.is_numeric_dtype(runs[value]) or runs[value].notna().sum() == 0:
        raise InputError("value", value, "must be a column of numbers that some run has, such as a metric")
    runs = runs[runs[[x, y]].notna().all(axis=1)]
    if runs.empty:
        raise InputError("value", value, f"no run has {x} and {y}, both")
    cells = _cells(runs, x, y, value)
    metric = value.removeprefix("best_")
    kind = kind_of(metric, collection)
    epochs = collection.epochs[collection.epochs["run"].isin(runs["run"])]
    pooled = _pooled(runs, [x, y], "cell")
    facts = [_held(runs, [x, y]), split_note([metric], epochs), *pooled]
    with style.rc({"axes.grid": False}):
        longest = max(len(style.name(column)) for column in cells.columns)
        slanted = style.CHARACTER * (longest + 1) * min(len(cells.columns), 10) > style.WIDTH - 0.95 - 0.6
        figure, (axes,), _ = page(
            rows=1,
            columns=1,
            panel=min(max(0.32 * len(cells.rows), 0.9), 4.0),
            notes=_paragraphs(facts, cells.reading("run" if pooled else "seed")),
            right=0.6,
            left=0.95,
            label=0.62 if slanted else 0.34,
        )
        found = cells.mean[np.isfinite(cells.mean)]
        norm = LogNorm() if kind.scale == "log" and found.min() > 0 else None
        # Numbers rise upwards as on any axis, words are read downwards.
        origin: Any = "lower" if pd.api.types.is_numeric_dtype(runs[y]) else "upper"
        image = axes.imshow(cells.mean, cmap=_SHADES, norm=norm, aspect="auto", origin=origin, interpolation="nearest")
        for axis, key, ticks in ((axes.xaxis, x, cells.columns), (axes.yaxis, y, cells.rows)):
            step = -(-len(ticks) // 10)
            axis.set_ticks(range(0, len(ticks), step), [style.name(tick) for tick in ticks[::step]])
            axis.set_label_text(key)
        axes.tick_params("x", rotation=40 if slanted else 0)
        number = _fixed(found, kind) if len(cells.columns) <= _MOST_WRITTEN else None
        box = axes.get_position()
        bar = figure.colorbar(image, cax=figure.add_axes((box.x1 + 0.03, box.y0, 0.03, box.height)))
        if norm is not None:
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
            bar.ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        cells.write(axes, image.to_rgba(cells.mean), number)  # after the bar, which may change the limits
        axes.set_title(_value_label(value, collection))
    return figure


@dataclass(frozen=True)
class _Cells:
    """A heatmap's cells; all arrays are (rows, columns)."""

    rows: list[Any]
    columns: list[Any]
    horizon: int
    """The epoch at which runs are compared."""
    mean: npt.NDArray[np.float64]
    """Over the runs that came to it; NaN where none did."""
    n: npt.NDArray[np.int64]
    """How many those are."""
    diverged: npt.NDArray[np.int64]
    short: npt.NDArray[np.int64]
    """How many have not come so far."""

    def reading(self, unit: str) -> list[str]:
        """What the numbers and marks mean."""
        sizes = sorted({*self.n[self.n > 0].tolist()})
        count = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
        diverged, short = self.diverged.any(), self.short.any()
        return [
            (f"One {unit} a cell" if sizes == [1] else f"Mean of n = {count} {unit}s a cell")
            + (f" after {self.horizon} epochs." if self.horizon > 1 else "."),
            f"×: so many {unit}s diverged, and are left out." if diverged else "",
            f"…: so many have not come to epoch {self.horizon}, and are left out." if short else "",
            "Blank: no runs." if not (self.n + self.diverged + self.short).all() else "",
        ]

    def write(self, axes: Axes, colors: npt.NDArray[np.float64], number: str | None) -> None:
        """Number and marks into each cell.

        Args:
            colors: of the cells, (rows, columns, 4).
            number: the format; None for marks alone.
        """
        for i, j in np.argwhere(self.n + self.diverged + self.short > 0):
            marks = [f"{sign}{count[i, j]}" for sign, count in (("×", self.diverged), ("…", self.short)) if count[i, j]]
            text = format(self.mean[i, j], number) if number and self.n[i, j] else ""
            axes.text(
                j,
                i,
                "\n".join(filter(None, (text, " ".join(marks)))),
                ha="center",
                va="center",
                color="white" if self.n[i, j] and luminance(tuple(colors[i, j, :3])) < _DARK else "black",
                fontsize=6.5 if len(self.columns) < 7 else 5.5,
            )


def _cells(runs: pd.DataFrame, x: str, y: str, value: str) -> _Cells:
    """By the rule of tables: only runs that came to the same epoch are averaged.

    Raises:
        InputError: none of them counts.
    """
    horizon = summary.horizon(runs)
    whole, diverged = summary.whole(runs, horizon), runs["state"] == "diverged"
    counted = runs.assign(**{_VALUE: runs[value].where(whole), _DIVERGED: diverged, _SHORT: ~whole & ~diverged})
    rows, columns = ordered(runs[y]), ordered(runs[x])
    table = counted.groupby([y, x]).agg(
        mean=(_VALUE, "mean"), n=(_VALUE, "count"), diverged=(_DIVERGED, "sum"), short=(_SHORT, "sum")
    )
    table = table.reindex(pd.MultiIndex.from_product([rows, columns], names=[y, x]))
    if not table["n"].any():
        raise InputError("value", value, f"each run diverged or ended before epoch {horizon}; give an earlier --epochs")
    shape = len(rows), len(columns)
    counts = {name: table[name].fillna(0).to_numpy(np.int64).reshape(shape) for name in ("n", "diverged", "short")}
    return _Cells(rows, columns, horizon, table["mean"].to_numpy(float).reshape(shape), **counts)


def ordered(column: "pd.Series[Any]") -> list[Any]:
    """A column's values, each once: numbers ascending, words by name, and numbers in words by their size."""
    values = [value for value in column.unique() if value == value and value is not None]
    return sorted(values, key=lambda value: (1, *_natural(value)) if isinstance(value, str) else (0, value))


def _natural(word: str) -> tuple[list[tuple[str, int]], str]:
    """Sorts 64 before 128 and 512x64 before 512x128."""
    parts = re.findall(r"(\D*)(\d*)", word)
    return [(text, int(digits or -1)) for text, digits in parts], word


def _fixed(values: npt.NDArray[np.float64], kind: style.Metric) -> str:
    """A format in which all of these numbers have the same decimals: two of percent, else by the largest."""
    if kind.scale == "accuracy":
        return ".2f"
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    if not 1e-3 <= largest < 1e6:
        return ".2e"
    return f".{min(max(3 - math.floor(math.log10(largest)), 0), 4)}f"


def _identity(field: str, key: str, runs: pd.DataFrame) -> str:
    choices = [*summary.identity_columns(runs), *(key for key in ("layers", "seed", "run") if key in runs.columns)]
    one_of(*dict.fromkeys(choices))(field, key)
    return key


def _together(runs: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[str]":
    """A label for each run's combination, in lines that a column has room for."""
    combinations = runs[list(keys)].drop_duplicates()
    labels = (style.label(keys, row) or style.ABSENT for row in combinations.itertuples(index=False))
    combinations[_TOGETHER] = ["\n".join(textwrap.wrap(text, _LABEL, break_long_words=False)) for text in labels]
    return runs[list(keys)].merge(combinations, on=list(keys), how="left")[_TOGETHER].set_axis(runs.index)


def _pooled(runs: pd.DataFrame, keys: Sequence[str], what: str) -> list[str]:
    """A note if a curve or cell mixes runs that differ in more than their seeds."""
    others = [key for key in varying(runs) if key not in keys]
    mixed = [key for key in others if runs.groupby(list(keys), dropna=False)[key].nunique().max() > 1]
    return [f"Each {what} pools runs that differ in {', '.join(mixed)}."] if mixed else []


def mixed(runs: pd.DataFrame, names: "pd.Series[str]") -> list[str]:
    """The identity columns in which these runs differ."""
    return varying(runs[runs["run"].isin(names)])


def last_column(collection: Collection) -> str:
    """The column of runs with the last value of the metric that they judge by.

    Raises:
        InputError: no run has a metric.
    """
    metric, _ = summary.judged(collection)
    if metric is None:
        raise InputError("metric", "none", "no run has one")
    return summary.column_of(metric, collection.runs)


def best_column(collection: Collection) -> str:
    """The column with its best value; as :func:`last_column`."""
    return f"best_{last_column(collection)}"


def _value_label(value: str, collection: Collection) -> str:
    measured = summary.metrics(collection.runs)
    metric = value.removeprefix("best_")
    if metric not in measured:
        return value
    kind = kind_of(metric, collection)
    when = "the last" if value in measured else "the best"
    return f"{kind.title} at {when} epoch{' (%)' if kind.scale == 'accuracy' else ''}"
