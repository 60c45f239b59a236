"""A search's figures: its history, its trials in parallel coordinates, and importance.

Everything comes from search.json by :mod:`sweeps.search.record`, and is text or finite numbers by then.
"""

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sweeps.runs import extras
from sweeps.search.record import Search, Trial
from sweeps.show import style
from sweeps.show.draw import DIVERGED_MARKER, page

_MOST_LINES = 500
_MOST_KEYS = 10
_MOST_TICKS = 8
_LEAST_TRIALS = 5  # for an importance that means something
_BEST, _REST = "#D55E00", "#8a8a8a"


def figures(search: Search) -> Iterator[tuple[str, Figure | str]]:
    """(caption, figure, or why there is none) of each."""
    if len(search.finished) < 2:
        yield "History", "fewer than two trials have finished"
        return
    with style.rc():
        if any(trial.rungs for trial in search.trials):
            yield "History: each configuration from rung to rung, the best three in colour", _rungs(search)
        elif len(search.metrics) > 1:
            yield "Objectives of every trial, and the Pareto front", _front(search)
        else:
            yield "History: every trial, and the best so far", _history(search)
        yield "Parallel coordinates: a line is a trial, the darker the better", _parallel(search)
        found = importance(search)
        yield "Importance of the keys", found if isinstance(found, str) else _bars(search, found)


def _scale(metric: str, values: Any) -> str:
    scale = style.metric(metric.removeprefix("best_")).scale
    x = np.asarray(values, float)
    # a file may hold any numbers, and another program's accuracy is not in percent
    is_percent = bool(((x >= 0) & (x <= 100)).all() and (x > 1).any())
    return "linear" if scale == "accuracy" and not is_percent else scale


def _values(search: Search, objective: int = 0) -> dict[int, float]:
    """Finished trial → value; of successive halving where all were measured alike, at the first rung."""
    return {
        trial.number: trial.rungs[0][1] if trial.rungs else trial.values[objective]
        for trial in search.trials
        if trial.values
    }


def _sign(search: Search, objective: int = 0) -> float:
    return -1.0 if search.directions[objective] == "maximize" else 1.0


def _history(search: Search) -> Figure:
    values, sign = _values(search), _sign(search)
    stopped = [trial for trial in search.trials if trial.state in ("diverged", "failed")]
    notes = [f"{len(values)} trials finished."]
    if _scale(search.metrics[0], list(values.values())) == "accuracy":
        notes.append("Accuracy axis: logarithmic in the error rate.")
    notes += [f"× {len(stopped)} diverged or failed."] if stopped else []
    figure, (axes,), _ = page(rows=1, columns=1, panel=1.9, notes=[" ".join(notes)])
    x = np.array(sorted(values))
    y = np.array([values[number] for number in x])
    best = sign * np.minimum.accumulate(sign * y)
    _value_axis(axes, search.metrics[0], y)
    axes.plot(x, y, linestyle="none", marker="o", color=_REST, markeredgewidth=0)
    axes.step(x, best, where="post", color=_BEST)
    _mark_stopped(axes, [trial.number for trial in stopped], bottom=sign < 0)
    axes.set_xlabel("trial")
    axes.set_ylabel(search.metrics[0])
    return figure


def _mark_stopped(axes: Axes, at: Sequence[float], *, bottom: bool) -> None:
    edge = axes.get_ylim()[0 if bottom else 1]
    axes.plot(at, [edge] * len(at), color="#444444", clip_on=False, zorder=5, **DIVERGED_MARKER)


def _front(search: Search) -> Figure:
    values, others = _values(search, 0), _values(search, 1)
    front = search.ranked()
    notes = [f"{len(values)} trials finished, {len(front)} of them on the front."]
    if len(search.metrics) > 2:
        notes.append(f"The first two of {len(search.metrics)} objectives.")
    figure, (axes,), _ = page(rows=1, columns=1, panel=1.9, notes=notes)
    numbers = sorted(values)
    _value_axis(axes, search.metrics[0], [values[number] for number in numbers])
    x, y = [others[number] for number in numbers], [values[number] for number in numbers]
    axes.plot(x, y, linestyle="none", marker="o", color=_REST, markeredgewidth=0)
    best = sorted((others[trial.number], values[trial.number]) for trial in front)
    axes.plot([x for x, _ in best], [y for _, y in best], marker="o", color=_BEST, markeredgewidth=0)
    axes.set_xlabel(search.metrics[1])
    axes.set_ylabel(search.metrics[0])
    return figure


