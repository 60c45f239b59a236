"""A training step, shared by the processes of a team: who owns which units and parameters, and what each computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from mlp.activations import ACTIVATIONS, Activation, Floats, Workspace
from mlp.config import RunConfig
from mlp.data import Batches, Dataset, InkedBatches
from mlp.layers import Linear
from mlp.losses import LOSSES, Labels, measure
from mlp.network import Network, Units, count_parameters
from mlp.optim import OPTIMIZERS, Optimizer
from mlp.team import Team, share

_SHARED_ROWS = 50  # of a batch for each process, below which waiting costs more than it gains
_SHARED_WORK = 1_000_000  # multiply-adds of a step for each process, likewise
_PIECE = 32_768  # parameters that are updated at a time


def worthwhile(config: RunConfig, dataset: Dataset, threads: int) -> int:
    """How many of these processes have enough to do in a step."""
    rows = _batch_size(config, dataset)
    work = 3 * rows * count_parameters(_sizes(config, dataset))
    return max(1, min(threads, rows // _SHARED_ROWS, work // _SHARED_WORK))


@final
class Step:
    """One network's parameters and optimizer, and the steps that train it.

    Each member owns units of the first hidden layer, with the weights into them and out of them, and takes rows of a
    batch through the layers after that (Shoeybi et al., arXiv:1909.08053, section 3, for the first two layers). What
    passes between cores is the second layer's z and its gradient, and the gradients of later layers.

    A step is two tasks with a wait after each: ``differentiate``, then ``go_on``, which ends in the next batch.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, team: Team) -> None:
        self._team, self._train = team, dataset.train
        self._dtype, self._sizes = np.dtype(config.dtype), _sizes(config, dataset)
        self.batch_size = _batch_size(config, dataset)
        count = count_parameters(self._sizes)

        entry = ACTIVATIONS[config.activ.name]
        activation = partial(entry.build, **config.activ.options)
        theta, self._grads = team.zeros(count, self._dtype), team.zeros((team.size, count), self._dtype)
        self._networks = [
            Network(self._sizes, activation, dtype=config.dtype, theta=theta, grad=grad) for grad in self._grads
        ]
        self.network = self._networks[0]
        self.optimizer: Optimizer = OPTIMIZERS[config.optim.name].build(
            theta, lr=config.lr, wd=config.wd, mo=config.mo, zeros=team.zeros, **config.optim.options
        )
        self._loss = LOSSES[config.loss.name].build(**config.loss.options)
        self._batches = (InkedBatches if self._train.ink else Batches)(self._train, self.batch_size, self._dtype)
        self._labels: Labels = np.empty(0, np.intp)

        members = range(team.size)
        self._owned = [share(self._sizes[1], team.size, member) for member in members]
        self._z = [self._second_layer() for _ in members]
        """Of each member, its units' part of the second layer's z."""
        self._delta = self._second_layer()
        """∂L/∂z of it."""
        self._units = [self._take_units(member, activation()) for member in members]
        self._pieces = [self._take_parameters(member) for member in members]

        # Messages to and from members.
        self._index = team.zeros(self.batch_size, np.intp)
        self._count = team.zeros(1, np.intp)
        self._sums = team.zeros((team.size, 2), np.float64)

    @property
    def tasks(self) -> tuple[Callable[[int], None], ...]:
        """For ``team.begin``."""
        return self._enter, self._differentiate, self._go_on

    def over(self, index: NDArray[np.intp]) -> Iterator[tuple[float, int, int]]:
        """A step on each batch of the training images at ``index``, in :meth:`layout`.

        Yields:
            Summed loss, number of correct images, and number of images, measured on each batch before its update.
        """
        size = self.batch_size
        self._announce(index[:size])
        self._team.run(self._enter)
        for start in range(0, len(index), size):
            self._team.run(self._differentiate)
            self.optimizer.advance()
            self._announce(index[start + size : start + 2 * size])
            self._team.run(self._go_on)
            loss, correct = self._sums.sum(axis=0).tolist()
            yield loss, int(correct), min(size, len(index) - start)

    @contextmanager
    def layout(self) -> Iterator[None]:
        """In this context the first layer's features are in the order of the ink, and a member's units contiguous.

        So is the optimizer's state. A member's part stays in its core's cache.
        """
        ink, theta, owned = self._train.ink, self.network.theta, self._owned
        if ink is None and len(owned) == 1:
            yield
            return
        features, units = self._sizes[:2]
        order = np.arange(features) if ink is None else ink.order
        rows = np.append(order, features)  # and the biases
        vectors = [theta, *(array for array in self.optimizer.state.values() if array.shape == theta.shape)]
        tables = [self._block(vector, slice(0, units)) for vector in vectors]
        for table, vector in zip(tables, vectors, strict=True):
            ordered = table[rows]
            for part in owned:
                self._block(vector, part)[:] = ordered[:, part]
        try:
            yield
        finally:
            for table, vector in zip(tables, vectors, strict=True):
                table[rows] = np.hstack([self._block(vector, part) for part in owned])

    def _second_layer(self) -> Floats:
        """(batch, width) that all members see; in memory as a loss wants its logits, if they are that."""
        shape = self.batch_size, self._sizes[2]
        if len(self._sizes) > 3:
            return self._team.zeros(shape, self._dtype)
        return self._team.zeros(shape[::-1], self._dtype).T

    def _take_units(self, member: int, activation: Activation) -> Units:
        """The member's units of the first hidden layer; the last member adds the second layer's bias."""
        units, network = self._owned[member], self._networks[member]
        weights, grads = self._block(network.theta, units), self._block(network.grad, units)
        first, second = Linear(weights[:-1], weights[-1], grads[:-1], grads[-1]), network.linears[1]
        bias, grad_bias = second.bias, second.grad_bias
        if member < self._team.size - 1:
            bias, grad_bias = np.zeros((2, len(bias)), self._dtype)
        z = Workspace(memory=self._z[member])
        return Units(first, activation, Linear(second.weight[units], bias, second.grad_weight[units], grad_bias, z))

    def _take_parameters(self, member: int) -> tuple[list[slice], list[slice]]:
        """What the member updates: what belongs to its units, and part of the rest, whose gradients must be summed."""
        size, total = self._team.size, count_parameters(self._sizes)
        if size == 1:  # nothing to sum, and one range makes fewer pieces
            return _pieces(0, total), []
        units, rows, width = self._owned[member], self._sizes[0] + 1, self._sizes[2]
        first, second = (count_parameters(self._sizes[:layers]) for layers in (2, 3))  # where the next layer's begin
        stop = second if member == size - 1 else first + width * units.stop
        own = _pieces(rows * units.start, rows * units.stop) + _pieces(first + width * units.start, stop)
        rest = share(total - second, size, member)
        return own, _pieces(second + rest.start, second + rest.stop)

    def _block(self, vector: Floats, units: slice) -> Floats:
        """The part of a parameter vector with these units' weights and, in its last row, biases."""
        rows = self._sizes[0] + 1
        return vector[rows * units.start : rows * units.stop].reshape(rows, -1)

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
        rows = share(count, self._team.size, member)
        z = self._z[member][rows]
        for other in range(self._team.size):
            if other != member:
                z += self._z[other][rows]
        self._sums[member] = measure(self._loss, network.forward_from(1, z), self._labels[rows])
        self._delta[rows] = network.backward_to(1, self._loss.backward(self.optimizer.gradient_scale / count))

    def _go_on(self, member: int) -> None:
        """Update the member's parameters; then, without a wait, enter the next batch if there is one."""
        self._units[member].backward(self._delta[: len(self._labels)])
        own, summed = self._pieces[member]
        for part in own:
            self.optimizer.update(part, self._grads[member, part])
        for part in summed:
            grad = self._grads[member, part]  # the member's own, in its core's cache
            for other in range(self._team.size):
                if other != member:
                    grad += self._grads[other, part]
            self.optimizer.update(part, grad)
        if self._count[0]:
            self._enter(member)


def _sizes(config: RunConfig, dataset: Dataset) -> tuple[int, ...]:
    return dataset.features, *config.hidden, dataset.classes


def _batch_size(config: RunConfig, dataset: Dataset) -> int:
    return min(config.bsz, len(dataset.train))


def _pieces(start: int, stop: int) -> list[slice]:
    """Of a range of parameters, small enough for all that an update needs of one to stay in a core's cache."""
    return [slice(at, min(at + _PIECE, stop)) for at in range(start, stop, _PIECE)]
