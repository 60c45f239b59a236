"""Curves and heatmaps by any keys that were swept."""

import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
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
from sweeps.show.draw import DIVERGED_MARKER, draw, handles, kind_of, page, sample_notes, series, varying

MOST_CURVES = 12  # with a colour and marker each; more are summed up in bands
NAMED = 4  # of those, the best still get a line of their own
_MOST_WRITTEN = 8  # columns of a heatmap whose cells have room for their number

_TOGETHER = "\x1ftogether"  # the column that names a combination of several keys' values; no key is called so
_STOPPED = "\x1fstopped"


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
    last = int(collection.epochs.loc[collection.epochs["run"].isin(runs["run"]), "epoch"].max())
    pooled = _pooled(runs, keys, "curve")
    notes = [*pooled, *([f"{others} of the runs chosen have no {metric}."] if others else [])]
    with style.rc():
        if len(values) <= MOST_CURVES:
            parts = series(collection, runs, key, values, metric)
            notes += [
                style.scale_note([kind.scale], last),
                *sample_notes([(part.label, part) for part in parts], "run" if pooled else "seed"),
            ]
            figure, (axes,), below = page(
                rows=1, columns=1, panel=2.0, notes=notes, legend=sum(1 + part.label.count("\n") for part in parts) + 2
            )
            draw(axes, parts, kind)
            entries = handles(parts)
        else:
            stopped = int((runs["state"] == "diverged").sum())
            notes += [style.scale_note([kind.scale], last), f"{len(values):,} curves of {len(runs):,} runs."]
            notes += [f"{stopped:,} of the runs diverged: × each."] if stopped else []
            figure, (axes,), below = page(rows=1, columns=1, panel=2.0, notes=notes, legend=2 * NAMED + 2)
            entries = _crowd(axes, collection, runs, key, metric)
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


def _crowd(axes: Axes, collection: Collection, runs: pd.DataFrame, key: str, metric: str) -> list[Artist]:
    """More curves than can be told apart: bands over them, the best on top, a cross for each run that diverged."""
    kind, is_better_high = kind_of(metric, collection), _is_better_high(metric, collection)
    rows = summary.curves(runs.assign(**{_TOGETHER: runs[key]}), collection.epochs, [_TOGETHER], metric)
    table = rows.pivot(index="epoch", columns=_TOGETHER, values="mean")
    x, y = table.index.to_numpy(float), table.to_numpy(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an epoch at which no run has the metric
        low, lower, middle, upper, high = np.nanquantile(y, [0, 0.25, 0.5, 0.75, 1], axis=1)
    last = table.ffill().iloc[-1].sort_values(ascending=not is_better_high)
    best = series(collection, runs[runs[key].isin(last.index[:NAMED])], key, list(last.index[:NAMED]), metric)
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
    """A run metric over two swept keys: the mean of each cell's runs, × where some diverged, blank without runs.

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
    columns, rows = ordered(runs[x]), ordered(runs[y])
    cells = (
        runs.assign(**{_STOPPED: runs["state"] == "diverged"})
        .groupby([y, x])
        .agg(mean=(value, "mean"), n=("run", "size"), stopped=(_STOPPED, "sum"))
    )
    cells = cells.reindex(pd.MultiIndex.from_product([rows, columns], names=[y, x]))
    shape = len(rows), len(columns)
    mean, n, stopped = (cells[name].to_numpy(float).reshape(shape) for name in ("mean", "n", "stopped"))
    sizes = sorted({int(size) for size in n[np.isfinite(n)]})
    notes = [
        f"Mean of {sizes[0]}–{sizes[-1]} runs a cell." if len(sizes) > 1 else f"Mean of n = {sizes[0]} runs a cell."
    ]
    notes += [*_pooled(runs, [x, y], "cell"), "Blank: no runs."]
    notes += ["×: diverged runs of the cell's; their last epoch counts in the mean."] if np.nansum(stopped) else []
    with style.rc({"axes.grid": False}):
        slanted = sum(len(style.name(column)) for column in columns) > 32
        panel = min(max(0.32 * len(rows), 0.9), 4.0)
        figure, (axes,), _ = page(
            rows=1, columns=1, panel=panel, notes=notes, right=0.6, left=0.95, label=0.62 if slanted else 0.34
        )
        positive = mean[np.isfinite(mean)].min(initial=np.inf) > 0
        is_loss = kind_of(value.removeprefix("best_"), collection).scale == "log"
        norm = LogNorm() if is_loss and positive else None
        image = axes.imshow(mean, cmap="cividis", norm=norm, aspect="auto", origin="lower", interpolation="nearest")
        for axis, key, ticks in ((axes.xaxis, x, columns), (axes.yaxis, y, rows)):
            step = -(-len(ticks) // 10)
            axis.set_ticks(range(0, len(ticks), step), [style.name(tick) for tick in ticks[::step]])
            axis.set_label_text(key)
        axes.tick_params("x", rotation=40 if slanted else 0)
        shades = np.asarray(image.norm(mean), float)
        for i, j in np.argwhere(n > 0):
            crosses = f"×{stopped[i, j]:.0f}" if stopped[i, j] else ""
            number = f"{mean[i, j]:.4g}" if len(columns) <= _MOST_WRITTEN and np.isfinite(mean[i, j]) else ""
            ink = "white" if shades[i, j] < 0.55 else "black"
            axes.text(
                j,
                i,
                "\n".join(filter(None, (number, crosses))),
                ha="center",
                va="center",
                color=ink,
                fontsize=6 if len(columns) < 7 else 5,
            )
        box = axes.get_position()
        bar = figure.colorbar(image, cax=figure.add_axes((box.x1 + 0.03, box.y0, 0.03, box.height)))
        if norm is not None:
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
            bar.ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.set_title(_value_label(value, collection))
    return figure


def ordered(column: "pd.Series[Any]") -> list[Any]:
    """A column's values, each once: numbers ascending, words by name."""
    values = [value for value in column.unique() if value == value and value is not None]
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _identity(field: str, key: str, runs: pd.DataFrame) -> str:
    choices = [*summary.identity_columns(runs), *(key for key in ("layers", "seed", "run") if key in runs.columns)]
    one_of(*dict.fromkeys(choices))(field, key)
    return key


def _together(runs: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[str]":
    """A label for each run's combination, in lines that a column has room for."""
    combinations = runs[list(keys)].drop_duplicates()
    labels = (style.label(keys, row) or style.ABSENT for row in combinations.itertuples(index=False))
    combinations[_TOGETHER] = ["\n".join(textwrap.wrap(text, 54, break_long_words=False)) for text in labels]
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
