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
from sweeps.show.draw import held, settings
from sweeps.study.study import Study

# In inches.
_ROW, _LABELS, _MARKS, _AXIS, _GAP, _NOTE = 0.14, 1.4, 0.66, 0.36, 0.12, 0.13
_MARGIN = "#e4efe9"
_TITLE_CHARACTERS = 44
_RATIOS = (0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
_STYLES: Mapping[Outcome, tuple[str, str, str]] = {
    Outcome.AGREES: ("#009E73", "o", "✓"),
    Outcome.CONTRADICTS: ("#D55E00", "X", "✗"),
    Outcome.LEVEL: ("#0072B2", "s", "≈"),
    Outcome.UNDECIDED: ("#777777", "D", "?"),
}
"""Colour, marker and sign of each outcome, which can be told apart in grey too."""


def forest(findings: Sequence[Finding], study: Study | None = None) -> Figure:
    """One row per comparison under its hypothesis; a panel per unit, as units have no common axis.

    Args:
        findings: judged hypotheses; those without data are only named.
        study: that they are of, for its title, its baseline and its abbreviations.

    Raises:
        ValueError: there are none.
    """
    if not findings:
        raise ValueError("findings must not be empty")
    panels = _panels(findings)
    notes = _notes(findings, study)
    title = textwrap.wrap(f"{study.title}: hypotheses", _TITLE_CHARACTERS) if study else []
    heights = [_ROW * (len(rows) + 0.5) for rows in panels.values()]
    above, below = 0.08 + 0.16 * len(title), _NOTE * len(notes) + 0.06
    height = above + sum(heights) + len(panels) * _AXIS + max(len(panels) - 1, 0) * _GAP + below
    with style.rc({"axes.spines.left": False, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(style.WIDTH, height))
        figure.text(0.06 / style.WIDTH, 1 - 0.06 / height, "\n".join(title), va="top", fontsize=8, fontweight="bold")
        top = height - above
        for (unit, rows), tall in zip(panels.items(), heights, strict=True):
            place = (_LABELS, top - tall, style.WIDTH - _LABELS - _MARKS, tall)
            axes = figure.add_axes((place[0] / style.WIDTH, place[1] / height, place[2] / style.WIDTH, tall / height))
            _panel(axes, rows, unit)
            top -= tall + _AXIS + _GAP
        figure.text(
            0.06 / style.WIDTH, 0.05 / height, "\n".join(notes), fontsize=style.NOTE_SIZE, va="bottom",
            color=style.QUIET, linespacing=1.35,
        )  # fmt: skip
    return figure


_Rows = list[Finding | str | Comparison]


def _panels(findings: Sequence[Finding]) -> dict[str, _Rows]:
    """Unit → the rows from top to bottom: a hypothesis, lines of its text, then its comparisons."""
    panels: dict[str, _Rows] = {}
    for finding in findings:
        comparisons = finding.judged.comparisons if finding.judged else ()
        for unit, group in itertools.groupby(comparisons, key=lambda c: c.unit):
            n = finding.judged.n if finding.judged else 0
            measured = f"{finding.measured}; n = {n} {finding.sample}{'s' * (n != 1)}"
            text = textwrap.wrap(f"{finding.text} Measured: {measured}.", style.NOTE_CHARACTERS)
            panels.setdefault(unit, []).extend([finding, *text, *group])
    return panels


def _panel(axes: Axes, rows: _Rows, unit: str) -> None:
    comparisons = [row for row in rows if isinstance(row, Comparison)]
    axes.set_ylim(len(rows) - 0.25, -0.75)
    axes.yaxis.set_major_locator(NullLocator())
    _scale(axes, comparisons, unit)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    left, right = -(_LABELS - 0.06) / _inches(axes), 1 + 0.05 / _inches(axes)
    if any(not c.reference for c in comparisons):
        axes.axvline(1.0 if unit == "×" else 0.0, color="#888888", linewidth=0.6, zorder=1)
    for y, row in enumerate(rows):
        if not isinstance(row, Comparison):  # a text over the axis's lines
            axes.axhspan(y - (0.5 if y else 0.75), y + 0.5, color="white", linewidth=0, zorder=1.2)
        if isinstance(row, Finding):
            text = f"{row.name}: {row.verdict}"
            axes.text(left, y, text, transform=beside, va="center", fontsize=7, fontweight="bold")
            continue
        if isinstance(row, str):
            axes.text(left, y, row, transform=beside, va="center", fontsize=style.NOTE_SIZE, color=style.QUIET)
            continue
        color, _, sign = _STYLES[row.outcome]
        axes.text(left + 0.06 / _inches(axes), y, _fitting(row.label), transform=beside, va="center", fontsize=6.5)
        axes.text(right, y, f"{row.show(row.effect)} {sign}", transform=beside, va="center", fontsize=6.5, color=color)
        _row(axes, row, y)
    axes.set_xlabel("ratio" if unit == "×" else unit)


def _row(axes: Axes, row: Comparison, y: float) -> None:
    """The margin as a band, what counts as level as a frame, a dot for each seed, the mean and its interval."""
    color, marker, _ = _STYLES[row.outcome]
    least, most = axes.get_xlim()
    low, high = max(row.shown(row.low), least), min(row.shown(row.high), most)
    axes.fill_between([low, high], y - 0.42, y + 0.42, color=_MARGIN, linewidth=0, zorder=0)
    if row.level_at:
        ends = [row.shown(row.reference - row.level_at), row.shown(row.reference + row.level_at)]
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
    pad = 0.04 * (high - low) or 1.0
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


def _notes(findings: Sequence[Finding], study: Study | None) -> list[str]:
    samples = sorted({finding.sample for finding in findings if finding.comparisons}) or ["seed"]
    signs = ", ".join(f"{sign} {outcome}" for outcome, (_, _, sign) in _STYLES.items())
    text = (
        f"Green band: where the hypothesis needs the mean to be; blue frame: level, within δ. Dots: each "
        f"{' or '.join(samples)}; bars: {100 * CONFIDENCE:g} % interval of each comparison alone. {signs}."
    )
    blank = [finding.name for finding in findings if not finding.comparisons]
    paragraphs = [
        held(settings(study, study.baseline), "Where a comparison names nothing else") if study else "",
        _abbreviations(study, findings) if study else "",
        text if len(blank) < len(findings) else "",
        f"No data yet: {', '.join(blank)}." if blank else "",
    ]
    return [line for part in paragraphs for line in textwrap.wrap(part, style.NOTE_CHARACTERS, break_on_hyphens=False)]


def _abbreviations(study: Study, findings: Sequence[Finding]) -> str:
    """What the comparisons' labels abbreviate."""
    used = {word for finding in findings for c in finding.comparisons for cell in c.cells for word in cell.name.split()}
    pairs = {short: axis.name(value) for axis in study.axes.values() for value, short in axis.short.items()}
    words = [f"{short}: {name}" for short, name in pairs.items() if short in used]
    return f"{'; '.join(words)}." if words else ""


def _inches(axes: Axes) -> float:
    return style.WIDTH - _LABELS - _MARKS


def _fitting(label: str, most: int = 27) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
