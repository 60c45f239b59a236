"""An MLP in textbook NumPy under Hydra, without any of this repository: what ``bench.py sweeps`` measures ours beside.

    python scripts/plain_mlp.py --multirun hydra/launcher=joblib data=mnist.npz points=points.json point='range(0,21)'

float64, a fresh array for each result. ``points`` lists what a run is decided by: hidden, activ, loss, lr, wd, mo.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store("plain", {"data": "???", "points": "???", "point": 0, "epochs": 3, "batch": 200})


@hydra.main(version_base=None, config_name="plain")
def main(cfg: Any) -> None:
    point = json.loads(Path(cfg.points).read_text())[cfg.point]
    activation, slope = ACTIVATIONS[point["activ"]]
    loss = LOSSES[point["loss"]]
    with np.load(cfg.data) as file:
        x, x_test = ((file[f"x_{part}"].astype(float) - 128) / 255 for part in ("train", "test"))
        y, y_test = file["y_train"], file["y_test"]

    rng = np.random.default_rng(0)
    sizes = (x.shape[1], *point["hidden"], 10)
    weights = [rng.normal(0, 0.01, shape) for shape in pairwise(sizes)]
    biases = [np.zeros(size) for size in sizes[1:]]
    velocities = [np.zeros_like(array) for array in weights + biases]

    def forward(x: Any) -> tuple[list[Any], list[Any]]:
        inputs, sums = [x], []
        for w, b in zip(weights, biases, strict=True):
            sums.append(inputs[-1] @ w + b)
            inputs.append(activation(sums[-1]))
        return inputs, sums

    for epoch in range(1, cfg.epochs + 1):
        order = rng.permutation(len(x))
        total = 0.0
        for start in range(0, len(x), cfg.batch):
            index = order[start : start + cfg.batch]
            inputs, sums = forward(x[index])
            value, delta = loss(sums[-1], np.eye(10)[y[index]])
            total += value
            delta = delta / len(index)
            gradients = []
            for layer in reversed(range(len(weights))):
                gradients.append((inputs[layer].T @ delta, delta.sum(axis=0)))
                if layer:
                    delta = delta @ weights[layer].T * slope(sums[layer - 1])
            by_kind = zip(*reversed(gradients), strict=True)
            for i, (array, gradient) in enumerate(
                zip(weights + biases, [g for kind in by_kind for g in kind], strict=True)
            ):
                velocities[i] = point["mo"] * velocities[i] + gradient + point["wd"] * array
                array -= point["lr"] * velocities[i]
        right = (forward(x_test)[1][-1].argmax(axis=1) == y_test).mean()
        print(f"epoch {epoch}: loss {total / len(x):.4f}, test accuracy {100 * right:.2f} %")


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _gelu_tanh(z: Any) -> Any:
    return np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))


def _gelu_slope(z: Any) -> Any:
    t = _gelu_tanh(z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)


def _cross_entropy(z: Any, target: Any) -> tuple[Any, Any]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log((p * target).sum(axis=1)).sum(), p - target


def _euclidean(z: Any, target: Any) -> tuple[Any, Any]:
    return 0.5 * ((z - target) ** 2).sum(), z - target


def _hinge(z: Any, target: Any) -> tuple[Any, Any]:
    excess = np.maximum(0, 0.05 + z - (z * target).sum(axis=1, keepdims=True)) * (1 - target)
    over = (excess > 0).astype(float)
    return excess.sum(), over - target * over.sum(axis=1, keepdims=True)


ACTIVATIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: z > 0),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "gelu": (lambda z: 0.5 * z * (1 + _gelu_tanh(z)), _gelu_slope),
}
LOSSES = {"ce": _cross_entropy, "euclidean": _euclidean, "hinge": _hinge}

if __name__ == "__main__":
    main()
