"""Layers: an affine map over views of the network's flat parameter vector, and a softmax layer."""

import numpy as np

from mlp.activations import Floats, Workspace
from mlp.ink import InkedBatch, InkedProduct


class Linear:
    """z = x W + b.

    Args:
        weight: W, (fan_in, fan_out); updated from outside, by the optimizer.
        bias: b, (fan_out,).
        grad_weight, grad_bias: where ``backward`` leaves ∂L/∂W and ∂L/∂b; same shapes.
        z: memory of the output.
    """

    def __init__(
        self,
        weight: Floats,
        bias: Floats,
        grad_weight: Floats,
        grad_bias: Floats,
        z: Workspace | None = None,
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.grad_weight = grad_weight
        self.grad_bias = grad_bias
        self._x: Floats | InkedBatch = np.empty(0)
        self._z = z or Workspace()
        self._dx = Workspace()
        self._inked = InkedProduct()

    def forward(self, x: Floats | InkedBatch) -> Floats:
        """x: (batch, fan_in) → z: (batch, fan_out), valid until the next call."""
        self._x = x
        if isinstance(x, InkedBatch):
            return self._inked.forward(x, self.weight, self.bias)
        z = np.matmul(x, self.weight, out=self._z.rows(len(x), len(self.bias), self.weight.dtype))
        z += self.bias
        return z

    def backward(self, delta: Floats) -> None:
        """delta: ∂L/∂z, (batch, fan_out); fills ``grad_weight`` and ``grad_bias``."""
        if isinstance(self._x, InkedBatch):
            self._inked.backward(self._x, delta, self.grad_weight, self.grad_bias)
            return
        np.matmul(self._x.T, delta, out=self.grad_weight)
        np.add.reduce(delta, axis=0, out=self.grad_bias)

    def input_gradient(self, delta: Floats) -> Floats:
        """∂L/∂x, (batch, fan_in), from the same delta; not needed for the first layer."""
        return np.matmul(delta, self.weight.T, out=self._dx.rows(len(delta), len(self.weight), delta.dtype))


class Softmax:
    """s_k = e^{z_k} / Σ_j e^{z_j} along the rows (course report §2.3).

    The course report says that its backward pass is like sigmoid's, but the Jacobian is not diagonal:
    ∂s_i/∂z_j = s_i (δ_ij − s_j), and ``backward`` multiplies by all of it. Cross entropy does not use
    this layer (:class:`mlp.losses.CrossEntropy` contains its own stable softmax).
    """

    def __init__(self) -> None:
        self._s: Floats = np.empty(0)

    def forward(self, z: Floats) -> Floats:
        """z: (batch, classes) → probabilities of the same shape; each row sums to 1."""
        s: Floats = np.exp(z - z.max(axis=1, keepdims=True))
        s /= s.sum(axis=1, keepdims=True)
        self._s = s
        return s

    def backward(self, delta: Floats) -> Floats:
        """∂L/∂s → ∂L/∂z = s ⊙ (delta − ⟨delta, s⟩), the Jacobian product written out."""
        s = self._s
        along: Floats = (delta * s).sum(axis=1, keepdims=True)
        out: Floats = s * (delta - along)
        return out
