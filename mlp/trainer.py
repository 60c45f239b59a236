"""The training loop: mini-batches, evaluation, and an epoch's metrics. No files, no signals."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from mlp.activations import ACTIVATIONS, Activation, Floats, Workspace
from mlp.config import RunConfig
from mlp.data import Batches, Dataset, InkedBatches, Split
from mlp.epochs import Epoch, Window, windows
from mlp.layers import Linear
from mlp.losses import LOSSES, Labels
from mlp.network import Network, Units, count_parameters
from mlp.optim import OPTIMIZERS, Optimizer
from mlp.team import Team, share
from sweeps.runs.errors import Diverged

_EVALUATION_ROWS = 1000  # a block's activations stay within a few MB
_SHARED_ROWS = 50  # of a batch for each process, below which adding up gradients costs more than it gains
_SHARED_WORK = 1_000_000  # multiply-adds of a step for each process, below which waiting costs more than it gains
_PIECE = 32_768  # parameters that are updated at a time
_INITIALIZATION = 0  # epochs count from 1, so 0 is free to seed the weights


@final
class Trainer:
    """Network, optimizer and data of one run; ``epoch(k)`` depends on nothing but their state, the seed and k.

    Args:
        threads: cores to use, at most; a small network uses fewer, see ``members``. With more than one, close it.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, threads: int = 1) -> None:
        sizes = (dataset.features, *config.hidden, dataset.classes)
        count = count_parameters(sizes)
        self._dtype = np.dtype(config.dtype)
        self._batch_size = min(config.bsz, len(dataset.train))
        self._team = team = Team(_worthwhile(threads, self._batch_size, count))
        self.members = team.size
        """Number of processes."""
        self.windows: list[Window] = []
        """Of the last epoch."""
        self.test_correct = team.zeros(len(dataset.test), np.bool_)
        """(images,) Whether each image of the test set was classified correctly when it was last evaluated."""

        entry = ACTIVATIONS[config.activ.name]
        activation = partial(entry.build, **config.activ.options)
        theta, self._grads = team.zeros(count, self._dtype), team.zeros((team.size, count), self._dtype)
        self._networks = [
            Network(sizes, activation, dtype=config.dtype, theta=theta, grad=grad) for grad in self._grads
        ]
        self.network = self._networks[0]
        self.network.initialize(_rng(config.seed, _INITIALIZATION), std=config.init_std)
        self.optimizer: Optimizer = OPTIMIZERS[config.optim.name].build(
            theta, lr=config.lr, wd=config.wd, mo=config.mo, zeros=team.zeros, **config.optim.options
        )
        self._loss = LOSSES[config.loss.name].build(**config.loss.options)
        self._dataset = dataset
        self._splits = (dataset.train, dataset.valid, dataset.test)
        self._seed = config.seed
        self._full_train = config.eval_train == "full"
        train = dataset.train
        self._batches = (InkedBatches if train.ink else Batches)(train, self._batch_size, self._dtype)
        self._labels: Labels = np.empty(0, np.intp)
        self._evaluations: dict[int, Batches] = {}

        # Members own units of the first hidden layer, and rows of a batch in the layers after it.
        self._owned = [share(sizes[1], team.size, member) for member in range(team.size)]
        self._z = [self._second_layer(sizes) for _ in self._owned]
        """Of each member, its units' part of the second layer's z."""
        self._delta = self._second_layer(sizes)
        """∂L/∂z of it."""
        self._units = [self._take_units(member, activation()) for member in range(team.size)]
        self._pieces = [self._take_parameters(sizes, member) for member in range(team.size)]

        # Messages to and from members.
        self._index = team.zeros(self._batch_size, np.intp)
        self._count = team.zeros(1, np.intp)
        self._sums = team.zeros((team.size, 2), np.float64)
        team.begin(self._enter, self._differentiate, self._go_on, self._evaluate)

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
                self._count[0] = number
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
        total, correct = 0.0, 0
        batches: list[tuple[float, int, int]] = []
        size = self._batch_size
        with self._training_layout():
            self._announce(index[:size])
            self._team.run(self._enter)
            for start in range(0, len(index), size):
                loss, right = self._step(following=index[start + size : start + 2 * size])
                if not math.isfinite(loss):
                    raise Diverged(f"the loss became {loss} in batch {start // size + 1}")
                total += loss
                correct += right
                batches.append((loss, right, len(index[start : start + size])))
                after_batch()
        self.windows = windows(batches)
        for array in self.optimizer.state.values():
            # A dead unit's velocity ends as a subnormal number, which times 0.9 is itself. Some processors take a
            # hundred times as long to multiply one, and it moves no weight.
            array[np.abs(array) < np.finfo(array.dtype).tiny] = 0
        return total, correct

    def _second_layer(self, sizes: Sequence[int]) -> Floats:
        """(batch, width) that all members see; in memory as a loss wants its logits, if they are that."""
        if len(sizes) > 3:
            return self._team.zeros((self._batch_size, sizes[2]), self._dtype)
        return self._team.zeros((sizes[2], self._batch_size), self._dtype).T

    def _take_units(self, member: int, activation: Activation) -> Units:
        """The member's units of the first hidden layer; the last member adds the second layer's bias."""
        units, network = self._owned[member], self._networks[member]
        weights, grads = self._block(network.theta, units), self._block(network.grad, units)
        first, second = Linear(weights[:-1], weights[-1], grads[:-1], grads[-1]), network.linears[1]
        bias, grad_bias = second.bias, second.grad_bias
        if member < self.members - 1:
            bias, grad_bias = np.zeros((2, len(bias)), self._dtype)
        memory = Workspace(memory=self._z[member])
        return Units(
            first, activation, Linear(second.weight[units], bias, second.grad_weight[units], grad_bias, memory)
        )

    def _take_parameters(self, sizes: Sequence[int], member: int) -> tuple[list[slice], list[slice]]:
        """What the member updates: what belongs to its units, and part of the rest, whose gradients must be summed."""
        if self.members == 1:
            return _pieces(0, count_parameters(sizes)), []
        units, width = self._owned[member], sizes[2]
        first, second = count_parameters(sizes[:2]), count_parameters(sizes[:3])  # where the next layer's begin
        stop = second if member == self.members - 1 else first + width * units.stop
        rows = sizes[0] + 1
        own = _pieces(rows * units.start, rows * units.stop) + _pieces(first + width * units.start, stop)
        rest = share(count_parameters(sizes) - second, self.members, member)
        return own, _pieces(second + rest.start, second + rest.stop)

    def _block(self, vector: Floats, units: slice) -> Floats:
        """The part of a parameter vector with these units' weights and, in its last row, biases."""
        rows = self._dataset.features + 1
        return vector[rows * units.start : rows * units.stop].reshape(rows, -1)

    @contextmanager
    def _training_layout(self) -> Iterator[None]:
        """In this context the first layer's features are in the order of the ink, and a member's units contiguous.

        So is the optimizer's state. A member's part stays in its core's cache.
        """
        ink, features, theta, owned = self._dataset.train.ink, self._dataset.features, self.network.theta, self._owned
        if ink is None and len(owned) == 1:
            yield
            return
        order = np.arange(features) if ink is None else ink.order
        rows = np.append(order, features)  # and the biases
        vectors = [theta, *(array for array in self.optimizer.state.values() if array.shape == theta.shape)]
        tables = [self._block(vector, slice(0, owned[-1].stop)) for vector in vectors]
        for table, vector in zip(tables, vectors, strict=True):
            ordered = table[rows]
            for part in owned:
                self._block(vector, part)[:] = ordered[:, part]
        try:
            yield
        finally:
            for table, vector in zip(tables, vectors, strict=True):
                table[rows] = np.hstack([self._block(vector, part) for part in owned])

    def _step(self, following: NDArray[np.intp]) -> tuple[float, int]:
        """One update, and on to the following batch; returns summed loss and number of correct images before it."""
        self._team.run(self._differentiate)
        self.optimizer.advance()
        self._announce(following)
        self._team.run(self._go_on)
        loss, correct = self._sums.sum(axis=0).tolist()
        return loss, int(correct)

    def _announce(self, index: NDArray[np.intp]) -> None:
        """Tell the members the next batch."""
        self._index[: len(index)] = index
        self._count[0] = len(index)

    def _enter(self, member: int) -> None:
        """The batch through the member's units.

        Each gathers the whole batch: sharing takes as long, since a core must fetch what the other wrote.
        """
        x, self._labels = self._batches.take(self._index[: self._count[0]])
        self._units[member].forward(x)

    def _differentiate(self, member: int) -> None:
        """The member's rows of the batch through the other layers and back; gradients go to its row of ``_grads``."""
        count, network = len(self._labels), self._networks[member]
        rows = share(count, self.members, member)
        z = self._z[member][rows]
        for other in range(self.members):
            if other != member:
                z += self._z[other][rows]
        self._sums[member] = self._measure(network.forward_from(1, z), self._labels[rows])
        self._delta[rows] = network.backward_to(1, self._loss.backward(self.optimizer.gradient_scale / count))

    def _go_on(self, member: int) -> None:
        """Update the member's parameters and enter the next batch, if there is one, which needs no one else's."""
        self._units[member].backward(self._delta[: len(self._labels)])
        own, summed = self._pieces[member]
        for part in own:
            self.optimizer.update(part, self._grads[member, part])
        for part in summed:
            grad = self._grads[member, part]  # the member's own, in its core's cache
            for other in range(self.members):
                if other != member:
                    grad += self._grads[other, part]
            self.optimizer.update(part, grad)
        if self._count[0]:
            self._enter(member)

    def _evaluate(self, member: int) -> None:
        """The member's part of a split."""
        split = self._splits[self._count[0]]
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
            block_loss, block_correct = self._measure(logits, labels, None if hits is None else hits[part])
            loss += block_loss
            correct += block_correct
        return loss, correct

    def _measure(self, logits: Floats, labels: Labels, hits: NDArray[np.bool_] | None = None) -> tuple[float, int]:
        """Summed loss, and number of correct images; fills ``hits`` (batch,) with which."""
        right = np.equal(logits.argmax(axis=1), labels, out=hits)  # before the loss overwrites the logits
        return self._loss.forward(logits, labels), int(np.count_nonzero(right))


def _pieces(start: int, stop: int) -> list[slice]:
    """Of a range of parameters, small enough for all that an update needs of one to stay in a core's cache."""
    return [slice(at, min(at + _PIECE, stop)) for at in range(start, stop, _PIECE)]


def _worthwhile(threads: int, rows: int, parameters: int) -> int:
    """How many of these processes have enough to do in a step."""
    return max(1, min(threads, rows // _SHARED_ROWS, 3 * rows * parameters // _SHARED_WORK))


def _rng(seed: int, number: int) -> np.random.Generator:
    """Epoch ``number``'s own stream, so that no generator has to be saved."""
    return np.random.default_rng(np.random.SeedSequence([seed, number]))
