"""A network's metrics: the columns of metrics.csv and steps.csv."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WINDOW = 50
"""Batches of a window: the course report's tables are extremes over such means (6 an epoch of 300 batches)."""


class Epoch(NamedTuple):
    """Losses are means per image, accuracies in percent, times in seconds.

    ``train_*`` are running means over the epoch's batches unless ``eval_train=full``; ``valid_*`` are the test set's,
    as in the course report, unless the data have a validation split. ``seconds`` is training alone.
    """

    epoch: int
    train_loss: float
    train_acc: float
    valid_loss: float
    valid_acc: float
    test_loss: float
    test_acc: float
    seconds: float
    eval_seconds: float


class Window(NamedTuple):
    """Means per image over :data:`WINDOW` batches, or what is left of an epoch, each measured before its update."""

    window_train_loss: float
    window_train_acc: float  # percent


def windows(batches: Sequence[tuple[float, int, int]]) -> list[Window]:
    """The windows of an epoch.

    Args:
        batches: summed loss, number of correct images, and images, of each batch in order.
    """
    found = []
    for start in range(0, len(batches), WINDOW):
        losses, right, sizes = zip(*batches[start : start + WINDOW], strict=True)
        images = sum(sizes)
        found.append(Window(math.fsum(losses) / images, 100 * sum(right) / images))
    return found
