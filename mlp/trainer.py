"""The training loop itself: mini-batches, evaluation, and what is measured in an epoch. No files, no signals."""

import math
import time
from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mlp.activations import ACTIVATIONS
from mlp.config import RunConfig
from mlp.data import Batches, Dataset, Split
from mlp.losses import LOSSES, Labels
from mlp.network import Network
from mlp.optim import OPTIMIZERS, Optimizer
from mlp.runs import Epoch
from mlp.team import Team

_EVALUATION_ROWS = 1000  # a block's activations stay within a few MB
_INITIALIZATION = 0  # epochs count from 1, so 0 is free to seed the weights


class Diverged(Exception):
    """Loss or parameters are no longer finite."""


@final
class Trainer:
    """Network, optimizer and data of one run; ``epoch(k)`` depends on nothing but their state, the seed and k.

    Args:
        team: threads that share the large pieces of a step (by default there is one); the caller closes it.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, team: Team | None = None) -> None:
        self._team = team or Team()
        sizes = (dataset.features, *config.hidden, dataset.classes)
        activation = ACTIVATIONS[config.activ.name]
        self.network = Network(
            sizes,
            lambda: activation.build(**config.activ.options),
            dtype=config.dtype,
            matmul=self._team.matmul,
        )
        self.network.initialize(_rng(config.seed, _INITIALIZATION), std=config.init_std)
        self.optimizer: Optimizer = OPTIMIZERS[config.optim.name].build(
            self.network.theta, self.network.grad, lr=config.lr, wd=config.wd, mo=config.mo, **config.optim.options
        )
        self._loss = LOSSES[config.loss.name].build(**config.loss.options)
        self._dataset = dataset
        self._batch_size = min(config.bsz, len(dataset.train))
        self._seed = config.seed
        self._full_train = config.eval_train == "full"
        self._dtype = np.dtype(config.dtype)
        self._batches = Batches(dataset.train, self._batch_size, self._dtype)
        self._evaluations: dict[int, Batches] = {}

    def epoch(self, number: int, after_batch: Callable[[], None] = lambda: None) -> Epoch:
        """Train epoch ``number`` (from 1) and evaluate.

        Args:
            after_batch: called after each step; may raise to abandon the epoch.

        Raises:
            Diverged: a loss or a parameter became NaN or infinite.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # divergence is looked for, and named
            start = time.perf_counter()
            train_loss, train_acc = self._pass(number, after_batch)
            seconds = time.perf_counter() - start
            data = self._dataset
            if self._full_train:
                train_loss, train_acc = self.evaluate(data.train)
            valid = self.evaluate(data.valid)
            test = valid if data.test is data.valid else self.evaluate(data.test)
            eval_seconds = time.perf_counter() - start - seconds
        if not (math.isfinite(train_loss) and math.isfinite(valid[0]) and np.isfinite(self.network.theta).all()):
            raise Diverged(f"a loss or parameter is no longer finite after epoch {number}")
        return Epoch(number, train_loss, train_acc, *valid, *test, seconds, eval_seconds)

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean loss per image and accuracy in percent."""
        rows = min(_EVALUATION_ROWS, len(split))
        batches = self._evaluations.setdefault(id(split), Batches(split, rows, self._dtype))
        loss, correct = 0.0, 0
        for start in range(0, len(split), rows):
            x, labels = batches.take(np.arange(start, min(start + rows, len(split))))
            block_loss, block_correct = self._measure(x, labels)
            loss += block_loss
            correct += block_correct
        return loss / len(split), 100 * correct / len(split)

    def step(self, index: NDArray[np.intp]) -> tuple[float, int]:
        """One update on the training images at ``index``; their summed loss and how many were right, before it."""
        x, labels = self._batches.take(index)
        loss, correct = self._measure(x, labels)
        self.network.backward(self._loss.backward(self.optimizer.gradient_scale / len(labels)))
        self.optimizer.advance()
        self._team.elementwise(self.optimizer.update, len(self.network.theta))
        return loss, correct

    def _measure(self, x: NDArray[Any], labels: Labels) -> tuple[float, int]:
        """Summed loss, and how many are right."""
        logits = self.network.forward(x)
        correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))  # first, for the loss overwrites the logits
        return self._loss.forward(logits, labels), correct

    def _pass(self, number: int, after_batch: Callable[[], None]) -> tuple[float, float]:
        """One epoch's steps; running means of loss and accuracy, each batch measured before its update."""
        size = len(self._dataset.train)
        order = _rng(self._seed, number).permutation(size)
        total, correct = 0.0, 0
        for start in range(0, size, self._batch_size):
            batch_loss, batch_correct = self.step(order[start : start + self._batch_size])
            if not math.isfinite(batch_loss):
                raise Diverged(f"the loss became {batch_loss} in epoch {number}, batch {start // self._batch_size + 1}")
            total += batch_loss
            correct += batch_correct
            after_batch()
        return total / size, 100 * correct / size


def _rng(seed: int, number: int) -> np.random.Generator:
    """Epoch ``number``'s own stream: nothing random needs saving."""
    return np.random.default_rng(np.random.SeedSequence([seed, number]))
