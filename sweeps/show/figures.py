"""A study's figures from collected runs, and curves and heatmaps of any other keys.

A figure is a :class:`matplotlib.figure.Figure` of its own; no global state of Matplotlib's is left changed. It can be
understood without a text around it: what was held fixed is on it, and what is missing, unfinished or diverged, with the
command that would make it. :func:`sweeps.show.draw.render` draws any of them for a dark page as well.
"""

import math
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.read.collect import Collection
from sweeps.runs.command import printed, tree
from sweeps.runs.errors import InputError
from sweeps.show import style as look
from sweeps.show.draw import (
    Curve,
    draw,
    extent,
    handles,
    held,
    last_epoch,
    legend_right,
    page,
    same,
    sample_notes,
    series,
    settings,
    split_note,
)
from sweeps.show.draw import save as save
from sweeps.show.explore import curves as curves
from sweeps.show.explore import heatmap as heatmap
from sweeps.show.explore import mixed
from sweeps.study import reference
from sweeps.study.hypotheses import Settings
from sweeps.study.select import FREE, select
from sweeps.study.study import FigureSpec, Metric, Panel, Study, written

STYLES = ("plain", "report")
"""``report``: panels in a row and linear axes, as the course report draws them."""


def figure(study: Study, spec: FigureSpec, collection: Collection, *, style: str = "plain") -> Figure:
    """One of the study's figures; the reference's curves are thin lines behind ours.

    Args:
        style: of :data:`STYLES`.

    Raises:
        InputError: there is not one run to draw, or the reference's curves cannot be read.
    """
    linear = style == "report"
    panels = _panels(study, spec, collection)
    if linear and len(panels) > _MOST_IN_A_ROW:  # a row for each metric
        panels = [
            panel for metric in dict.fromkeys(p.metric for p in panels) for panel in panels if panel.metric == metric
        ]
    with look.rc():
        layout = _Layout(study, spec, panels, in_a_row=linear)
        drawn, grid, below = layout.page(_notes(study, spec, panels, collection, layout, linear=linear))
        for i, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            alike = [curve for other in layout.alike(i) for curve in other.curves]
            kind = look.Metric(panel.metric.title, panel.metric.axis, panel.metric.scale)
            draw(axes, panel.curves, kind, like=alike, last=layout.last, linear=linear)
            axes.set_title(layout.titles[i])
            axes.set_xlabel("epoch")
            axes.set_ylabel("\n".join(textwrap.wrap(panel.metric.axis, int(layout.height / look.CHARACTER) + 4)))
            layout.align_label(axes)
            layout.hide_inner(axes, i)
        for axes in grid[len(panels) :]:
            axes.remove()
        layout.legends(drawn, grid, below)
    return drawn


@dataclass(frozen=True)
class _Panel:
    """One axes' worth: what is drawn, and how it is called."""

    spec: Panel
    metric: Metric
    place: str
    """The settings in words: ``2 hidden layers``; empty at the baseline."""
    curves: list[Curve]

    @property
    def scale(self) -> tuple[str, str]:
        """Panels of the same can be read on the same axis."""
        return self.metric.axis, self.metric.scale

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Panels of the same show the same runs on the same scale."""
        return *self.scale, self.spec.lines, self.place


def _panels(study: Study, spec: FigureSpec, collection: Collection) -> list[_Panel]:
    varied = {key for panel in spec.panels for key in (panel.lines, *panel.settings)}
    runs = select(study, collection.runs, dict.fromkeys(varied, FREE))  # few, even of ten thousand
    epochs = collection.epochs[collection.epochs["run"].isin(runs["run"])]
    logged = {panel.metric: epochs.get(panel.metric, np.nan) for panel in spec.panels}
    near = replace(collection, runs=runs, epochs=epochs.assign(**logged))
    points = reference.curves(study)
    return [
        _Panel(
            panel,
            study.metric(panel.metric),
            _words(study, panel.settings),
            _curves(study, spec.name, panel, near, points),
        )
        for panel in spec.panels
    ]


def _curves(study: Study, name: str, panel: Panel, collection: Collection, points: pd.DataFrame) -> list[Curve]:
    """One for each value of the panel's axis, in order; without runs it has no rows."""
    axis = study.axis(panel.lines)
    runs = select(study, collection.runs, {**panel.settings, panel.lines: FREE})
    given = [axis.style.get(written(value)) for value in axis.values]
    found = series(
        collection,
        runs if axis.key in runs else runs.assign(**{axis.key: None}),
        axis.key,
        axis.values,
        panel.metric,
        labels=[axis.name(value) for value in axis.values],
        styles=look.styles(axis.values, [pair and look.Style(*pair) for pair in given]),
    )
    cells = [{**panel.settings, axis.key: value} for value in axis.values]
    behind = (reference.curve(study, points, cell, panel.metric, name) for cell in cells)
    return [replace(curve, reference=line) for curve, line in zip(found, behind, strict=True)]


