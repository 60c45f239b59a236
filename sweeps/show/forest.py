"""A forest plot: every comparison of some hypotheses, with its interval, its seeds and the margin that it needs."""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, SymmetricalLogLocator
from matplotlib.transforms import blended_transform_factory

from sweeps.judge.findings import CONFIDENCE, Comparison, Finding, Outcome
from sweeps.show import style

# In inches.
_ROW, _LABELS, _MARKS, _AXIS, _GAP, _NOTE = 0.135, 1.32, 0.62, 0.34, 0.12, 0.125
_MARGIN = "#e4efe9"
_RATIOS = (0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
_STYLES: Mapping[Outcome, tuple[str, str, str]] = {
    Outcome.AGREES: ("#009E73", "o", "✓"),
    Outcome.CONTRADICTS: ("#D55E00", "X", "✗"),
    Outcome.LEVEL: ("#0072B2", "s", "≈"),
    Outcome.UNDECIDED: ("#777777", "D", "?"),
}
"""Colour, marker and sign of each outcome, which can be told apart in grey too."""


def forest(findings: Sequence[Finding]) -> Figure:
    """One row per comparison under the name of its hypothesis; a panel per unit, as units have no common axis.

    Args:
        findings: judged hypotheses; of those without data only the name and the verdict are shown.

    Raises:
        ValueError: there are none.
    """
    panels = _panels(findings)
    if not panels:
        raise ValueError("findings must not be empty")
    notes = _notes(findings)
    heights = [_ROW * (len(rows) + 0.5) for rows in panels.values()]
    below = _NOTE * len(notes) + 0.06
    height = 0.08 + sum(heights) + len(panels) * _AXIS + (len(panels) - 1) * _GAP + below
    with style.rc({"axes.spines.left": False, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(style.WIDTH, height))
        top = height - 0.08
        for (unit, rows), tall in zip(panels.items(), heights, strict=True):
            place = (_LABELS, top - tall, style.WIDTH - _LABELS - _MARKS, tall)
            axes = figure.add_axes((place[0] / style.WIDTH, place[1] / height, place[2] / style.WIDTH, tall / height))
            _panel(axes, rows, unit)
            top -= tall + _AXIS + _GAP
        figure.text(
            0.06 / style.WIDTH, 0.05 / height, "\n".join(notes), fontsize=style.NOTE_SIZE, va="bottom",
            color="#333333", linespacing=1.35,
        )  # fmt: skip
    return figure


def _panels(findings: Sequence[Finding]) -> dict[str, list[Finding | Comparison]]:
    """Unit → the rows from top to bottom: a hypothesis, then its comparisons."""
    panels: dict[str, list[Finding | Comparison]] = {}
    for finding in findings:
        comparisons = finding.judged.comparisons if finding.judged else ()
        for unit, group in itertools.groupby(comparisons, key=lambda c: c.unit):
            panels.setdefault(unit, []).extend([finding, *group])
        if not comparisons:
            panels.setdefault(next(iter(panels), ""), []).append(finding)
    return panels


def _panel(axes: Axes, rows: Sequence[Finding | Comparison], unit: str) -> None:
    comparisons = [row for row in rows if isinstance(row, Comparison)]
    axes.set_ylim(len(rows) - 0.25, -0.75)
    axes.yaxis.set_major_locator(NullLocator())
    _scale(axes, comparisons, unit)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    left, right = -(_LABELS - 0.06) / _inches(axes), 1 + 0.05 / _inches(axes)
    if any(not c.reference for c in comparisons):
        axes.axvline(1.0 if unit == "×" else 0.0, color="#888888", linewidth=0.6, zorder=1)
    for y, row in enumerate(rows):
        if isinstance(row, Finding):
            text = f"{row.name}: {row.verdict}"
            axes.text(left, y, text, transform=beside, va="center", fontsize=6.5, fontweight="bold")
            continue
        color, _, sign = _STYLES[row.outcome]
        axes.text(left + 0.06 / _inches(axes), y, _fitting(row.label), transform=beside, va="center", fontsize=6)
        axes.text(right, y, f"{row.show(row.effect)} {sign}", transform=beside, va="center", fontsize=6, color=color)
        _row(axes, row, y)
    axes.set_xlabel("ratio" if unit == "×" else unit)


def _row(axes: Axes, row: Comparison, y: float) -> None:
    """The margin as a band, what counts as level as a frame, a dot for each seed, the mean and its interval."""
    color, marker, _ = _STYLES[row.outcome]
    least, most = axes.get_xlim()
    low, high = max(row.shown(row.low), least), min(row.shown(row.high), most)
    axes.fill_between([low, high], y - 0.42, y + 0.42, color=_MARGIN, linewidth=0, zorder=0)
    if row.delta:
        ends = [row.shown(row.reference - row.delta), row.shown(row.reference + row.delta)]
        axes.plot(
            [ends[0], ends[1], ends[1], ends[0], ends[0]], [y - 0.42, y - 0.42, y + 0.42, y + 0.42, y - 0.42],
            color="#0072B2", linewidth=0.4, zorder=1,
        )  # fmt: skip
    seeds = [row.shown(x) for x in row.differences]
    below = np.full(len(seeds), y + 0.27)  # where neither the mean nor its interval hides them
    axes.plot(seeds, below, "o", color=color, alpha=0.6, markersize=1.7, markeredgewidth=0, zorder=2)
    above = y - 0.1
    if not math.isnan(row.interval[0]):
        axes.plot(np.clip(row.interval, least, most), [above, above], color=color, linewidth=1.0, zorder=3)
    edge: dict[str, Any] = {"markersize": 3.4, "markeredgewidth": 0.4, "markeredgecolor": "white"}
    axes.plot([row.effect], [above], marker, color=color, zorder=4, **edge)


def _scale(axes: Axes, comparisons: Sequence[Comparison], unit: str) -> None:
    """Limits around all that is drawn. Ratios are logarithmic; of differences those far beyond the margins are."""
    finite = [x for c in comparisons for x in (c.low, c.high, c.reference) if math.isfinite(x)]
    means = [x for c in comparisons for x in (c.estimate.mean, *c.differences) if math.isfinite(x)]
    ends = [x for c in comparisons for x in c.estimate.interval(CONFIDENCE) if math.isfinite(x)]
    # An interval of very few seeds may be wider than all that matters, and then runs off the axis.
    low, high = (min([*finite, *means], default=0.0), max([*finite, *means], default=1.0))
    width = max(high - low, 1e-9)
    low, high = min([low, *(x for x in ends if x > low - width)]), max([high, *(x for x in ends if x < high + width)])
    pad = 0.04 * (high - low)
    if unit == "×":
        axes.set_xscale("log", base=2)
        axes.set_xlim(math.exp(low - pad), math.exp(high + pad))
        axes.xaxis.set_major_locator(FixedLocator(_RATIOS if high - low < 3 else [2.0**k for k in range(-20, 21)]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        small = float(np.median([abs(x) for x in [*finite, *means] if x] or [1.0]))
        if max(abs(low), abs(high)) > 8 * small:
            threshold = 10.0 ** math.floor(math.log10(small))
            axes.set_xscale("symlog", linthresh=threshold, linscale=0.8)
            axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(low * (1.3 if low < 0 else 1) - pad / 20, high * (1.3 if high > 0 else 1) + pad / 20)
        else:
            axes.set_xlim(low - pad, high + pad)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _notes(findings: Sequence[Finding]) -> list[str]:
    samples = sorted({finding.sample for finding in findings if finding.comparisons}) or ["seed"]
    signs = ", ".join(f"{sign} {outcome}" for outcome, (_, _, sign) in _STYLES.items())
    text = (
        f"Green band: where the hypothesis needs the mean to be; blue frame: level, within δ. Dots: each "
        f"{' or '.join(samples)}; bars: {100 * CONFIDENCE:g} % interval of each comparison alone. {signs}."
    )
    return textwrap.wrap(text, style.NOTE_CHARACTERS)


def _inches(axes: Axes) -> float:
    return style.WIDTH - _LABELS - _MARKS


def _fitting(label: str, most: int = 27) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
