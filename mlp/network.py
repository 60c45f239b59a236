"""A multi-layer perceptron: any depth and widths over one flat vector of parameters."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from mlp.activations import Activation, Floats, Workspace
from mlp.ink import InkedBatch
from mlp.layers import Linear


def count_parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of a network of these widths, from input to output."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


class Network:
    """Linear → activation → … → Linear, logits out.

    Parameters and gradients are one vector each (``theta``, ``grad``), of which the layers hold views: the
    optimizer then updates everything in a handful of NumPy calls, and a checkpoint is a few arrays.

    Args:
        sizes: widths from input to output, e.g. ``(784, 360, 10)``.
        activation: makes the activation of one hidden layer.
        dtype: ``float32`` or ``float64``; everything is computed in it.
        theta, grad: vectors of :func:`count_parameters` to be used instead of new ones.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[], Activation],
        *,
        dtype: str,
        theta: Floats | None = None,
        grad: Floats | None = None,
    ) -> None:
        shapes = list(pairwise(sizes))  # (fan_in, fan_out) of each layer
        count = count_parameters(sizes)
        self.theta: Floats = np.zeros(count, dtype) if theta is None else theta
        self.grad: Floats = np.zeros(count, dtype) if grad is None else grad
        self.linears: list[Linear] = []
        start = 0
        for fan_in, fan_out in shapes:
            middle, end = start + fan_in * fan_out, start + (fan_in + 1) * fan_out
            self.linears.append(
                Linear(
                    self.theta[start:middle].reshape(fan_in, fan_out),
                    self.theta[middle:end],
                    self.grad[start:middle].reshape(fan_in, fan_out),
                    self.grad[middle:end],
                    Workspace("F" if end == count else "C"),  # for a loss, which reduces over a few classes
                )
            )
            start = end
        self.activations = [activation() for _ in shapes[1:]]

    def initialize(self, rng: np.random.Generator, *, std: float) -> None:
        """Weights N(0, std²), biases 0 (course report §2). Both dtypes start from the same draws."""
        for linear in self.linears:
            linear.weight[:] = rng.standard_normal(linear.weight.shape) * std
            linear.bias[:] = 0

    def forward(self, x: Floats | InkedBatch) -> Floats:
        """x: (batch, sizes[0]) → logits: (batch, sizes[-1]), valid until the next call and free to be overwritten."""
        return self.forward_from(0, self.linears[0].forward(x))

    def forward_from(self, layer: int, z: Floats) -> Floats:
        """From z of a layer (from 0), which is overwritten, to the logits."""
        for activation, linear in zip(self.activations[layer:], self.linears[layer + 1 :], strict=True):
            z = linear.forward(activation.forward(z))
        return z

    def backward(self, delta: Floats) -> None:
        """Fill ``grad`` from delta = ∂L/∂logits of the last forward's batch."""
        self.linears[0].backward(self.backward_to(0, delta))

    def backward_to(self, layer: int, delta: Floats) -> Floats:
        """Fill the part of ``grad`` that belongs to the layers after this one; returns ∂L/∂z of this one."""
        for i in reversed(range(layer, len(self.activations))):
            self.linears[i + 1].backward(delta)
            delta = self.activations[i].backward(self.linears[i + 1].input_gradient(delta))
        return delta


class Units:
    """Some units of the first hidden layer, with the weights on both sides of them.

    Args:
        into: from the features to them.
        out: from them to the next layer.
    """

    def __init__(self, into: Linear, activation: Activation, out: Linear) -> None:
        self._into, self._activation, self._out = into, activation, out

    def forward(self, x: Floats | InkedBatch) -> Floats:
        """x: (batch, features) → their part of the next layer's z, (batch, width); all parts add up to it."""
        return self._out.forward(self._activation.forward(self._into.forward(x)))

    def backward(self, delta: Floats) -> None:
        """Fill the gradients of their weights from the next layer's ∂L/∂z, (batch, width)."""
        self._out.backward(delta)
        self._into.backward(self._activation.backward(self._out.input_gradient(delta)))