def _groups(panels: Sequence[_Panel], *, linear: bool) -> list[int]:
    """A number for each panel; those of the same number have the same limits.

    That is all of a scale, so that they can be compared; or those of a row, or each alone, where one would be left half
    empty by what another shows.
    """
    ways: list[list[Any]] = [[p.scale for p in panels], [p.row for p in panels], [*range(len(panels))]]
    last = last_epoch([curve for panel in panels for curve in panel.curves])
    for way in ways:
        found = [way.index(key) for key in way]
        if linear or all(_fills(panel, [panels[j] for j in _alike(found, i)], last) for i, panel in enumerate(panels)):
            return found
    return found


def _alike(groups: Sequence[int], index: int) -> list[int]:
    return [i for i, group in enumerate(groups) if group == groups[index]]


def _fills(panel: _Panel, others: Sequence[_Panel], last: int) -> bool:
    """Whether its own values take most of the axis that shows the others' as well."""
    own, every = (
        look.positions(panel.metric.scale, extent([curve for one in some for curve in one.curves], 1, last))
        for some in ([panel], others)
    )
    return own.size == 0 or bool(np.ptp(own) >= _MOST_OF_IT * np.ptp(every))


_MOST_OF_IT = 0.6


# -- layout ----------------------------------------------------------------------------------------------------------

_LINE = 0.13  # inches: a line of a title
_ENTRY = 0.16  # inches: a line of a legend
_HANDLE = 0.42  # inches: a legend's line, and the room around an entry
_LONGEST = 26  # characters of a legend's label beside a panel
_MOST_IN_A_ROW = 4


