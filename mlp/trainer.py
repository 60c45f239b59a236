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
from mlp.losses import LOSSES, Loss
from mlp.network import Network
from mlp.optim import OPTIMIZERS, Optimizer
from mlp.runs import Epoch
from mlp.team import Team

_EVALUATION_ROWS = 1000  # a block's activations stay within a few MB
_INITIALIZATION = 0  # epochs count from 1, so 0 is free to seed the weights

# What a thread must have to do in a step to be worth waking: below, the step gets slower by it.
_SHARD_PRODUCTS = 20_000_000  # multiply-adds: 0.4 ms on a core of 100 GFLOP/s
_SHARD_ROWS = 8


class Diverged(Exception):
    """Loss or parameters are no longer finite."""


@final
class Trainer:
    """Network, optimizer and data of one run; ``epoch(k)`` depends on nothing but their state, the seed and k.

    Every batch is divided by rows among the threads. For a given number of threads every sum has its order, so that
    results are the same, bit for bit; from one number to another they differ by rounding. (The BLAS's own threads
    gain less on products of this size, and stall whenever another process takes one of the cores.)

    Args:
        threads: at most; a small network uses fewer. With more than one, ``close`` when done.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, threads: int = 1) -> None:
        sizes = (dataset.features, *config.hidden, dataset.classes)
        activation, loss = ACTIVATIONS[config.activ.name], LOSSES[config.loss.name]
        self.network = Network(sizes, lambda: activation.build(**config.activ.options), dtype=config.dtype)
        self.network.initialize(_rng(config.seed, _INITIALIZATION), std=config.init_std)
        self.optimizer: Optimizer = OPTIMIZERS[config.optim.name].build(
            self.network.theta, self.network.grad, lr=config.lr, wd=config.wd, mo=config.mo, **config.optim.options
        )
        self._dataset = dataset
        self._batch_size = min(config.bsz, len(dataset.train))
        self._seed = config.seed
        self._full_train = config.eval_train == "full"

        products = self.network.products_per_example * self._batch_size
        self.threads = max(1, min(threads, products // _SHARD_PRODUCTS, self._batch_size // _SHARD_ROWS))
        rows = -(-self._batch_size // self.threads)
        self._shards = [
            _Shard(
                self.network.twin() if k else self.network,
                loss.build(**config.loss.options),
                Batches(dataset.train, rows, config.dtype),
                number=k,
                shards=self.threads,
            )
            for k in range(self.threads)
        ]
        self._team = Team(helpers=self.threads - 1)

    def close(self) -> None:
        """End the threads."""
        self._team.close()

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
        blocks = range(0, len(split), _EVALUATION_ROWS)

        def measure(k: int) -> None:
            self._shards[k].evaluate(split, blocks[k :: self.threads])

        self._team.begin(measure)
        try:
            measure(0)
        finally:
            self._team.finish()
        loss, correct = self._totals()
        return loss / len(split), 100 * correct / len(split)

    def step(self, index: NDArray[np.intp], following: NDArray[np.intp] | None = None) -> tuple[float, int]:
        """One update on the training images at ``index``; their summed loss and how many were right, before it.

        Args:
            following: the next step's ``index``, if known: other threads gather its images during the update.
        """
        scale = self.optimizer.gradient_scale / len(index)
        self._team.begin(lambda k: self._shards[k].gradient(index, scale))
        try:
            self.optimizer.prepare()
            self._shards[0].gradient(index, scale)
        finally:
            self._team.finish()
        totals = self._totals()
        if following is not None:
            self._team.begin(lambda k: self._fetch(k, following))
        for shard in self._shards[1:]:
            self.network.grad += shard.network.grad
        self.optimizer.step()
        if following is not None:
            self._team.finish()
        return totals

    def _fetch(self, k: int, index: NDArray[np.intp]) -> None:
        self._shards[k].fetch(index)
        if k == 1:  # and the share of the caller, who has the update to do
            self._shards[0].fetch(index)

    def _totals(self) -> tuple[float, int]:
        return sum(shard.loss for shard in self._shards), sum(shard.correct for shard in self._shards)

    def _pass(self, number: int, after_batch: Callable[[], None]) -> tuple[float, float]:
        """One epoch's steps; running means of loss and accuracy, each batch measured before its update."""
        size = len(self._dataset.train)
        order = _rng(self._seed, number).permutation(size)
        total, correct = 0.0, 0
        batches = [order[start : start + self._batch_size] for start in range(0, size, self._batch_size)]
        for i, (batch, following) in enumerate(zip(batches, [*batches[1:], None], strict=True), start=1):
            batch_loss, batch_correct = self.step(batch, following)
            if not math.isfinite(batch_loss):
                raise Diverged(f"the loss became {batch_loss} in epoch {number}, batch {i}")
            total += batch_loss
            correct += batch_correct
            after_batch()
        return total / size, 100 * correct / size


@final
class _Shard:
    """One thread's share of the batches, with everything that it writes to.

    ``loss`` and ``correct`` are those of its last task, summed over its examples.
    """

    def __init__(self, network: Network, loss: Loss, batches: Batches, *, number: int, shards: int) -> None:
        self.network = network
        self.loss = 0.0
        self.correct = 0
        self._loss = loss
        self._batches = batches
        self._number, self._shards = number, shards
        self._fetched: NDArray[np.intp] | None = None
        self._evaluations: dict[int, Batches] = {}

    def fetch(self, index: NDArray[np.intp]) -> None:
        """Gather this shard's images of the batch ``index``."""
        start, stop = (len(index) * k // self._shards for k in (self._number, self._number + 1))
        self._x, self._labels = self._batches.take(index[start:stop])
        self._fetched = index

    def gradient(self, index: NDArray[np.intp], scale: float) -> None:
        """Fill ``grad`` with ``scale`` times the gradient of the loss summed over this shard of the batch ``index``."""
        if self._fetched is not index:
            self.fetch(index)
        self._fetched = None  # the array may hold other numbers next time
        self.loss, self.correct = self._measure(self._x, self._labels)
        self.network.backward(self._loss.backward(scale))

    def evaluate(self, split: Split, starts: range) -> None:
        """Measure the blocks of ``split`` that begin at ``starts``."""
        batches = self._evaluations.get(id(split))
        if batches is None:
            capacity = min(_EVALUATION_ROWS, len(split))
            batches = self._evaluations[id(split)] = Batches(split, capacity, self.network.theta.dtype)
        self.loss, self.correct = 0.0, 0
        for start in starts:
            index = np.arange(start, min(start + _EVALUATION_ROWS, len(split)))
            loss, correct = self._measure(*batches.take(index))
            self.loss += loss
            self.correct += correct

    def _measure(self, x: NDArray[Any], labels: NDArray[np.intp]) -> tuple[float, int]:
        logits = self.network.forward(x)
        correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
        return self._loss.forward(logits, labels), correct


def _rng(seed: int, number: int) -> np.random.Generator:
    """Epoch ``number``'s own stream: nothing random needs saving."""
    return np.random.default_rng(np.random.SeedSequence([seed, number]))
