"""One step worked by hand for each optimizer, from the formulas in their docstrings."""

import numpy as np
import pytest

from mlp.activations import ACTIVATIONS
from mlp.losses import LOSSES
from mlp.network import Network
from mlp.optim import OPTIMIZERS

LR, WD, MO, BETA2, EPS = 0.1, 0.01, 0.9, 0.99, 1e-8
W = np.array([1.0, -2.0, 0.5])
GRADIENTS = [np.array([0.3, 0.1, -0.2]), np.array([-0.1, 0.4, 0.05]), np.array([0.2, 0.2, 0.2])]


def sgd(w, g, s, t):
    v = MO * s.get("v", 0) + g + WD * w
    return w - LR * v, {"v": v}


def nesterov(w, g, s, t):
    g = g + WD * w
    v = MO * s.get("v", 0) + g
    return w - LR * (g + MO * v), {"v": v}


def adam(w, g, s, t):
    g = g + WD * w
    m, q = MO * s.get("m", 0) + (1 - MO) * g, BETA2 * s.get("q", 0) + (1 - BETA2) * g**2
    return w - LR * (m / (1 - MO**t)) / (np.sqrt(q / (1 - BETA2**t)) + EPS), {"m": m, "q": q}


def adamw(w, g, s, t):
    m, q = MO * s.get("m", 0) + (1 - MO) * g, BETA2 * s.get("q", 0) + (1 - BETA2) * g**2
    return w - LR * WD * w - LR * (m / (1 - MO**t)) / (np.sqrt(q / (1 - BETA2**t)) + EPS), {"m": m, "q": q}


BY_HAND = {"sgd": sgd, "nesterov": nesterov, "adam": adam, "adamw": adamw}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_by_hand(name):
    theta, grad = W.copy(), np.empty(3)
    options = {"beta2": BETA2, "eps": EPS} if name.startswith("adam") else {}
    optimizer = OPTIMIZERS[name].build(theta, lr=LR, wd=WD, mo=MO, **options)
    expected, state = W, {}
    for t, g in enumerate(GRADIENTS, start=1):
        grad[:] = optimizer.gradient_scale * g
        optimizer.advance()
        for part in (slice(0, 2), slice(2, 3)):
            optimizer.update(part, grad[part])
        expected, state = BY_HAND[name](expected, g, state, t)
        np.testing.assert_allclose(theta, expected, rtol=1e-12)


def test_one_training_step_by_hand():
    """x = (1, 2), W = I, b = 0, label 1, Euclidean: every number on paper."""
    network = Network((2, 2), ACTIVATIONS["relu"].build, dtype="float64")
    network.linears[0].weight[:] = np.eye(2)
    loss = LOSSES["euclidean"].build()
    optimizer = OPTIMIZERS["sgd"].build(network.theta, lr=0.1, wd=0.5, mo=0.9)
    logits = network.forward(np.array([[1.0, 2.0]]))
    assert loss.forward(logits, np.array([1])) == 0.5 * (1**2 + (2 - 1) ** 2)
    network.backward(loss.backward(optimizer.gradient_scale / 1))
    optimizer.advance()
    optimizer.update(slice(None), network.grad)
    # ∂L/∂z = (1, 1); ∂L/∂W = x ∂L/∂z = [[1, 1], [2, 2]]; v = that + 0.5 W; W − 0.1 v
    np.testing.assert_allclose(network.linears[0].weight, [[1 - 0.15, -0.1], [-0.2, 1 - 0.25]])
    np.testing.assert_allclose(network.linears[0].bias, [-0.1, -0.1])