class _Layout:
    """Where panels, titles and legends are.

    A legend that all panels share is below them; one for each panel is beside it, or, in a row of panels, under it.
    """

    def __init__(self, study: Study, spec: FigureSpec, panels: Sequence[_Panel], *, in_a_row: bool) -> None:
        count = len(panels)
        self._study, self._spec, self._panels, self._in_a_row = study, spec, panels, in_a_row
        self._shared = len(spec.keys) == 1
        self._columns = _columns(count, spec.columns, in_a_row=in_a_row)
        self._rows = math.ceil(count / self._columns)
        self._full = self._rows * self._columns == count
        narrow = self._columns == 1 or (self._columns == 2 and self._shared and not in_a_row)
        self._width = look.WIDTH if narrow else look.WIDE
        self._groups = _groups(panels, linear=in_a_row)
        rows = [self._groups[i : i + self._columns] for i in range(0, count, self._columns)]
        self._alike = all(len({*row}) == 1 for row in rows)
        self._between = 0.17 if self._alike else 0.62
        beside = not self._shared and not in_a_row
        self._under = not self._shared and in_a_row
        self._right = 0.1 if not beside else 0.1 + _HANDLE + look.CHARACTER * self._longest(_LONGEST)
        gaps = self._between * (self._columns - 1)
        self._panel_width = (self._width - self._left - self._right - gaps) / self._columns
        self.height = 2.0 if count == 1 and self._shared else 1.25 if self._width == look.WIDTH else 1.4
        if beside:  # the legend, with its title, reference and cross, must not reach the next one
            most = max(sum(1 + label.count("\n") for label in self._labels(i, _LONGEST)) for i in range(count))
            self.height = max(self.height, _ENTRY * (most + 3) - 0.2)
        self.last = last_epoch([curve for panel in panels for curve in panel.curves])
        characters = int(self._panel_width / look.CHARACTER)
        self.titles = [self._title(panel, max(characters, 12)) for panel in panels]

    _left = 0.6

    def alike(self, index: int) -> list[_Panel]:
        """The panels with the same limits, itself among them."""
        return [self._panels[i] for i in _alike(self._groups, index)]

    @property
    def differs(self) -> bool:
        """Whether panels that could be read on the same axis have limits of their own."""
        return len({*self._groups}) > len({panel.scale for panel in self._panels})

    def page(self, notes: Sequence[str]) -> tuple[Figure, list[Axes], float]:
        """The figure, its axes row by row, and the height at which a legend below all panels hangs."""
        title = _LINE * max(1 + title.count("\n") for title in self.titles)
        last_row = (self._rows - 1) * self._columns
        under, last = (
            _ENTRY * max((self._lines(i)[1] for i in some if self._has_legend(i)), default=0) if self._under else 0
            for some in (range(last_row), range(last_row, len(self._panels)))
        )
        heading = self._heading()
        above = _LINE * (1 + heading.count("\n")) + 0.1 if heading else 0
        return page(
            rows=self._rows,
            columns=self._columns,
            panel=self.height,
            notes=notes,
            heading=heading,
            centered=self._in_a_row,
            legend=self._lines(0)[1] if self._shared else 0,
            left=self._left,
            right=self._right,
            width=self._width,
            top=0.08 + title + above,
            gap=(0.16 if self._full and not self._under else 0.38) + title + under,
            between=self._between,
            label=0.34 + last,
        )

    def _heading(self) -> str:
        """The reference's title in its style, else the caption."""
        text = self._spec.title if self._in_a_row else self._spec.caption
        return textwrap.fill(text, int((self._width - 0.1) / (1.12 * look.CHARACTER)))  # bold is wider

    def align_label(self, axes: Axes) -> None:
        """The value axis's label where it is beside every panel, however wide its numbers are."""
        axes.yaxis.set_label_coords((0.2 - self._left) / self._panel_width, 0.5)

    def hide_inner(self, axes: Axes, index: int) -> None:
        """No labels between panels that share an axis."""
        row, column = divmod(index, self._columns)
        if self._alike and column:
            axes.set_ylabel("")
            axes.tick_params("y", labelleft=False)
        if self._full and not self._under and row < self._rows - 1:
            axes.set_xlabel("")
            axes.tick_params("x", labelbottom=False)

    def legends(self, figure: Figure, grid: Sequence[Axes], below: float) -> None:
        name = self._study.reference.name if self._study.reference else ""
        if self._shared:
            # The same entries stand for every panel, and a cross in any of them needs its word.
            parts = [[panel.curves[i] for panel in self._panels] for i in range(len(self._panels[0].curves))]
            joined = [
                replace(part[0], runs=pd.concat([c.runs for c in part]), reference=_longest_reference(part))
                for part in parts
            ]
            columns, _ = self._lines(0)
            figure.legend(
                handles=handles(joined, self._wrapped(0), reference=name),
                loc="upper center",
                bbox_to_anchor=(0.5, below),
                ncols=columns,
                columnspacing=1.0,
            )
            return
        for i, (axes, panel) in enumerate(zip(grid, self._panels, strict=False)):
            if not self._has_legend(i):
                continue
            entries = handles(panel.curves, self._wrapped(i), reference=name)
            title = self._study.axis(panel.spec.lines).title
            if self._under:
                corner = (0.5, -0.36 / self.height)
                columns, _ = self._lines(i)
                axes.legend(
                    handles=entries, loc="upper center", bbox_to_anchor=corner, ncols=columns, columnspacing=1.0
                )
            else:
                legend_right(axes, entries, "\n".join(textwrap.wrap(title, _LONGEST)))

    def _has_legend(self, index: int) -> bool:
        """Where each panel has its own, but for the same one beside it or under it."""
        if not self._under:
            return index % self._columns == self._columns - 1
        below = self._panels[index + self._columns : index + self._columns + 1]
        return not below or below[0].spec.lines != self._panels[index].spec.lines

    def _title(self, panel: _Panel, characters: int) -> str:
        axis = "" if self._shared else f" by {self._study.axis(panel.spec.lines).title}"
        parts = [part for part in (panel.place, f"{panel.metric.title}{axis}") if part]
        if len(" · ".join(parts)) <= characters:
            return " · ".join(parts)
        return "\n".join(textwrap.fill(part, characters) for part in parts)

    def _labels(self, index: int, characters: int) -> list[str]:
        """The names of a panel's lines, the baseline's with a star where several axes meet in it."""
        key = self._panels[index].spec.lines
        base = self._study.axis(key).name(self._study.baseline[key])
        names = [curve.label for curve in self._panels[index].curves]
        marked = [f"{name} *" if name == base and not self._shared else name for name in names]
        return [textwrap.fill(name, characters) for name in marked]

    def _longest(self, characters: int) -> int:
        """Of any line of any legend."""
        titles = [self._study.axis(panel.spec.lines).title for panel in self._panels]
        words = [label for i in range(len(self._panels)) for label in self._labels(i, characters)]
        return max(len(line) for text in [*titles, *words] for line in textwrap.wrap(text, characters))

    def _lines(self, index: int) -> tuple[int, int]:
        """Columns and lines of a legend below or under panels."""
        room = self._width - 0.1 if self._shared else self._panel_width + self._between
        labels = self._labels(index, self._characters)
        curves = [curve for panel in self._panels for curve in panel.curves]
        labels += ["reference"] * any(len(curve.reference) for curve in curves)
        labels += ["diverged"] * any(len(curve.diverged) for curve in curves)
        longest = max(len(line) for label in labels for line in label.split("\n"))
        columns = max(1, min(len(labels), int(room / (_HANDLE + 0.08 + look.CHARACTER * longest))))
        lines = sum(1 + label.count("\n") for label in labels)
        return columns, math.ceil(lines / columns)

    @property
    def _characters(self) -> int:
        """Of a line of a legend's label."""
        if not self._shared and not self._in_a_row:
            return _LONGEST
        room = self._width - 0.1 if self._shared else self._panel_width
        return max(int((room - _HANDLE) / look.CHARACTER), 8)

    def _wrapped(self, index: int) -> Mapping[str, str]:
        labels = self._labels(index, self._characters)
        return {curve.label: label for curve, label in zip(self._panels[index].curves, labels, strict=True)}


