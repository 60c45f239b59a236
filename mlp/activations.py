"""Activation functions, each beside its derivative, by name in :data:`ACTIVATIONS`.

``forward(z)`` takes pre-activations of shape (batch, width) and may overwrite them: a training step is
bound by memory traffic, and no activation needs more than it keeps. ``backward(delta)`` turns ∂L/∂a into
∂L/∂z in place, for the batch of the last ``forward``.
"""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sweeps.runs.schema import Entry, entry, one_of

Floats = NDArray[Any]
"""float32 or float64; a network computes in one of them throughout."""


class Activation(Protocol):
    """What a hidden layer applies to each pre-activation by itself: it may get only some of a layer's units."""

    def forward(self, z: Floats) -> Floats: ...

    def backward(self, delta: Floats) -> Floats: ...


class Workspace:
    """Scratch memory that grows to the largest batch seen and is then reused; initially zero.

    A new temporary of a batch's size costs page faults that take as long as the arithmetic on it.

    Args:
        order: "C" keeps an example's values together in memory, "F" a column's.
        memory: to begin with, (rows, width).
    """

    def __init__(self, order: Literal["C", "F"] = "C", memory: Floats | None = None) -> None:
        self._order: Literal["C", "F"] = order
        self._memory: Floats = np.empty((0, 0)) if memory is None else memory

    def rows(self, count: int, width: int, dtype: np.dtype[Any]) -> Floats:
        """(count, width), valid until the next call."""
        memory = self._memory
        if len(memory) < count or memory.shape[1] != width or memory.dtype != dtype:
            self._memory = memory = np.zeros((count, width), dtype, self._order)
        return memory[:count]

    def like(self, x: Floats) -> Floats:
        """Of the shape and dtype of ``x`` (batch, width)."""
        return self.rows(x.shape[0], x.shape[1], x.dtype)


class ReLU:
    """max(0, z); the derivative at 0 is taken as 0."""

    def __init__(self) -> None:
        self._a: Floats = np.empty(0)
        self._zeros = Workspace()

    def forward(self, z: Floats) -> Floats:
        # Four times faster than against the scalar 0, for which NumPy has no vector loop.
        self._a = np.maximum(z, self._zeros.like(z), out=z)
        return z

    def backward(self, delta: Floats) -> Floats:
        delta *= self._a > 0
        return delta


class Sigmoid:
    """σ(z) = 1 / (1 + e^−z); σ' = σ (1 − σ) ≤ 1/4, the cause of the plateau in the course report, §4.

    Computed as ½ + ½ tanh(z/2): fewer passes than by exp, nothing overflows, and as near to σ in absolute terms.
    """

    def __init__(self) -> None:
        self._a: Floats = np.empty(0)
        self._slope = Workspace()

    def forward(self, z: Floats) -> Floats:
        z *= 0.5
        np.tanh(z, out=z)
        z *= 0.5
        z += 0.5
        self._a = z
        return z

    def backward(self, delta: Floats) -> Floats:
        slope = np.subtract(1, self._a, out=self._slope.like(self._a))
        slope *= self._a
        delta *= slope
        return delta


class Tanh:
    """tanh(z); tanh' = 1 − tanh² (course report §2.3)."""

    def __init__(self) -> None:
        self._a: Floats = np.empty(0)
        self._slope = Workspace()

    def forward(self, z: Floats) -> Floats:
        self._a = np.tanh(z, out=z)
        return z

    def backward(self, delta: Floats) -> Floats:
        slope = np.multiply(self._a, self._a, out=self._slope.like(self._a))
        np.subtract(1, slope, out=slope)
        delta *= slope
        return delta


# g with tanh(x g(x²)) = erf(x) to 1e-7 for |x| < 4.2, beyond which both are ±1 in float32: fitted by iteratively
# reweighted least squares to atanh(erf(x)) / x; from the highest power down. 2/√π at x = 0.
_ERF = (1.41850704e-7, -5.66844741e-6, 8.76371430e-5, -6.19784133e-4, -1.91831460e-4, 1.02769056e-1, 1.12837927)


def erf(x: Floats) -> Floats:
    """The error function, in place: float32 by tanh and a polynomial (within 2e-7), float64 by SciPy.

    In float32 SciPy's takes five times as long, since this uses vector instructions only.
    """
    if x.dtype != np.float32:
        from scipy.special import erf as precise  # nothing else needs SciPy

        return precise(x, out=x)
    with np.errstate(over="ignore"):  # for large |x| the polynomial is ∞, which correctly gives ±1
        square = x * x
        g = square * _ERF[0]
        for coefficient in _ERF[1:-1]:
            g += coefficient
            g *= square
        g += _ERF[-1]
        x *= g
    return np.tanh(x, out=x)


class GELU:
    """z Φ(z), with Φ the normal distribution function (Hendrycks & Gimpel, arXiv:1606.08415).

    ``approximate="none"`` computes Φ by erf. ``"tanh"`` takes their approximation
    Φ(z) ≈ ½ (1 + tanh(√(2/π) (z + 0.044715 z³))), off by at most 5e-4, and its own exact derivative.
    """

    _SCALE = float(np.sqrt(2 / np.pi))
    _CUBIC = 0.044715

    def __init__(self, *, approximate: str) -> None:
        self._exact = approximate == "none"
        self._z: Floats = np.empty(0)
        self._inner = Workspace()  # tanh(…) or erf(…), so that Φ = ½ (1 + inner)
        self._out = Workspace()
        self._slope = Workspace()

    def forward(self, z: Floats) -> Floats:
        self._z = z
        inner = self._inner.like(z)
        if self._exact:
            np.multiply(z, np.sqrt(0.5), out=inner)
            erf(inner)
        else:
            np.multiply(z, z, out=inner)
            inner *= self._SCALE * self._CUBIC
            inner += self._SCALE
            inner *= z
            np.tanh(inner, out=inner)
        a = np.multiply(z, inner, out=self._out.like(z))
        a += z
        a *= 0.5
        return a

    def backward(self, delta: Floats) -> Floats:
        # (z Φ)' = Φ + z Φ', with Φ = ½ (1 + inner)
        z = self._z
        inner = self._inner.like(z)
        slope = np.multiply(z, z, out=self._slope.like(z))
        if self._exact:
            slope *= -0.5
            np.exp(slope, out=slope)
            slope *= self._SCALE  # 2 Φ' = √(2/π) e^(−z²/2)
        else:
            slope *= 3 * self._SCALE * self._CUBIC
            slope += self._SCALE
            sech2 = np.multiply(inner, inner, out=self._out.like(z))
            np.subtract(1, sech2, out=sech2)
            slope *= sech2  # 2 Φ' = (1 − tanh²) · d/dz of tanh's argument
        slope *= z
        slope += inner
        slope += 1
        slope *= 0.5
        delta *= slope
        return delta


ACTIVATIONS: dict[str, Entry[Activation]] = {
    "relu": entry(ReLU),
    "sigmoid": entry(Sigmoid),
    "gelu": entry(GELU, approximate=one_of("tanh", "none")),
    "tanh": entry(Tanh),
}
