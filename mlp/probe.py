"""What a training curve does not show: how gradients flow back through a network, and where its units saturate.

After an epoch a fixed batch of training images goes forward and backward through a copy of the network, so that
training is not affected: the parameters are the same bit for bit, with and without.
"""

import numpy as np

from mlp.activations import ACTIVATIONS, Floats
from mlp.config import RunConfig
from mlp.data import Batches, Dataset
from mlp.losses import LOSSES
from mlp.network import Network
from mlp.stats import LayerStats

_IMAGES = 1000
SATURATED = 0.0177  # σ'(4): course report §4: a sigmoid is saturated beyond |z| = 4; tanh falls below beyond |z| ≈ 2.7


class Probe:
    """Measures networks of one configuration on fixed images, evenly spaced in the training set."""

    def __init__(self, config: RunConfig, dataset: Dataset) -> None:
        activation = ACTIVATIONS[config.activ.name]
        sizes = (dataset.features, *config.hidden, dataset.classes)
        self._network = Network(sizes, lambda: activation.build(**config.activ.options), dtype=config.dtype)
        self._loss = LOSSES[config.loss.name].build(**config.loss.options)
        count = min(_IMAGES, len(dataset.train))
        batches = Batches(dataset.train, count, config.dtype)
        self._x, self._labels = batches.take(np.linspace(0, len(dataset.train) - 1, count).astype(np.intp))

    def measure(self, theta: Floats, epoch: int) -> list[LayerStats]:
        """One row for each layer of the network with these parameters."""
        network, images = self._network, len(self._labels)
        network.theta[:] = theta
        *hidden, last = network.linears
        a, slopes, measured = self._x, [], []
        with np.errstate(over="ignore", invalid="ignore"):  # a run may be about to diverge
            for linear, activation in zip(hidden, network.activations, strict=True):
                a = activation.forward(linear.forward(a)).copy()  # backward may use its memory
                slopes.append(activation.backward(np.ones_like(a)))  # a'(z)
                measured.append(_describe(a, slopes[-1]))
            self._loss.forward(last.forward(a), self._labels)
            delta = self._loss.backward(1 / images)
            last.backward(delta)
            deltas = [_rms(delta) * images]
            for i in reversed(range(len(hidden))):
                delta = network.linears[i + 1].input_gradient(delta) * slopes[i]
                hidden[i].backward(delta)
                deltas.insert(0, _rms(delta) * images)
        measured.append((float("nan"),) * 4)
        return [
            LayerStats(epoch, i, _rms(linear.weight), _rms(linear.grad_weight), deltas[i - 1], *measured[i - 1])
            for i, linear in enumerate(network.linears, start=1)
        ]


def _describe(a: Floats, slope: Floats) -> tuple[float, float, float, float]:
    """slope, saturated, dead and spread from a hidden layer's outputs and its activation's slopes, (images, units)."""
    flat = np.abs(slope) < SATURATED
    mean = np.abs(slope).mean(dtype=np.float64)
    return float(mean), float(flat.mean()), float(flat.all(axis=0).mean()), _rms(a.std(axis=0, dtype=np.float64))


def _rms(x: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
