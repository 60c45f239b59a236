"""What a trained network gets wrong: its confusion matrix, and its most confident mistakes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp.data import Split
from mlp.evaluate import Evaluation
from mlp.layers import Softmax
from sweeps.show import style
from sweeps.show.draw import save

Shape = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

_MOST_WRITTEN = 20  # classes; of more the cells are too small for numbers
_ROWS, _COLUMNS = 4, 6


def confusion(result: Evaluation, title: str) -> Figure:
    """Rows are true classes, shaded by their share; the numbers are images."""
    counts = result.confusion
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    with style.rc({"axes.grid": False}):
        figure = Figure(figsize=(style.WIDTH, style.WIDTH + 0.2), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares**0.4, cmap="Blues", vmin=0, vmax=1.15)  # a few mistakes should be visible
        axes.set_title(
            f"{title}\n{result.accuracy:.2f} % of {len(result.labels)} images right", fontsize=style.NOTE_SIZE
        )
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(counts) <= _MOST_WRITTEN:
            axes.set_xticks(range(len(counts)))
            axes.set_yticks(range(len(counts)))
            for i, j in np.argwhere(counts):
                ink = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=ink, fontsize=style.NOTE_SIZE)
    return figure


def most_confident(result: Evaluation, test: Split, title: str, shape: Shape) -> Figure:
    """The misclassified images with the highest probability, highest first.

    Args:
        shape: of an image (features,) when drawn, (height, width) or (height, width, 3).
    """
    wrong = np.flatnonzero(result.predicted != result.labels)
    sure = Softmax().forward(result.logits[wrong].astype(float)).max(axis=1)
    order = np.argsort(-sure, kind="stable")[: _ROWS * _COLUMNS]
    with style.rc({"axes.grid": False}):
        rows = max(1, -(-len(order) // _COLUMNS))
        figure = Figure(figsize=(style.WIDTH, 0.4 + 0.75 * rows), layout="constrained")
        figure.suptitle(
            f"{title}\nthe surest of {len(wrong)} mistakes, by true and predicted class", fontsize=style.NOTE_SIZE
        )
        for place, i in enumerate(order, start=1):
            axes = figure.add_subplot(rows, _COLUMNS, place)
            axes.imshow(shape(test.x[test.rows[wrong[i]]]), cmap="gray_r")
            axes.set_axis_off()
            label, predicted = result.labels[wrong[i]], result.predicted[wrong[i]]
            axes.set_title(f"{label}, not {predicted}\np = {sure[i]:.3f}", fontsize=5, loc="center", pad=2)
    return figure


SHAPES: Mapping[str, Shape] = {
    "mnist": lambda image: image.reshape(28, 28),
    "fashion_mnist": lambda image: image.reshape(28, 28),
    "cifar10": lambda image: image.reshape(3, 32, 32).transpose(1, 2, 0),
}
"""Of the datasets whose images can be shown."""


def write(result: Evaluation, test: Split, data: str, title: str, stem: Path) -> list[Path]:
    """STEM-confusion and, where the images can be shown, STEM-mistakes, as PNG, SVG and PDF."""
    figures = {"confusion": confusion(result, title)}
    if data in SHAPES:
        figures["mistakes"] = most_confident(result, test, title, SHAPES[data])
    written: list[Path] = []
    for name, figure in figures.items():
        written += save(figure, stem.with_name(f"{stem.name}-{name}"))
    return written
