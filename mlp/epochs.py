"""What an epoch of a network's training is measured by: the columns of its metrics.csv."""

from typing import NamedTuple


class Epoch(NamedTuple):
    """Losses are means per image, accuracies in percent, times in seconds.

    ``train_*`` are running means over the epoch's batches unless ``eval_train=full``; ``valid_*`` are the test set's,
    as in the report, unless the data bring a validation split. ``seconds`` is training alone.
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
