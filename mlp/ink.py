"""Images that are mostly blank, multiplied only where there is ink: exactly, not approximately.

On MNIST a fifth of the pixels are inked. With the features ordered by how many training images ink them, an image
ends early, at its extent; and a batch, sorted from the longest extent to the shortest, is a staircase:

            0          features, in order          d
          0 ┌───────────────┬───────┬─────────┬────┐
            │               │       │         │    │
            │               │       └─────────┘    │
     images │               │       │              │
            │               └───────┘     blank    │
            │               │                      │
          n └───────────────┴──────────────────────┘

The first step, of all images, is multiplied as it is. Beyond it, with x = P − c (P = pixel / 255 and c = 128 / 255) and
P = 0 outside the steps,

    x W  = P W − c·Σ_j W_j      one vector for all images, which goes with the bias
    xᵀ δ = Pᵀ δ − c·Σ_i δ_i     one row for all features, which the bias's gradient is

Data without blanks (photographs, floats) have no :class:`Ink`, and are multiplied as ever.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mlp.activations import Floats, Workspace
from mlp.formats import Arrays

_STEPS = (1.0, 0.6, 0.2)
"""Parts of a batch that a step has. One step or two leave up to 8 % more of the products' time, four no less."""

_WORTHWHILE = 0.9
"""Mean extent, as a part of all features, up to which there is something to gain."""

_C = 128 / 255


@final
@dataclass(frozen=True, eq=False)
class Ink:
    """Images with their features in the order of how many training images ink them."""

    x: NDArray[np.uint8]
    """(N, d), read-only and mapped from disk."""
    order: NDArray[np.intp]
    """(d,): feature j here is feature ``order[j]`` of the data."""
    extents: NDArray[np.intp]
    """(N,): how many features there are up to the last inked one."""

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """(d,): feature j of the data is feature ``place[j]`` here."""
        return np.argsort(self.order)


def find_ink(arrays: Arrays) -> Arrays:
    """``order``, ``ink_*`` and ``extents_*``, one of each for every ``x_*``: what makes an :class:`Ink`. Or nothing."""
    train = arrays["x_train"]
    if train.dtype != np.uint8:
        return {}
    order = np.argsort(-np.count_nonzero(train, axis=0), kind="stable")
    found: Arrays = {"order": order}
    for key in [key for key in arrays if key.startswith("x")]:
        ink = arrays[key][:, order]
        found[f"ink{key[1:]}"] = ink
        # Of an image that is all blank argmax says 0, and it counts as full.
        found[f"extents{key[1:]}"] = len(order) - (ink[:, ::-1] > 0).argmax(axis=1)
    return found if found["extents_train"].mean() <= _WORTHWHILE * len(order) else {}


class Step(NamedTuple):
    """The features from ``start`` to ``stop`` of the first ``rows`` images."""

    rows: int
    start: int
    stop: int


def staircase(extents: NDArray[np.intp]) -> list[Step]:
    """Steps that cover the ink of images with these extents, descending."""
    rows = [max(1, round(part * len(extents))) for part in _STEPS]
    stops = [*(int(extents[count]) for count in rows[1:] if count < len(extents)), int(extents[0])]
    return [Step(count, start, stop) for count, start, stop in zip(rows, [0, *stops], stops, strict=False)]


@final
@dataclass(frozen=True, eq=False)
class InkedBatch:
    """x of a batch, of which only the steps are there."""

    x: Floats
    """(batch, d): in the first step pixel / 255 − c, in the others pixel / 255, and elsewhere anything."""
    steps: list[Step]
    ink: Ink

    def __len__(self) -> int:
        return len(self.x)

    def forward(self, weight: Floats, bias: Floats, z: Floats, scratch: "Scratch") -> None:
        """z = x W + b, (batch, fan_out)."""
        w = weight.take(self.ink.order, axis=0, out=scratch.weight.like(weight), mode="clip")
        (_, _, blank), *others = self.steps
        np.matmul(self.x[:, :blank], w[:blank], out=z)
        z += bias - _scalar(w) * np.add.reduce(w[blank:], axis=0)
        for rows, start, stop in others:
            part = np.matmul(self.x[:rows, start:stop], w[start:stop], out=scratch.z.like(z)[:rows])
            z[:rows] += part

    def backward(self, delta: Floats, grad_weight: Floats, grad_bias: Floats, scratch: "Scratch") -> None:
        """∂L/∂W and ∂L/∂b from delta = ∂L/∂z, (batch, fan_out)."""
        grad = scratch.weight.like(grad_weight)
        np.add.reduce(delta, axis=0, out=grad_bias)
        for rows, start, stop in self.steps:
            np.matmul(self.x[:rows, start:stop].T, delta[:rows], out=grad[start:stop])
        grad[self.steps[-1].stop :] = 0
        grad[self.steps[0].stop :] -= _scalar(grad) * grad_bias
        grad.take(self.ink.place, axis=0, out=grad_weight, mode="clip")


class Scratch:
    def __init__(self) -> None:
        self.weight, self.z = Workspace(), Workspace()


def _scalar(like: Floats) -> Any:
    return like.dtype.type(_C)
