"""Curves and how they are drawn: data and axes in, axes out.

A curve is the mean over a configuration's seeds with Student's 95 % interval as a band. A run that diverged is
marked by a cross where it stopped. Where runs end before others the rest of the line is dashed: it is a mean of fewer,
and a step there is no event in any of them.
"""

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweeps.read import summary
from sweeps.read.collect import TIMES, Collection
from sweeps.runs.files import write_atomic
from sweeps.show import style
from sweeps.show.dark import dark as in_dark
from sweeps.study.hypotheses import Settings
from sweeps.study.select import equals
from sweeps.study.study import Study, written

FORMATS: Mapping[str, Mapping[str, Any]] = {  # no dates: same data, same bytes
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a configuration's metric over the epochs, and how its runs ended.

    Attributes:
        rows: epoch, mean, half (of the interval), n; ascending epochs; empty if no run has an epoch.
        runs: the rows of ``Collection.runs`` behind it, with ``last``: the metric at the last epoch read.
        reference: epoch and value of a published curve to be drawn behind it; empty if there is none.
    """

    label: str
    style: style.Style
    rows: pd.DataFrame
    runs: pd.DataFrame
    reference: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["epoch", "value"], dtype=float))

    @cached_property
    def diverged(self) -> pd.DataFrame:
        return self.runs[self.runs["state"] == "diverged"]

    @cached_property
    def unfinished(self) -> pd.DataFrame:
        return self.runs[~self.runs["state"].isin(["finished", "diverged"])]

    @property
    def n(self) -> int:
        return len(self.runs)

    @cached_property
    def whole(self) -> int:
        """How many of its rows, from the first, are means of as many runs as the first is."""
        n = self.rows["n"].to_numpy()
        return len(n) if not len(n) or n[0] == n.min() else int(np.argmax(n < n[0]))


def series(
    collection: Collection,
    runs: pd.DataFrame,
    key: str,
    values: Sequence[Any],
    metric: str,
    *,
    labels: Sequence[str] = (),
    styles: Sequence[style.Style] = (),
) -> list[Curve]:
    """The curve of each value of ``key`` among ``runs``.

    Args:
        labels, styles: of the values; without them the plain value, and the usual style.
    """
    labels, styles = labels or [style.name(value) for value in values], styles or style.styles(values)
    epochs = collection.epochs[collection.epochs["run"].isin(runs["run"])]
    runs = runs.assign(**{_KEY: runs[key]})
    rows = summary.curves(runs, epochs, [_KEY], metric)
    rows = rows[rows["n"] > 0]
    last = epochs.drop_duplicates("run", keep="last").set_index("run")[metric]
    runs = runs[["run", "state", "epoch", "target", _KEY]].assign(last=runs["run"].map(last))
    found = []
    for value, label, drawn in zip(values, labels, styles, strict=True):
        mine = [equals(table[_KEY], value) for table in (rows, runs)]
        found.append(Curve(label, drawn, rows[mine[0]], runs[mine[1]]))
    return found


_KEY = "\x1fkey"  # a column of no other name: a key may be called epoch, mean or n


def varying(runs: pd.DataFrame) -> list[str]:
    """The identity columns with more than one value: what tells these configurations apart."""
    return [key for key in summary.identity_columns(runs) if runs[key].nunique() > 1]


def same(runs: pd.DataFrame) -> dict[str, Any]:
    """What all of these runs have in common: key → value. The options of a choice go without saying."""
    keys = summary.identity_columns(runs)
    heads = {*keys}
    return {
        key: runs[key].iloc[0]
        for key in keys
        if key.partition(".")[0] not in heads - {key} and len(runs) and runs[key].nunique(dropna=False) == 1
        and pd.notna(runs[key].iloc[0])
    }  # fmt: skip


def settings(study: Study, cell: Settings) -> list[str]:
    """A configuration in the study's words: what has a name comes first, and speaks for itself."""
    rest = {
        key: value
        for key, value in cell.items()
        if value is not None and key.partition(".")[0] not in {*study.baseline} - {key}
    }
    names = {key: study.axis(key).name(value) for key, value in rest.items()}
    named = [key for key, value in rest.items() if names[key] != written(value)]
    others = [f"{study.axis(key).title} {names[key]}" for key in rest if key not in named]
    return [*(names[key] for key in named), *others]


_MOST_HELD = 16
_LONGEST_HELD = 80


def held(words: Sequence[str], what: str = "Held fixed") -> str:
    """The line of a figure that says what all its runs have in common: ``MNIST``, ``lr 0.01``."""
    if not words:
        return ""
    more = f" and {len(words) - _MOST_HELD} more" if len(words) > _MOST_HELD else ""
    short = [word if len(word) <= _LONGEST_HELD else f"{word[: _LONGEST_HELD - 1]}…" for word in words[:_MOST_HELD]]
    whole = [word.replace(" ", "\u00a0") if len(word) < 40 else word for word in short]  # not broken between lines
    return f"{what}: {', '.join(whole)}{more}."


def split_note(metrics: Iterable[str], epochs: pd.DataFrame) -> str:
    """Whether what is called valid in a figure of these metrics was measured on the test set; empty if not."""
    shown = [metric for metric in metrics if summary.is_test(metric, epochs)]
    return "Valid is the test set: no validation data were split off." if shown else ""


def kind_of(metric: str, collection: Collection, study: Study | None = None) -> style.Metric:
    """How a metric is shown: as the study says; else known names mean losses and percent where runs are of networks."""
    if study is not None and metric in study.metrics:
        said = study.metrics[metric]
        return style.Metric(said.title, said.axis, said.scale)
    known = summary.has_networks(collection.runs) or metric in TIMES
    return style.metric(metric) if known else style.Metric(metric, metric, "linear")


def draw(
    axes: Axes,
    curves: Sequence[Curve],
    kind: style.Metric,
    *,
    like: Sequence[Curve] = (),
    last: int = 1,
    linear: bool = False,
) -> Axes:
    """Draw mean lines, interval bands and a cross where a run diverged; a reference's curve thin behind each.

    Args:
        kind: of the metric; decides the scale.
        like: other curves that the value axis must fit too, so that panels can be compared.
        last: an epoch that the axis must reach.
        linear: both axes are, whatever the metric is.
    """
    everything = [*curves, *like]
    last = max(last, last_epoch(everything))
    style.epoch_axis(axes, last, linear=linear)
    first = 0 if linear else 1  # a log axis has no 0
    style.value_axis(axes, "linear" if linear else kind.scale, extent(everything, first, last))
    bottom, top = axes.get_ylim()
    for i, curve in enumerate(curves):
        points = curve.reference[curve.reference["epoch"].between(first, last)]
        axes.plot(points["epoch"], points["value"], color=curve.style.color, zorder=1.5, **REFERENCE_LINE)
        x, mean, half = (curve.rows[column].to_numpy(float) for column in ("epoch", "mean", "half"))
        if np.isfinite(half).any():
            axes.fill_between(x, mean - half, mean + half, color=curve.style.color, alpha=0.18, linewidth=0)
            if len(x) == 1:  # a band of no width
                axes.vlines(x, mean - half, mean + half, color=curve.style.color, alpha=0.5, linewidth=1.5)
        marked = _marked(len(x), i, linear)
        for part, dashes in ((slice(curve.whole), "solid"), (slice(curve.whole, None), FEWER)):
            places = range(len(x))[part]
            if places:
                axes.plot(
                    x[part],
                    mean[part],
                    color=curve.style.color,
                    linestyle=dashes,
                    marker=curve.style.marker,
                    markevery=[place - places.start for place in marked if place in places],
                    markeredgewidth=0,
                )
        for epoch, reached in curve.diverged[["epoch", "last"]].to_numpy(float):
            # Without an epoch to its name it stands at the edge where a diverging run goes.
            edge = bottom if kind.scale == "accuracy" else top
            y = min(max(reached, bottom), top) if np.isfinite(reached) else edge
            axes.plot(max(epoch, 1), y, color=curve.style.color, clip_on=False, zorder=5, **DIVERGED_MARKER)
    if not any(len(curve.rows) or len(curve.diverged) for curve in curves):
        axes.text(0.5, 0.5, "no runs", transform=axes.transAxes, ha="center", va="center", color="#666666")
    return axes


def last_epoch(curves: Sequence[Curve]) -> int:
    """The last epoch that any of the curves has; 1 if none has one."""
    return max([1, *(int(curve.rows["epoch"].max()) for curve in curves if len(curve.rows))])


FEWER = (0, (2.5, 1.2))  # the dashes of a mean of fewer runs than at the start
REFERENCE_LINE: Mapping[str, Any] = {"linewidth": 0.6, "alpha": 0.9}
DIVERGED_MARKER: Mapping[str, Any] = {"marker": "x", "markersize": 5, "markeredgewidth": 1.4, "linestyle": "none"}


def extent(curves: Sequence[Curve], first: int, last: int) -> list[float]:
    """The values that the axis must show; what a diverging run reached on its way up may leave it."""
    healthy = [y for curve in curves if curve.diverged.empty for y in curve.rows["mean"]]
    for curve in curves:
        healthy += list(curve.reference["value"][curve.reference["epoch"].between(first, last)])
    wild = [y for curve in curves if not curve.diverged.empty for y in curve.rows["mean"]]
    if not healthy:
        return wild
    top = max(healthy)
    roof = 3 * top if top > 0 else top + 2 * abs(top)
    return [*healthy, *(y for y in wild if y <= roof)]


def _marked(count: int, shift: int, linear: bool) -> list[int]:
    """Where markers stand: evenly on the axis, each curve's a little later, so that they do not hide each other."""
    if count <= _EACH_MARKED:
        return list(range(count))
    if linear or count <= style.MOST_LINEAR:
        return list(range(round((0.1 + 0.2 * (shift % 4)) * count / 5), count, max(count // 5, 1)))
    steps = 10 ** (np.arange(0, 6, 0.4) + 0.09 * (shift % 4))
    return sorted({0, *(int(step) - 1 for step in steps if step <= count)})


_EACH_MARKED = 10


def handles(
    curves: Sequence[Curve], labels: Mapping[str, str] | None = None, *, reference: str = "reference"
) -> list[Artist]:
    """A legend's entries; the cross and the thin line, called ``reference``, are explained where there are any."""
    entries: list[Artist] = [
        Line2D(
            [],
            [],
            color=c.style.color,
            marker=c.style.marker,
            markeredgewidth=0,
            label=(labels or {}).get(c.label, c.label),
        )
        for c in curves
    ]
    if any(len(curve.reference) for curve in curves):
        entries.append(Line2D([], [], color="#444444", label=reference, **REFERENCE_LINE))
    if any(len(curve.diverged) for curve in curves):
        entries.append(Line2D([], [], color="#444444", label="diverged", **DIVERGED_MARKER))
    return entries


def legend_right(axes: Axes, entries: Sequence[Artist], title: str) -> None:
    """A legend right of the axes, where no data are."""
    axes.legend(handles=entries, title=title, loc="upper left", bbox_to_anchor=(1.02, 1.04), alignment="left")


def page(
    *,
    rows: int,
    columns: int,
    panel: float,
    notes: Sequence[str],
    heading: str = "",
    centered: bool = False,
    legend: int = 0,
    left: float = 0.6,
    right: float = 0.1,
    label: float = 0.34,
    width: float = style.WIDTH,
    top: float = 0.2,
    gap: float = 0.3,
    between: float = 0.17,
) -> tuple[Figure, list[Axes], float]:
    """A figure: panels, below them a legend's lines, then the notes.

    Args:
        panel, left, right, label: in inches: a panel's height, room for y labels, for what is beside, for x labels.
        width, top, gap, between: in inches: the figure's width, room above the panels, between rows and columns.
        heading, centered: above everything, within ``top``; in the middle, or left.
        legend: its lines.

    Returns:
        (figure, its axes row by row, the height in figure coordinates at which the legend hangs)
    """
    characters = int(style.NOTE_CHARACTERS * width / style.WIDTH)
    note = "\n".join(
        textwrap.fill(line, characters, break_long_words=False, break_on_hyphens=False) for line in notes if line
    )
    lines = note.count("\n") + 1 if note else 0
    below = 0.16 * legend + 0.13 * lines + 0.1
    height = top + rows * panel + (rows - 1) * gap + label + below
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / height,
            "bottom": (label + below) / height,
            "hspace": gap / panel,
            "wspace": between * columns / (width - left - right - between * (columns - 1)),
        },
    )
    if heading:
        x, aligned = (0.5, "center") if centered else (0.06 / width, "left")
        figure.text(x, 1 - 0.06 / height, heading, ha=aligned, va="top", fontweight="bold")
    figure.text(
        0.06 / width,
        0.05 / height,
        note,
        fontsize=style.NOTE_SIZE,
        va="bottom",
        color=style.QUIET,
        linespacing=1.35,
    )
    return figure, list(grid.flat), below / height


def sample_notes(named: Sequence[tuple[str, Curve]], unit: str = "seed") -> list[str]:
    """Sample sizes, and which curves stopped early and why.

    Args:
        named: each curve under the name by which the figure knows it.
        unit: what n counts; "run" where a curve pools more than seeds.
    """
    present = [(name, curve) for name, curve in named if curve.n]
    usual = max((curve.n for _, curve in present), key=[curve.n for _, curve in present].count)
    odd = [f"{name}: {curve.n}" for name, curve in present if curve.n != usual]
    several = any(curve.n > 1 for _, curve in present)
    sizes = f"n = {usual} {unit}{'s' if usual > 1 else ''}" + (f" ({_some(odd)})" if odd else "")
    notes = [f"Lines: mean of {sizes}; bands: 95 % interval (t)." if several else f"{sizes}: no interval."]
    for name, curve in present:
        if len(curve.diverged):
            when = sorted({int(epoch) + 1 for epoch in curve.diverged["epoch"]})
            part = f"{len(curve.diverged)} of {curve.n} runs"
            rest = "; the line goes on with the others" if len(curve.diverged) < curve.n else ""
            notes.append(f"× {name} diverged in epoch {_some(list(map(str, when)))} ({part}{rest}).")
    early = [
        f"{name} at {int(curve.unfinished['epoch'].min())}/{int(curve.unfinished['target'].max())}"
        for name, curve in present
        if len(curve.unfinished)
    ]
    if early:
        notes.append(f"Not finished: {_some(early)}.")
    fewer = [f"{name} {_falls(curve)}" for name, curve in present if curve.whole < len(curve.rows)]
    if fewer:
        notes.append(f"Dashed: mean of fewer runs, as the others have ended ({_some(fewer)}).")
    return notes


def _falls(curve: Curve) -> str:
    """``from epoch 41: 2 of 3``."""
    rest = curve.rows.iloc[curve.whole :]
    low, high = int(rest["n"].min()), int(rest["n"].max())
    count = f"{low}" if low == high else f"{high} to {low}"
    return f"from epoch {int(rest['epoch'].iloc[0])}: {count} of {int(curve.rows['n'].iloc[0])}"


def _some(words: Sequence[str], most: int = 6) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png, .svg and .pdf, each whole or not at all; same figure, same bytes.

    Args:
        stem: e.g. ``outputs/figures/fig1``; its directory is made.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS]
    for path, kind in zip(paths, FORMATS, strict=True):
        write_atomic(path, render(figure, kind))
    return paths


def render(figure: Figure, kind: str, *, dark: bool = False) -> bytes:
    """The bytes of a figure as "png", "svg" or "pdf"; ``dark`` for a dark page, the figure left as it was."""
    buffer = io.BytesIO()
    with style.rc(), in_dark(figure) if dark else nullcontext():
        figure.savefig(buffer, format=kind, metadata=dict(FORMATS[kind]))
    return buffer.getvalue()
