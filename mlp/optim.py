"""Optimizers over the flat parameter vector, by name in :data:`OPTIMIZERS`.

Conventions differ between libraries; these are ours. ``grad`` is ``gradient_scale`` times the gradient of
the mean loss: SGD needs lr·∂L/∂W, which the loss computes at no cost (see :mod:`mlp.losses`).
Weight decay acts on weights and biases, as in the course report. A step is ``advance``, then ``update`` for all parts
of the vectors: every element is updated by itself, so several processes may take a part each, if ``state`` is made of
``zeros`` that all of them see.
"""

from functools import partial
from typing import Protocol

import numpy as np

from mlp.activations import Floats
from mlp.team import Zeros
from sweeps.runs.schema import Entry, entry, number


class Optimizer(Protocol):
    """Moves ``theta`` along gradients; ``state`` is what a checkpoint must keep, updated in place."""

    gradient_scale: float
    state: dict[str, Floats]

    def advance(self) -> None:
        """The part of a step that happens once."""

    def update(self, part: slice, grad: Floats) -> None:
        """Move this part of ``theta`` along its ``grad``, which may be overwritten."""


class SGD:
    """Stochastic gradient descent with momentum (the course report's).

    v ← mo·v + (∂L/∂W + wd·W)
    W ← W − lr·v

    kept as u = lr·v, which saves a pass over the weights: u ← mo·u + lr·∂L/∂W + lr·wd·W;  W ← W − u.
    """

    def __init__(self, theta: Floats, *, lr: float, wd: float, mo: float, zeros: Zeros = np.zeros) -> None:
        self.gradient_scale = lr
        self._theta = theta
        self._decay, self._mo = lr * wd, mo
        self._u = zeros(theta.shape, theta.dtype)
        self._scratch = np.empty_like(theta)
        self.state = {"lr_velocity": self._u}

    def advance(self) -> None:
        pass

    def update(self, part: slice, grad: Floats) -> None:
        theta, u = self._theta[part], self._u[part]
        u *= self._mo
        u += grad
        if self._decay:
            u += np.multiply(theta, self._decay, out=self._scratch[: len(grad)])
        theta -= u


class Nesterov:
    """SGD with Nesterov's momentum, in the form of Sutskever et al. (2013) that PyTorch uses.

    g = ∂L/∂W + wd·W;  v ← mo·v + g;  W ← W − lr·(g + mo·v)
    """

    def __init__(self, theta: Floats, *, lr: float, wd: float, mo: float, zeros: Zeros = np.zeros) -> None:
        self.gradient_scale = lr
        self._theta = theta
        self._decay, self._mo = lr * wd, mo
        self._u = zeros(theta.shape, theta.dtype)
        self._scratch = np.empty_like(theta)
        self.state = {"lr_velocity": self._u}

    def advance(self) -> None:
        pass

    def update(self, part: slice, grad: Floats) -> None:
        theta, u, scratch = self._theta[part], self._u[part], self._scratch[: len(grad)]
        step = grad  # becomes lr·(g + mo·v)
        if self._decay:
            step += np.multiply(theta, self._decay, out=scratch)
        u *= self._mo
        u += step
        step += np.multiply(u, self._mo, out=scratch)
        theta -= step


class Adam:
    """Adam (Kingma & Ba, arXiv:1412.6980), with ``mo`` as its β₁ and wd·W added to the gradient (L2).

    m ← mo·m + (1 − mo)·g;  s ← β₂·s + (1 − β₂)·g²
    W ← W − lr · (m / (1 − mo^t)) / (√(s / (1 − β₂^t)) + ε)

    ``decoupled`` makes it AdamW (Loshchilov & Hutter, arXiv:1711.05101): g without the L2 term, and
    W ← W − lr·wd·W besides.
    """

    def __init__(
        self,
        theta: Floats,
        *,
        lr: float,
        wd: float,
        mo: float,
        beta2: float,
        eps: float,
        decoupled: bool,
        zeros: Zeros = np.zeros,
    ) -> None:
        self.gradient_scale = 1.0
        self._theta = theta
        self._lr, self._wd, self._beta1, self._beta2, self._eps = lr, wd, mo, beta2, eps
        self._decoupled = decoupled
        self._m, self._s = zeros(theta.shape, theta.dtype), zeros(theta.shape, theta.dtype)
        self._t = zeros(1, np.float64)  # steps taken; an array, so that a checkpoint restores it like the others
        self._scratch = np.empty_like(theta)
        self.state = {"m": self._m, "s": self._s, "t": self._t}

    def advance(self) -> None:
        self._t += 1

    def update(self, part: slice, grad: Floats) -> None:
        theta, g, m, s = self._theta[part], grad, self._m[part], self._s[part]
        scratch, t = self._scratch[: len(grad)], float(self._t[0])
        if self._decoupled:
            theta *= 1 - self._lr * self._wd
        elif self._wd:
            g += np.multiply(theta, self._wd, out=scratch)
        m *= self._beta1
        m += np.multiply(g, 1 - self._beta1, out=scratch)
        np.multiply(g, g, out=scratch)
        scratch *= 1 - self._beta2
        s *= self._beta2
        s += scratch
        np.sqrt(s, out=scratch)
        scratch *= 1 / np.sqrt(1 - self._beta2**t)
        scratch += self._eps
        np.divide(m, scratch, out=scratch)
        scratch *= self._lr / (1 - self._beta1**t)
        theta -= scratch


_ADAM_OPTIONS = {"beta2": number(ge=0, lt=1), "eps": number(gt=0)}

OPTIMIZERS: dict[str, Entry[Optimizer]] = {
    "sgd": entry(SGD),
    "nesterov": entry(Nesterov),
    "adam": entry(partial(Adam, decoupled=False), **_ADAM_OPTIONS),
    "adamw": entry(partial(Adam, decoupled=True), **_ADAM_OPTIONS),
}