def _rungs(search: Search) -> Figure:
    trials = [trial for trial in search.trials if trial.rungs]
    stopped = [trial for trial in search.trials if trial.state in ("diverged", "failed")]
    sizes = {epochs: sum(any(e == epochs for e, _ in t.rungs) for t in trials) for t in trials for epochs, _ in t.rungs}
    steps = ", ".join(f"{sizes[epochs]} to {epochs}" for epochs in sorted(sizes))
    notes = [f"Configurations: {steps} epochs."] + ([f"{len(stopped)} diverged or failed."] if stopped else [])
    figure, (axes,), below = page(rows=1, columns=1, panel=1.9, notes=notes, legend=3)
    _value_axis(axes, search.metrics[0], [value for trial in trials for _, value in trial.rungs])
    best = [trial for trial in search.ranked()[:3] if trial.rungs]
    styles = dict(zip([trial.number for trial in best], style.styles([f"{i}" for i in range(len(best))]), strict=True))
    for trial in sorted(trials, key=lambda trial: trial.number in styles):
        x, y = zip(*trial.rungs, strict=True)
        own = styles.get(trial.number)
        color, marker = (own.color, own.marker) if own else ("#bcbcbc", "o")
        axes.plot(x, y, color=color, marker=marker, markeredgewidth=0, linewidth=1.2 if own else 0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(sizes)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch")
    axes.set_ylabel(search.metrics[0])
    entries = [
        Line2D(
            [],
            [],
            color=styles[t.number].color,
            marker=styles[t.number].marker,
            markeredgewidth=0,
            label=_label(search, t),
        )
        for t in best
    ]
    figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(axes.get_position().x0, below), alignment="left")
    return figure


def _label(search: Search, trial: Trial) -> str:
    keys = [axis["key"] for axis in search.space]
    text = style.label(keys, [_short(trial.params[key]) for key in keys])
    return text if len(text) <= 60 else text[:59] + "…"


