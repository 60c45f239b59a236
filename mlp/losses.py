"""Loss functions, each beside its gradient, by name in :data:`LOSSES`.

``forward(logits, labels)`` returns the sum over the batch (the caller divides: a mean over an epoch is
then right for a short last batch too) and may overwrite the logits; ``backward(scale)`` returns ``scale`` times
the gradient of that sum with respect to the logits, for the batch of the last ``forward``. Passing
``scale = lr / batch`` folds the mean and the learning rate into the smallest array of the step.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlp.activations import Floats
from sweeps.runs.schema import Entry, entry, number

Labels = NDArray[np.intp]


class Loss(Protocol):
    """How wrong logits (batch, classes) are, given labels (batch,)."""

    def forward(self, logits: Floats, labels: Labels) -> float: ...

    def backward(self, scale: float) -> Floats: ...


class CrossEntropy:
    """−log softmax(z)_t, with the softmax inside, so that no finite logit can overflow."""

    def __init__(self) -> None:
        self._p: Floats = np.empty(0)
        self._target: tuple[Any, Any] = (0, 0)

    def forward(self, logits: Floats, labels: Labels) -> float:
        self._target = target = (np.arange(len(labels)), labels)
        z = logits
        z -= np.maximum.reduce(z, axis=1, keepdims=True)
        z_target = z[target]
        p = np.exp(z, out=z)
        total = np.add.reduce(p, axis=1, keepdims=True)
        p /= total
        self._p = p
        # log Σ e^z − z_t, from the shifted logits: exact where p_t underflows
        losses = np.log(total[:, 0])
        losses -= z_target
        return float(np.add.reduce(losses, dtype=np.float64))

    def backward(self, scale: float) -> Floats:
        delta = self._p
        delta[self._target] -= 1
        delta *= scale
        return delta


class Euclidean:
    """½ Σ_k (z_k − t_k)² on the raw outputs, t the one-hot target (the course report's "EuclideanLoss")."""

    def __init__(self) -> None:
        self._difference: Floats = np.empty(0)

    def forward(self, logits: Floats, labels: Labels) -> float:
        difference = logits
        difference[np.arange(len(labels)), labels] -= 1
        self._difference = difference
        return 0.5 * float(np.einsum("ij,ij->i", difference, difference).sum(dtype=np.float64))

    def backward(self, scale: float) -> Floats:
        delta = self._difference
        delta *= scale
        return delta


class Hinge:
    """Σ_{k≠t} max(0, Δ + z_k − z_t), the multi-class hinge of Weston & Watkins (1999) with margin Δ.

    The course report does not say Δ; 0.05 gives its loss of 0.0041 where 0.5 would give 0.038.
    """

    def __init__(self, *, margin: float) -> None:
        self._margin = margin
        self._violated: Floats = np.empty(0)
        self._target: tuple[Any, Any] = (0, 0)

    def forward(self, logits: Floats, labels: Labels) -> float:
        self._target = target = (np.arange(len(labels)), labels)
        excess = logits
        excess -= (excess[target] - self._margin)[:, None]
        excess[target] = 0
        np.maximum(excess, 0, out=excess)
        total = float(excess.sum(dtype=np.float64))
        self._violated = np.sign(excess, out=excess)
        return total

    def backward(self, scale: float) -> Floats:
        delta = self._violated
        delta[self._target] = -delta.sum(axis=1)
        delta *= scale
        return delta


LOSSES: dict[str, Entry[Loss]] = {
    "ce": entry(CrossEntropy),
    "euclidean": entry(Euclidean),
    "hinge": entry(Hinge, margin=number(gt=0)),
}


def measure(loss: Loss, logits: Floats, labels: Labels, hits: NDArray[np.bool_] | None = None) -> tuple[float, int]:
    """Summed loss, and number of correct examples; fills ``hits`` (batch,) with which. Overwrites the logits."""
    right = np.equal(logits.argmax(axis=1), labels, out=hits)
    return loss.forward(logits, labels), int(np.count_nonzero(right))
