"""Analytic gradients against central differences, for every entry of the registries; a new entry tests itself."""

import itertools

import numpy as np
import pytest
import scipy.special

from mlp.activations import ACTIVATIONS, erf
from mlp.layers import Softmax
from mlp.losses import LOSSES
from mlp.network import Network

OPTIONS = {"gelu": [{"approximate": "tanh"}, {"approximate": "none"}], "hinge": [{"margin": 0.05}, {"margin": 1.0}]}
DEPTHS = [(6, 4), (6, 5, 4), (6, 5, 7, 4), (6, 5, 5, 5, 4)]


def variants(registry):
    return [(name, options) for name in registry for options in OPTIONS.get(name, [{}])]


def label(value):
    return "-".join(map(str, value)) if isinstance(value, tuple) and isinstance(value[0], int) else str(value)


@pytest.mark.parametrize(
    ("activation", "loss", "sizes"),
    list(itertools.product(variants(ACTIVATIONS), variants(LOSSES), DEPTHS)),
    ids=label,
)
def test_backward_equals_central_differences(activation, loss, sizes):
    rng = np.random.default_rng(np.random.SeedSequence([len(sizes), 1]))
    network = Network(sizes, lambda: ACTIVATIONS[activation[0]].build(**activation[1]), dtype="float64")
    network.initialize(rng, std=0.8)
    network.theta += rng.normal(0, 0.05, network.theta.shape)  # biases too
    criterion = LOSSES[loss[0]].build(**loss[1])
    x, labels = rng.normal(size=(9, 6)), rng.integers(0, 4, 9)

    def mean_loss():
        return criterion.forward(network.forward(x), labels) / len(x)

    mean_loss()
    network.backward(criterion.backward(1 / len(x)))
    analytic = network.grad.copy()
    numeric = np.empty_like(analytic)
    step = 1e-6
    for i, value in enumerate(network.theta.copy()):
        network.theta[i] = value + step
        above = mean_loss()
        network.theta[i] = value - step
        numeric[i] = (above - mean_loss()) / (2 * step)
        network.theta[i] = value
    assert np.abs(analytic).max() > 1e-3
    assert np.linalg.norm(analytic - numeric) <= 1e-6 * np.linalg.norm(numeric)


def test_softmax_multiplies_by_its_whole_jacobian():
    rng = np.random.default_rng(0)
    z, delta = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4))
    layer = Softmax()
    s = layer.forward(z)
    np.testing.assert_allclose(s.sum(axis=1), 1)
    jacobians = np.einsum("bi,ij->bij", s, np.eye(4)) - np.einsum("bi,bj->bij", s, s)
    np.testing.assert_allclose(layer.backward(delta), np.einsum("bi,bij->bj", delta, jacobians), atol=1e-15)
    assert np.abs(jacobians - np.einsum("bi,ij->bij", s * (1 - s), np.eye(4))).max() > 0.01  # no sigmoid-like diagonal


@pytest.mark.parametrize(("name", "options"), variants(LOSSES), ids=label)
def test_losses_are_finite_for_any_finite_logits(name, options):
    loss = LOSSES[name].build(**options)
    logits = np.array([[3e38, -3e38, 0.0], [-3e38, 3e38, 0.0]], np.float32) / 4
    labels = np.array([1, 1])
    with np.errstate(over="ignore"):
        total = loss.forward(logits, labels)
    if name != "euclidean":  # whose square leaves float32's range, and says so by its value
        assert np.isfinite(total)
        assert np.isfinite(loss.backward(0.5)).all()


def test_losses_by_hand():
    logits, labels = np.array([[1.0, 2.0, 0.5]]), np.array([0])
    e = np.exp([1.0, 2.0, 0.5])
    assert LOSSES["ce"].build().forward(logits.copy(), labels) == pytest.approx(-np.log(e[0] / e.sum()))
    assert LOSSES["euclidean"].build().forward(logits.copy(), labels) == pytest.approx(0.5 * (0 + 4 + 0.25))
    hinge = LOSSES["hinge"].build(margin=0.05)
    assert hinge.forward(logits, labels) == pytest.approx(0.05 + 2 - 1)  # class 2 is below by more than the margin
    np.testing.assert_allclose(hinge.backward(1.0), [[-1, 1, 0]])


def test_erf_in_float32_is_as_near_as_float32_can_tell():
    x = np.linspace(-10, 10, 200_001, dtype=np.float32)
    exact = scipy.special.erf(x.astype(np.float64))
    assert np.abs(erf(x.copy()) - exact).max() < 2e-7
    small = x[(x != 0) & (np.abs(x) < 1)]
    np.testing.assert_allclose(erf(small.copy()), scipy.special.erf(small.astype(np.float64)), rtol=3e-7)
    ends = np.array([np.inf, -np.inf, 1e30, 0], np.float32)
    np.testing.assert_array_equal(erf(ends.copy()), [1, -1, 1, 0])