def _columns(count: int, metrics: int, *, in_a_row: bool) -> int:
    """How many panels stand side by side; of more rows than one, each has the same number, if that can be."""
    if not in_a_row and metrics <= _MOST_IN_A_ROW:
        return metrics
    if count > _MOST_IN_A_ROW and count // metrics <= _MOST_IN_A_ROW and metrics > 1:
        return count // metrics
    return math.ceil(count / math.ceil(count / _MOST_IN_A_ROW))


def _longest_reference(curves: Sequence[Curve]) -> pd.DataFrame:
    return max((curve.reference for curve in curves), key=len)


# -- notes -----------------------------------------------------------------------------------------------------------


def _notes(
    study: Study, spec: FigureSpec, panels: Sequence[_Panel], collection: Collection, layout: _Layout, *, linear: bool
) -> list[str]:
    """What a reader must know to read the figure: sample sizes, scales, and everything that is missing or unfinished.

    Raises:
        InputError: there is not one run.
    """
    # Panels of several metrics rest on the same runs, which need naming once.
    parts = {(panel.spec.lines, panel.place): panel for panel in panels}.values()
    named = [(label, curve) for panel in parts for label, curve in zip(_names(study, panel), panel.curves, strict=True)]
    missing = [label for label, curve in named if not curve.n]
    if len(missing) == len(named):
        how = printed([*study.training, *tree(collection.out)])
        raise InputError("figure", spec.name, f"none of its runs is there; make them: {how}")
    every = [curve for panel in panels for curve in panel.curves]
    runs = collection.runs[collection.runs["run"].isin(pd.concat([curve.runs["run"] for curve in every]))]
    epochs = collection.epochs[collection.epochs["run"].isin(runs["run"])]
    absent = dict.fromkeys(panel.metric.title for panel in panels if panel.metric.name not in collection.epochs)
    facts = [held(_held(study, spec, runs)), *spec.notes]
    facts.append(f"No run logs {', '.join(absent)}." if absent else "")
    facts.append(split_note([panel.metric.name for panel in panels], epochs))
    reading = sample_notes(named)
    if len(spec.keys) > 1:
        base = ", ".join(_words(study, {key: study.baseline[key]}) for key in spec.keys)
        reading.append(f"* the baseline, which the panels share: {base}.")
    if study.reference and any(len(curve.reference) for curve in every):
        reading.append(f"Thin lines: the {study.reference.name}'s own curves.")
    reading.append("" if linear else look.scale_note([panel.metric.scale for panel in panels], last_epoch(every)))
    reading.append("Value axes differ between panels." if layout.differs else "")
    notes = [" ".join(filter(None, facts)), " ".join(filter(None, reading))]
    pooled = sorted({key for _, curve in named for key in mixed(collection.runs, curve.runs["run"])})
    if pooled:
        notes.append(f"Lines pool runs that differ in {', '.join(pooled)}: give the study's baseline a value for each.")
    if missing:
        notes.append(f"No runs of: {'; '.join(missing)}. To make them: {shlex.join(study.training)}")
    return notes


def _held(study: Study, spec: FigureSpec, runs: pd.DataFrame) -> list[str]:
    """What all panels have in common, by the study and then by the runs."""
    varied = {key for panel in spec.panels for key in (panel.lines, *panel.settings)}
    return settings(study, {key: value for key, value in {**study.baseline, **same(runs)}.items() if key not in varied})


def _words(study: Study, settings: Settings) -> str:
    """``ReLU, lr 0.01``: names speak for themselves, other values need their key."""
    words = []
    for key, value in settings.items():
        name = study.axis(key).name(value)
        words.append(name if name != written(value) else f"{key} {name}")
    return ", ".join(words)


def _names(study: Study, panel: _Panel) -> list[str]:
    """Each curve's name in the notes: ``Tanh, 1 hidden layer``."""
    key = panel.spec.lines
    cells: list[dict[str, Any]] = [{key: value, **panel.spec.settings} for value in study.axis(key).values]
    return [_words(study, cell) for cell in cells]