def _short(value: str | int | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _value_axis(axes: Axes, metric: str, values: Any) -> None:
    style.value_axis(axes, _scale(metric, values), np.asarray(values, float))


def _parallel(search: Search) -> Figure:
    """A vertical axis for each key, the objective's last; spans as they were searched, choices in their order."""
    space = search.space[:_MOST_KEYS]
    values, sign = _values(search), _sign(search)
    order = sorted((trial for trial in search.trials if trial.number in values), key=lambda t: sign * values[t.number])
    shown = order[:_MOST_LINES]
    notes = [f"{len(order)} trials" + (f", the best {len(shown)} drawn." if len(shown) < len(order) else ".")]
    if len(search.space) > len(space):
        notes.append(f"The first {len(space)} of {len(search.space)} keys.")
    metric = search.metrics[0]
    if any(trial.rungs for trial in shown):
        notes.append(f"{metric} after the first rung, where all were measured alike.")
    slanted = len(space) > 3
    figure, (axes,), _ = page(
        rows=1, columns=1, panel=2.1, notes=notes, left=0.45, right=0.45, label=0.45 if slanted else 0.25
    )
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])
    low, high = min(values[t.number] for t in shown), max(values[t.number] for t in shown)
    level = _levels(_scale(metric, [low, high]), low, high)
    rank = {trial.number: i / max(len(order) - 1, 1) for i, trial in enumerate(order)}
    for trial in reversed(shown):
        y = [_place(axis, trial.params[axis["key"]]) for axis in space]
        y.append(level(values[trial.number]))
        color = colormaps["magma"](0.08 + 0.80 * rank[trial.number])
        axes.plot(range(len(y)), y, color=color, linewidth=0.8, alpha=0.75, clip_on=False)
    for i, axis in enumerate(space):
        _upright(axes, i, [(_place(axis, value), _tick(value)) for value in _ticks(axis)])
    _upright(axes, len(space), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")])
    names = [*(_cut(axis["key"], 16) for axis in space), metric]
    axes.set_xticks(range(len(names)), names, rotation=20 if slanted else 0)
    axes.tick_params("x", length=0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0, len(space))
    return figure


def _levels(scale: str, low: float, high: float) -> Callable[[float], float]:
    """Place on an axis from ``low`` to ``high``: logarithmic in losses, and in the error of accuracies."""

    def position(x: float) -> float:
        if scale == "accuracy" and high <= 100:
            return -math.log(max(100 - x, 0.005))
        return math.log(x) if scale == "log" and low > 0 else x

    start, end = position(low), position(high)
    return lambda x: (position(x) - start) / (end - start) if end > start else 0.5


def _upright(axes: Axes, x: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(x, color="#555555", linewidth=0.6, zorder=3, clip_on=False)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.4}
    for y, text in ticks:
        axes.text(x, y, text, fontsize=5.5, ha="center", va="center", zorder=4, bbox=box)


def _place(axis: Mapping[str, Any], value: Any) -> float:
    """0 at an axis's lower end, 1 at its upper."""
    if "values" in axis:
        options = axis["values"]
        i = options.index(value) if value in options else 0
        return float(i / (len(options) - 1)) if len(options) > 1 else 0.5
    if isinstance(value, str) or axis["high"] == axis["low"]:
        return 0.5
    low, high, x = float(axis["low"]), float(axis["high"]), float(value)
    x = min(max(x, low), high)
    if axis["log"]:
        low, high, x = math.log(low), math.log(high), math.log(x)
    return (x - low) / (high - low) if high > low else 0.5


def _ticks(axis: Mapping[str, Any]) -> list[Any]:
    if "values" in axis:
        options = axis["values"]
        return list(options[:: -(-len(options) // _MOST_TICKS)])
    low, high = axis["low"], axis["high"]
    if axis["log"]:
        powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        if 2 <= len(powers) <= _MOST_TICKS:
            return powers
    return [low, high]


def _tick(value: Any) -> str:
    return _cut(value if isinstance(value, str) else f"{value:.3g}", 12)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def importance(search: Search) -> dict[str, float] | str:
    """Key → its importance (PED-ANOVA, by Optuna), or why it is not known."""
    values = _values(search)
    if len(values) < _LEAST_TRIALS:
        return f"fewer than {_LEAST_TRIALS} trials have finished"
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError:
        return f"computed by Optuna, which is not installed: {extras.install('search')}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna.logging.set_verbosity(optuna.logging.CRITICAL)
            distributions = {axis["key"]: _distribution(optuna, axis) for axis in search.space}
            study = optuna.create_study(direction=search.directions[0])
            for trial in search.trials:
                if trial.number in values:
                    study.add_trial(
                        optuna.trial.create_trial(
                            params=dict(trial.params), distributions=distributions, value=values[trial.number]
                        )
                    )
            found = optuna.importance.get_param_importances(study)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        return f"Optuna finds none ({_cut(' '.join(str(error).split()), 100)})"
    shares = {str(key): float(share) for key, share in found.items() if math.isfinite(share)}
    return shares or "Optuna finds none"


def _distribution(optuna: Any, axis: Mapping[str, Any]) -> Any:
    kinds = optuna.distributions
    if "values" in axis:
        return kinds.CategoricalDistribution(axis["values"])
    kind = kinds.IntDistribution if isinstance(axis["low"], int) else kinds.FloatDistribution
    step = {} if axis["step"] is None or axis["log"] else {"step": axis["step"]}
    return kind(axis["low"], axis["high"], log=axis["log"], **step)


def _bars(search: Search, shares: Mapping[str, float]) -> Figure:
    order = sorted(shares, key=lambda key: -shares[key])[:_MOST_KEYS]
    notes = [f"PED-ANOVA over {len(_values(search))} trials: what tells good trials from others; shares of 1."]
    figure, (axes,), _ = page(rows=1, columns=1, panel=0.3 + 0.22 * len(order), notes=notes, left=0.95)
    axes.barh(range(len(order)), [shares[key] for key in order], color="#0072B2", height=0.6)
    axes.set_yticks(range(len(order)), [_cut(key, 18) for key in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("importance")
    return figure
