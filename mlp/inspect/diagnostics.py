"""Inside a network: gradient flow, saturation, the first layer's weights, the loss landscape.

Each figure shows why a curve looks as it does, and its notes explain how to read it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mlp.data import Split
from mlp.inspect.restore import Trained, layer_stats
from mlp.probe import SATURATED
from sweeps.read.collect import Collection
from sweeps.runs.errors import InputError
from sweeps.runs.schema import integer
from sweeps.show import style
from sweeps.show.draw import page, varying

MOST_COLUMNS = 4  # configurations side by side
MOST_RUNS = 7  # landscapes in one figure, each with its own colour

# (column, label, scale) of each row of panels
_ROWS = (
    ("valid_loss", "valid loss", "log"),
    ("grad_rms", "rms ∂L/∂W", "log"),
    ("delta_rms", "rms δ", "log"),
    ("slope", "mean |a′|", "linear"),
    ("saturated", "saturated", "linear"),
)


def gradients(collection: Collection) -> Figure:
    """Gradients, slopes and saturation of each layer over the epochs, one column for each configuration.

    Raises:
        InputError: no run has stats, or there are more than ``MOST_COLUMNS`` configurations.
    """
    stats = layer_stats(collection)
    runs = collection.runs[collection.runs["run"].isin(stats["run"])]
    if runs.empty:
        raise InputError("stats", "none", "no run has any; train with stats=true")
    keys = varying(runs)
    cells = [([*key], cell) for key, cell in runs.groupby(keys, dropna=False)] if keys else [([], runs)]
    if len(cells) > MOST_COLUMNS:
        allowed = f"at most {MOST_COLUMNS} fit; choose some by {', '.join(keys)}"
        raise InputError("filters", f"{len(cells)} configurations", allowed)
    epochs, notes = collection.epochs[["run", "epoch", "valid_loss"]], _notes(collection, runs)
    with style.rc():
        figure, grid, below = page(rows=len(_ROWS), columns=len(cells), panel=0.82, notes=notes, legend=1, left=0.68)
        panels = np.array(grid, object).reshape(len(_ROWS), len(cells))
        layers = int(stats["layer"].max())
        colors = [drawn.color for drawn in style.styles(range(1, layers + 1))]
        for (column, label, scale), row in zip(_ROWS, panels, strict=True):
            table = epochs if column == "valid_loss" else stats
            shown = table[table["run"].isin(runs["run"])]
            means = shown.groupby([c for c in ("run", "layer", "epoch") if c in shown])[column].mean()
            for axes, (_, cell) in zip(row, cells, strict=True):
                _lines(axes, shown[shown["run"].isin(cell["run"])], column, colors)
                _epochs_from_0(axes, int(shown["epoch"].max()))
                if column == "saturated":
                    axes.set_ylim(-0.03, max(0.1, 1.1 * float(means.max())))
                else:
                    style.value_axis(axes, scale, [*means, *([0] if scale == "linear" else [])])
                axes.set_ylabel(label)
                axes.set_xlabel("epoch")
                axes.label_outer()
        for axes, (key, _) in zip(panels[0], cells, strict=True):
            axes.set_title(_title(keys, key) or str(runs["run"].iloc[0]))
        entries = [Line2D([], [], color=color, label=f"layer {i}") for i, color in enumerate(colors, start=1)]
        figure.legend(handles=entries, loc="upper center", bbox_to_anchor=(0.5, below), ncols=6)
    return figure


def _title(keys: Sequence[str], values: Sequence[Any]) -> str:
    """``relu, 512x256, lr=0.01``: short, since a column is narrow."""
    pairs = [(key, value) for key, value in zip(keys, values, strict=True) if style.name(value) != style.ABSENT]
    return ", ".join(
        style.name(value) if isinstance(value, str) else style.label([key], [value]) for key, value in pairs
    )


def _notes(collection: Collection, runs: pd.DataFrame) -> list[str]:
    seeds = runs.groupby(varying(runs), dropna=False)["run"].size().unique() if varying(runs) else [len(runs)]
    sizes = f"{min(seeds)}–{max(seeds)}" if len(seeds) > 1 else str(seeds[0])
    without = len(collection.runs) - len(runs)
    return [
        "Over 1,000 training images, after each epoch; 0: initial weights. Layer 1 is next to the input.",
        "∂L/∂W: of the mean loss. δ = ∂l/∂z of one image's loss. a′: slope of the activation, over units and images.",
        f"Saturated: share of them with |a′| < {SATURATED:g}, which is a sigmoid's slope at |z| = 4; for ReLU, a = 0.",
        f"Mean of n = {sizes} seed{'s' if sizes != '1' else ''}. Epochs are linear up to 1, then logarithmic.",
        *([f"{without} of the runs chosen have no stats."] if without else []),
    ]


def _lines(axes: Axes, rows: pd.DataFrame, column: str, colors: Sequence[str]) -> None:
    """A line for each layer that has the quantity, or one for the network."""
    layers: Any = rows.groupby("layer") if "layer" in rows else [(None, rows)]
    for layer, part in layers:
        mean = part.groupby("epoch")[column].mean().dropna()
        color = "#000000" if layer is None else colors[layer - 1]
        axes.plot(mean.index.to_numpy(float), mean.to_numpy(float), color=color)


def _epochs_from_0(axes: Axes, last: int) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xlim(-0.06, last * 1.08)
    ticks = [0, *(step * 10**power for power in range(7) for step in (1, 2, 5) if step * 10**power <= last)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def weights(trained: Trained, *, units: int = 100) -> Figure:
    """The first layer's weights as images, the strongest unit first.

    Raises:
        InputError: the inputs are not square images with one or three channels.
    """
    units = integer(ge=1, le=400)("--units", units)
    weight = np.asarray(trained.trainer.network.linears[0].weight, float)  # (fan_in, fan_out)
    channels = 3 if math.isqrt(len(weight)) ** 2 != len(weight) and len(weight) % 3 == 0 else 1
    side = math.isqrt(len(weight) // channels)
    if channels * side**2 != len(weight):
        raise InputError("run", trained.config.run_id, f"its inputs are not square images: {len(weight)} features")
    norms = np.sqrt(np.square(weight).sum(axis=0))
    order = np.argsort(-norms, kind="stable")[:units]
    images = weight.reshape(channels, side, side, -1).mean(axis=0)[..., order]  # (side, side, shown)
    columns = math.ceil(math.sqrt(len(order)))
    rows = math.ceil(len(order) / columns)
    sheet = np.full((rows * (side + 1) + 1, columns * (side + 1) + 1), np.nan)
    for i in range(len(order)):
        top, left = (1 + (side + 1) * place for place in divmod(i, columns))
        sheet[top : top + side, left : left + side] = images[..., i]
    limit = float(np.quantile(np.abs(images), 0.995)) or 1.0
    shown = f"{len(order)} of {weight.shape[1]} units by the norm of their weights"
    notes = [
        f"{trained.config.run_id}, epoch {trained.epoch}.",
        f"{shown}, from {norms[order[0]]:.3g} (upper left) down to {norms[order[-1]]:.3g}.",
        "One scale for all; 0.5 % of the weights lie beyond its ends.",
        *(["Mean of the three channels."] if channels == 3 else []),
    ]
    with style.rc({"axes.grid": False}):
        height = (style.WIDTH - 0.75) * rows / columns
        figure, (axes,), _ = page(rows=1, columns=1, panel=height, notes=notes, left=0.1, right=0.65, label=0.1)
        image = axes.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        box = axes.get_position()
        figure.colorbar(image, cax=figure.add_axes((box.x1 + 0.02, box.y0, 0.03, box.height)))
        axes.set_title("First-layer weights")
    return figure


_ALPHAS = np.linspace(-0.5, 1.5, 41)
_IMAGES = 2000


def landscape(networks: Sequence[Trained]) -> Figure:
    """The loss at θ₀ + α (θ_T − θ₀): a straight line through the initial weights (α = 0) and the trained (α = 1).

    Raises:
        InputError: none or too many runs, or losses of different kinds.
    """
    kinds = {str(trained.config.loss) for trained in networks}
    if len(kinds) > 1:
        raise InputError(
            "run", ", ".join(t.config.run_id for t in networks), "losses of different kinds cannot share an axis"
        )
    if not 1 <= len(networks) <= MOST_RUNS:
        raise InputError("run", f"{len(networks)} runs", f"must be 1 to {MOST_RUNS}")
    found = [{split: _along(trained, split) for split in ("train", "test")} for trained in networks]
    notes = [
        "α = 0: initial weights, made again from the seed; α = 1: the checkpoint. Other points were never visited.",
        f"Means over at most {_IMAGES:,} evenly spaced images of each set. The loss axis is logarithmic.",
    ]
    with style.rc():
        figure, (axes,), below = page(rows=1, columns=1, panel=2.0, notes=notes, legend=len(networks) + 1)
        names = [trained.config.activ.name for trained in networks]
        unique = len({*names}) == len(names)
        styles = style.styles(names if unique else [trained.config.run_id for trained in networks])
        for drawn, losses in zip(styles, found, strict=True):
            axes.plot(_ALPHAS, losses["train"], color=drawn.color)
            axes.plot(_ALPHAS, losses["test"], color=drawn.color, linestyle=(0, (3, 1.5)))
        for alpha in (0, 1):
            axes.axvline(alpha, color="#888888", linewidth=0.6)
        values = np.array([loss for losses in found for loss in losses.values()])
        style.value_axis(axes, "log", values)
        axes.set_xlim(_ALPHAS[0], _ALPHAS[-1])
        axes.set_xlabel("α")
        axes.set_ylabel("loss (mean per image)")
        axes.set_title("Loss along the line from the initial to the trained weights")
        entries = [
            Line2D([], [], color=drawn.color, label=f"{trained.config.run_id}, epoch {trained.epoch}")
            for drawn, trained in zip(styles, networks, strict=True)
        ]
        entries += [Line2D([], [], color="#444444", linestyle=(0, (3, 1.5)), label="dashed: test; solid: train")]
        figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(axes.get_position().x0, below))
    return figure


def _along(trained: Trained, split: str) -> list[float]:
    theta, initial = trained.trainer.network.theta, trained.initial
    end, part = theta.copy(), _part(getattr(trained.dataset, split))
    losses = []
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            for alpha in _ALPHAS.astype(theta.dtype):
                theta[:] = initial + alpha * (end - initial)
                losses.append(trained.trainer.evaluate(part)[0])
    finally:
        theta[:] = end
    return losses


def _part(split: Split) -> Split:
    chosen: Any = np.linspace(0, len(split) - 1, min(_IMAGES, len(split))).astype(np.intp)
    return replace(split, y=split.y[chosen], rows=split.rows[chosen])
