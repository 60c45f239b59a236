"""The training loop: mini-batches, evaluation, and an epoch's metrics. No files, no signals."""

import math
import time
from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from mlp.config import RunConfig
from mlp.data import Batches, Dataset, Split
from mlp.epochs import Epoch, Window, windows
from mlp.losses import LOSSES, measure
from mlp.step import Step, worthwhile
from mlp.team import Team, share
from sweeps.runs.errors import Diverged

_EVALUATION_ROWS = 1000  # a block's activations stay within a few MB
_INITIALIZATION = 0  # epochs count from 1, so 0 is free to seed the weights


@final
class Trainer:
    """Network, optimizer and data of one run; ``epoch(k)`` depends on nothing but their state, the seed and k.

    Args:
        threads: cores to use, at most; a small network uses fewer, see ``members``. With more than one, close it.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, threads: int = 1) -> None:
        self._team = team = Team(worthwhile(config, dataset, threads))
        self.members = team.size
        """Number of processes."""
        self._step = Step(config, dataset, team)
        self.network, self.optimizer = self._step.network, self._step.optimizer
        self.network.initialize(_rng(config.seed, _INITIALIZATION), std=config.init_std)
        self.windows: list[Window] = []
        """Of the last epoch."""
        self.test_correct = team.zeros(len(dataset.test), np.bool_)
        """(images,) Whether each image of the test set was classified correctly when it was last evaluated."""

        self._dataset = dataset
        self._dtype = np.dtype(config.dtype)
        self._seed = config.seed
        self._full_train = config.eval_train == "full"
        self._loss = LOSSES[config.loss.name].build(**config.loss.options)
        self._splits = (dataset.train, dataset.valid, dataset.test)
        self._evaluations: dict[int, Batches] = {}
        self._number = team.zeros(1, np.intp)  # of the split that members evaluate
        self._sums = team.zeros((team.size, 2), np.float64)  # what they find
        team.begin(*self._step.tasks, self._evaluate)

    def close(self) -> None:
        """End the other processes."""
        self._team.close()

    def epoch(self, number: int, after_batch: Callable[[], None] = lambda: None) -> Epoch:
        """Train epoch ``number`` (from 1) and evaluate.

        Args:
            after_batch: called after each step; may raise to abandon the epoch.

        Raises:
            Diverged: a loss or a parameter became NaN or infinite.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # divergence is detected and reported
            start = time.perf_counter()
            data, size = self._dataset, len(self._dataset.train)
            try:
                loss, correct = self.train(_rng(self._seed, number).permutation(size), after_batch)
            except Diverged as why:
                raise Diverged(f"{why} of epoch {number}") from None
            train_loss, train_acc = loss / size, 100 * correct / size
            seconds = time.perf_counter() - start
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
        for number, own in enumerate(self._splits):
            if own is split:  # which the other processes have too
                self._number[0] = number
                self._team.run(self._evaluate)
                loss, correct = self._sums.sum(axis=0).tolist()
                break
        else:
            loss, correct = self._measure_rows(split, slice(0, len(split)))
        return loss / len(split), 100 * correct / len(split)

    def train(self, index: NDArray[np.intp], after_batch: Callable[[], None] = lambda: None) -> tuple[float, int]:
        """A step on each batch of the training images at ``index``.

        Returns:
            Their summed loss and the number of correct ones, measured on each batch before its update.

        Raises:
            Diverged: a loss became NaN or infinite.
        """
        total, correct = 0.0, 0  # not by sum(), which from Python 3.12 on rounds in another way
        batches: list[tuple[float, int, int]] = []
        with self._step.layout():
            for loss, right, images in self._step.over(index):
                batches.append((loss, right, images))
                if not math.isfinite(loss):
                    raise Diverged(f"the loss became {loss} in batch {len(batches)}")
                total += loss
                correct += right
                after_batch()
        self.windows = windows(batches)
        for array in self.optimizer.state.values():
            # A dead unit's velocity ends as a subnormal number, which times 0.9 is itself. Some processors take a
            # hundred times as long to multiply one, and it moves no weight.
            array[np.abs(array) < np.finfo(array.dtype).tiny] = 0
        return total, correct

    def _evaluate(self, member: int) -> None:
        """The member's part of a split."""
        split = self._splits[self._number[0]]
        self._sums[member] = self._measure_rows(split, share(len(split), self.members, member))

    def _measure_rows(self, split: Split, rows: slice) -> tuple[float, int]:
        """Summed loss, and number of correct images."""
        block = min(_EVALUATION_ROWS, len(split))
        batches = self._evaluations.get(id(split)) or Batches(split, block, self._dtype)
        self._evaluations[id(split)] = batches
        hits = self.test_correct if split is self._dataset.test else None
        loss, correct = 0.0, 0
        for start in range(rows.start, rows.stop, block):
            part = slice(start, min(start + block, rows.stop))
            x, labels = batches.take(np.arange(part.start, part.stop))
            logits = self.network.forward(x)
            block_loss, block_correct = measure(self._loss, logits, labels, None if hits is None else hits[part])
            loss += block_loss
            correct += block_correct
        return loss, correct


def _rng(seed: int, number: int) -> np.random.Generator:
    """Epoch ``number``'s own stream, so that no generator has to be saved."""
    return np.random.default_rng(np.random.SeedSequence([seed, number]))
