"""The report's figures 1–8 from collected runs, and curves and heatmaps of any other keys.

A figure is a :class:`matplotlib.figure.Figure` of its own; no global state of Matplotlib's is left changed. What is
missing, unfinished or diverged is said on the figure itself, with the command that would make it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.runs.errors import InputError
from sweeps.show import style
from sweeps.show.draw import Curve, draw, handles, legend_right, page, sample_notes, series
from sweeps.show.draw import save as save
from sweeps.show.explore import curves as curves
from sweeps.show.explore import heatmap as heatmap


@dataclass(frozen=True)
class Panel:
    """One axes' worth of figures 1–8: a key's values at otherwise fixed settings."""

    title: str
    key: str
    values: tuple[Any, ...]
    metric: str
    settings: Mapping[str, Any]

    def curves(self, collection: Collection) -> list[Curve]:
        """One for each value, in order; without runs it has no rows."""
        chosen = summary.at(collection.runs, **{**self.settings, self.key: None})
        return series(collection, chosen, self.key, self.values, self.metric)

    def command(self, values: Sequence[Any]) -> str:
        """What trains the runs of these values."""
        words = [
            f"{key}={_WORDS.get((key, value), value)}"
            for key, value in self.settings.items()
            if summary.BASE[key] != value
        ]
        words.append(f"{self.key}={','.join(style.name('', value) for value in values)}")
        return f"python -m mlp.train --multirun {' '.join(words)}"


_WORDS = {("model", "360"): "mlp1", ("model", "512x256"): "mlp2"}


DEPTHS = ("360", "512x256")
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid")
LOSSES = ("ce", "euclidean", "hinge")
SWEEPS: Mapping[str, tuple[float, ...]] = {
    "lr": (0.1, 0.01, 0.001, 0.0001),
    "wd": (0.0, 0.001, 0.01, 0.1),
    "mo": (0.0, 0.1, 0.5, 0.9),
}
_SWEEP_TITLES = {"lr": "learning rate", "wd": "weight decay", "mo": "momentum"}

CAPTIONS: Mapping[int, str] = {
    1: "Train and valid loss by activation (loss: cross entropy)",
    2: "Train and valid loss by loss function (activation: ReLU)",
    3: "Train and valid accuracy by activation (loss: cross entropy)",
    4: "Train and valid accuracy by loss function (activation: ReLU)",
    5: "Train accuracy by learning rate, weight decay and momentum (one hidden layer)",
    6: "Train loss by learning rate, weight decay and momentum (one hidden layer)",
    7: "Valid accuracy by learning rate, weight decay and momentum (one hidden layer)",
    8: "Valid loss by learning rate, weight decay and momentum (one hidden layer)",
}


def comparison(collection: Collection, *, number: int, key: str, values: tuple[str, ...], kind: str) -> Figure:
    """Figures 1–4: depth by row, train and valid by column, one legend for all.

    Raises:
        InputError: there is not one run to draw.
    """
    collection = summary.of_networks(collection)
    panels = [
        Panel(f"{style.NAMES['model'][model]} · {split}", key, values, f"{split}_{kind}", {"model": model})
        for model in DEPTHS
        for split in ("train", "valid")
    ]
    near = _near(collection, key, "model")
    curves = [panel.curves(near) for panel in panels]
    notes = _notes(number, panels, curves)
    if key == "loss" and kind == "loss":
        notes.insert(0, "The three losses differ in kind: on this log axis compare slopes and shapes, not heights.")
    with style.rc():
        figure, grid, below = page(rows=2, columns=2, panel=1.3, notes=notes, legend=1)
        everything = [curve for part in curves for curve in part]
        for axes, panel, part in zip(grid, panels, curves, strict=True):
            draw(axes, part, style.metric(panel.metric), like=everything)
            axes.set_title(panel.title)
            axes.set_xlabel("epoch")
            axes.set_ylabel(style.metric(panel.metric).axis)
            axes.label_outer()
        # The same entries stand for every panel, and a cross in any of them needs its word.
        entries = [
            Curve(c.label, c.style, c.rows, pd.concat([part[i].runs for part in curves]))
            for i, c in enumerate(curves[0])
        ]
        figure.legend(
            handles=handles(entries), loc="upper center", bbox_to_anchor=(0.5, below), ncols=5, columnspacing=1.0
        )
    return figure


def sensitivity(collection: Collection, *, number: int, metric: str) -> Figure:
    """Figures 5–8: one panel each for lr, wd and mo, with its legend to the right.

    Raises:
        InputError: there is not one run to draw.
    """
    collection = summary.of_networks(collection)
    panels = [Panel(_SWEEP_TITLES[key], key, values, metric, {}) for key, values in SWEEPS.items()]
    near = _near(collection, *SWEEPS)
    curves = [panel.curves(near) for panel in panels]
    notes = _notes(number, panels, curves)
    notes.insert(0, "* the base point: lr 0.01, wd 0.001, mo 0.9, which the three panels share.")
    with style.rc():
        figure, grid, _ = page(rows=3, columns=1, panel=1.25, notes=notes, right=0.85)
        everything = [curve for part in curves for curve in part]
        for axes, panel, part in zip(grid, panels, curves, strict=True):
            draw(axes, part, style.metric(metric), like=everything)
            axes.set_ylabel(style.metric(metric).axis)
            axes.set_xlabel("epoch")
            axes.label_outer()
            axes.set_title(f"{style.metric(metric).title} by {panel.title}")
            base = style.name(panel.key, summary.BASE[panel.key])
            legend_right(axes, handles(part, {base: f"{base} *"}), panel.title)
    return figure


FIGURES: dict[int, Callable[[Collection], Figure]] = {
    1: partial(comparison, number=1, key="activ", values=ACTIVATIONS, kind="loss"),
    2: partial(comparison, number=2, key="loss", values=LOSSES, kind="loss"),
    3: partial(comparison, number=3, key="activ", values=ACTIVATIONS, kind="acc"),
    4: partial(comparison, number=4, key="loss", values=LOSSES, kind="acc"),
    5: partial(sensitivity, number=5, metric="train_acc"),
    6: partial(sensitivity, number=6, metric="train_loss"),
    7: partial(sensitivity, number=7, metric="valid_acc"),
    8: partial(sensitivity, number=8, metric="valid_loss"),
}


def _near(collection: Collection, *keys: str) -> Collection:
    """The runs at the base point but for these keys: few, even of ten thousand."""
    runs = summary.at(collection.runs, **dict.fromkeys(keys))
    return replace(collection, runs=runs, epochs=collection.epochs[collection.epochs["run"].isin(runs["run"])])


def _notes(number: int, panels: Sequence[Panel], curves: Sequence[Sequence[Curve]]) -> list[str]:
    """What a reader must know to read the figure: sample sizes, scales, and everything that is missing or unfinished.

    Raises:
        InputError: there is not one run.
    """
    # Train and valid panels rest on the same runs, which need naming once.
    parts = {(panel.key, *panel.settings.values()): (panel, part) for panel, part in zip(panels, curves, strict=True)}
    named = [
        (", ".join([f"{panel.key} {curve.label}" if panel.key in SWEEPS else curve.label, *_place(panel)]), curve)
        for panel, part in parts.values()
        for curve in part
    ]
    missing = [
        (panel, [v for v, c in zip(panel.values, part, strict=True) if not c.n]) for panel, part in parts.values()
    ]
    commands = [panel.command(values) for panel, values in missing if values]
    if all(not curve.n for _, curve in named):
        raise InputError("figure", str(number), "none of its runs is there; make them: " + " ; ".join(commands))
    notes = [style.scale_note(style.metric(panels[0].metric).scale), *sample_notes(named)]
    if commands:
        absent = [label for label, curve in named if not curve.n]
        notes.append(f"No runs of: {'; '.join(absent)}. To make them:")
        notes += commands
    return notes


def _place(panel: Panel) -> list[str]:
    return [style.name("model", panel.settings["model"])] if "model" in panel.settings else []
