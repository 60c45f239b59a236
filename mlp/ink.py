"""Images that are mostly blank, multiplied only where there is ink: exactly, not approximately.

On MNIST a fifth of the pixels have ink. With the features in the order of how many training images ink them, an image
ends early, at its *extent*; and a batch, sorted from the largest extent to the smallest, is a staircase, with nothing
to multiply beyond its steps::

            0          features, in order          d
          0 ┌───────────────┬───────┬─────────┬────┐
          1 │               │       │         └────┘  ← of −128
            │               │       └─────────┐
     images │               │       │  blank
            │               └───────┐
            │               │
      batch └───────────────┘

x = (P − 128) / 255, with the pixels P (DESIGN §5), is not 0 where P is. So image 0 is one more, of −128 everywhere, that
stands for the − 128 of all the others::

    x W  = (P W − 128·Σ_j W_j) / 255      its product is added to theirs, as the bias is
    xᵀ δ = (Pᵀ δ − 128·Σ_i δ_i) / 255     its δ is the sum of theirs, as the bias's gradient is

Data without blanks (photographs, floats) have no :class:`Ink` and are multiplied whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mlp.activations import Floats, Workspace
from mlp.formats import Arrays

_PARTS = (1.0, 0.6, 0.2)
"""Of a batch, that a step has. Two steps leave 6 % more of the products' time, four or five no less."""

_WORTHWHILE = 0.9
"""Mean extent, as a part of all features, up to which there is something to gain."""


@final
@dataclass(frozen=True, eq=False)
class Ink:
    """Images with their features in the order of how many training images ink them, the most often inked first."""

    x: NDArray[np.uint8]
    """(N, d), read-only and mapped from disk."""
    order: NDArray[np.intp]
    """(d,): feature j here is feature ``order[j]`` of the data."""
    extents: NDArray[np.intp]
    """(N,): how many features of an image there are up to the last inked one."""

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """(d,): feature j of the data is feature ``place[j]`` here."""
        return np.argsort(self.order)


def find_ink(arrays: Arrays) -> Arrays:
    """``order``, and ``ink_*`` and ``extents_*`` for every ``x_*``, which make an :class:`Ink`; nothing if none pays."""
    train = arrays["x_train"]
    if train.dtype != np.uint8:
        return {}
    order = np.argsort(-np.count_nonzero(train, axis=0), kind="stable")
    found: Arrays = {"order": order}
    for part in [key[2:] for key in arrays if key.startswith("x")]:
        ink = found[f"ink_{part}"] = arrays[f"x_{part}"][:, order]
        # argmax says 0 of an image that is all blank, which so counts as full.
        found[f"extents_{part}"] = len(order) - (ink[:, ::-1] > 0).argmax(axis=1)
    return found if found["extents_train"].mean() <= _WORTHWHILE * len(order) else {}


class Step(NamedTuple):
    """The features from ``start`` to ``stop`` of the first ``rows`` images, image 0 among them."""

    rows: int
    start: int
    stop: int


def staircase(extents: NDArray[np.intp], features: int) -> list[Step]:
    """Steps that hold the ink of images 1, 2, … with these extents, descending; the last is of image 0 alone."""
    rows = [round(part * len(extents)) for part in _PARTS]
    stops = [int(extents[count]) for count in (*rows[1:], 0)] + [features]
    return [Step(1 + count, *ends) for count, ends in zip((*rows, 1), pairwise((0, *stops)), strict=True)]


@final
class InkedBatch:
    """A batch of images by their steps, image 0 among them.

    Args:
        x: (1 + batch, d); −128 in image 0, pixels in the others; beyond the steps it is not read.
        steps: as :func:`staircase` gives them.
        ink: what they are of.
    """

    def __init__(self, x: Floats, steps: Sequence[Step], ink: Ink) -> None:
        self._x, self._steps, self._ink = x, steps, ink
        self._scale = x.dtype.type(1) / x.dtype.type(255)

    def __len__(self) -> int:
        return len(self._x) - 1

    def forward(self, weight: Floats, bias: Floats, scratch: "Scratch") -> Floats:
        """x W + b, (batch, fan_out), valid until the next call."""
        w = weight.take(self._ink.order, axis=0, out=scratch.weight.like(weight), mode="clip")
        z, part = (space.rows(len(self._x), len(bias), bias.dtype) for space in (scratch.z, scratch.part))
        for rows, start, stop in self._steps:
            np.matmul(self._x[:rows, start:stop], w[start:stop], out=part[:rows] if start else z)
            if start:
                z[:rows] += part[:rows]
        z *= self._scale
        z[1:] += z[0] + bias
        return z[1:]

    def backward(self, delta: Floats, grad_weight: Floats, grad_bias: Floats, scratch: "Scratch") -> None:
        """Fill xᵀ δ, (d, fan_out), and Σ_i δ_i, (fan_out,); delta: (batch, fan_out)."""
        scaled = scratch.part.rows(len(self._x), len(grad_bias), delta.dtype)
        grad = scratch.weight.like(grad_weight)
        np.add.reduce(delta, axis=0, out=grad_bias)
        np.multiply(grad_bias, self._scale, out=scaled[0])
        np.multiply(delta, self._scale, out=scaled[1:])
        for rows, start, stop in self._steps:
            np.matmul(self._x[:rows, start:stop].T, scaled[:rows], out=grad[start:stop])
        grad.take(self._ink.place, axis=0, out=grad_weight, mode="clip")


class Scratch:
    """Memory for a layer's products with such batches."""

    def __init__(self) -> None:
        self.weight, self.z, self.part = Workspace(), Workspace(), Workspace()
