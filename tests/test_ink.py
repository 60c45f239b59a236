"""Mostly blank images: which are, and that to multiply only their ink changes nothing but rounding."""

from dataclasses import replace

import numpy as np
import pytest
import samples

from mlp import data
from mlp.composition import compose
from mlp.data import Batches, Dataset, InkedBatches, Split
from mlp.ink import find_ink, staircase
from mlp.layers import Linear
from mlp.optim import OPTIMIZERS
from mlp.trainer import Trainer

mnist = samples.mnist


def drawn(count, features=40, seed=0):
    """Pixels with ink on about a third, here and there; the first image is blank and the second full."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 256, (count, features), np.uint8)
    x[rng.random(x.shape) < np.linspace(0, 1.2, features)[rng.permutation(features)]] = 0
    x[0], x[1] = 0, 255
    return x


def split_of(x, classes=3):
    return Split(x, np.arange(len(x)) % classes, np.arange(len(x)), find_ink(x))


def whole(split):
    return replace(split, ink=None)


def test_mnist_is_half_blank_and_mapped(mnist):
    ink = mnist.train.ink
    assert np.array_equal(ink.x, mnist.train.x[:, ink.order])
    assert np.array_equal(ink.order[ink.place], np.arange(784))
    assert ink.extents.mean() / 784 == pytest.approx(0.524, abs=0.001)
    assert isinstance(ink.x.base, np.memmap)
    assert mnist.test.ink is None


def test_features_are_in_the_order_of_their_ink_and_nothing_lies_beyond_an_extent():
    ink = find_ink(drawn(300))
    counts = np.count_nonzero(ink.x, axis=0)
    assert (np.diff(counts) <= 0).all()
    for image, extent in zip(ink.x[1:], ink.extents[1:], strict=True):
        assert image[extent - 1] > 0
        assert not image[extent:].any()
    assert ink.extents[:2].tolist() == [40, 40]


def test_photographs_and_floats_have_none():
    assert find_ink(np.random.default_rng(0).integers(0, 256, (50, 30), np.uint8)) is None
    assert find_ink(drawn(50).astype(np.float32)) is None


def test_a_held_out_part_leaves_the_rest_its_ink():
    held = data.load("mnist", {"holdout": 5000, "holdout_seed": 3})
    assert held.train.ink is not None
    batch, labels = InkedBatches(held.train, 200, "float64").take(np.arange(200))
    assert np.array_equal(np.sort(labels), np.sort(held.train.y[:200]))
    assert batch.x.shape == (201, 784)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 37, 200])
def test_a_staircase_holds_all_ink(count):
    ink = find_ink(drawn(300, seed=count))
    rows = np.argsort(-ink.extents, kind="stable")[300 - count :]
    held = np.zeros((1 + count, 40), bool)
    end = 0
    for step in staircase(ink.extents[rows], 40):
        assert step.start == end
        end = step.stop
        held[: step.rows, step.start : step.stop] = True
    assert end == 40
    assert held[0].all()
    assert not ink.x[rows][~held[1:]].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 37, 200])
def test_products_are_those_of_whole_images(count, dtype):
    rng = np.random.default_rng(count)
    split = split_of(drawn(300))
    order = split.ink.order
    weight, bias = rng.normal(size=(40, 7)).astype(dtype), rng.normal(size=7).astype(dtype)
    plain = Linear(weight, bias, np.empty_like(weight), np.empty_like(bias))
    inked = Linear(weight[order], bias, np.full_like(weight, np.nan), np.empty_like(bias))
    source = InkedBatches(split, 200, dtype)
    for size in (200, count):  # the second finds in memory what the first left there
        index = rng.permutation(300)[:size]
        index = index[np.argsort(-split.ink.extents[index], kind="stable")]
        x, labels = Batches(split, 200, dtype).take(index)
        batch, found = source.take(index)
        assert np.array_equal(found, labels)
        delta = rng.normal(size=(size, 7)).astype(dtype)
        tolerance = {"rtol": 0, "atol": 1e3 * np.finfo(dtype).eps}
        np.testing.assert_allclose(inked.forward(batch), plain.forward(x), **tolerance)
        plain.backward(delta)
        inked.backward(delta)
        np.testing.assert_allclose(inked.grad_weight, plain.grad_weight[order], **tolerance)
        np.testing.assert_allclose(inked.grad_bias, plain.grad_bias, **tolerance)


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_training_is_that_of_whole_images_in_the_data_s_own_order(optim):
    config = compose("model.hidden=[8,5]", "activ=tanh", "lr=0.01", "bsz=37", "dtype=float64", f"optim={optim}")
    train, test = split_of(drawn(300)), whole(split_of(drawn(50, seed=1)))
    inked, plain = (Trainer(config, Dataset(split, test, test, 3, 40, {})) for split in (train, whole(train)))
    for number in (1, 2, 3):
        np.testing.assert_allclose(inked.epoch(number)[:7], plain.epoch(number)[:7], rtol=1e-9)
    np.testing.assert_allclose(inked.network.theta, plain.network.theta, rtol=1e-6, atol=1e-9)
    for name, array in inked.optimizer.state.items():
        np.testing.assert_allclose(array, plain.optimizer.state[name], rtol=1e-6, atol=1e-9)


def test_an_epoch_that_is_abandoned_leaves_the_weights_in_order():
    config = compose("model.hidden=[8]", "lr=1e-30", "wd=0", "bsz=37")
    split = split_of(drawn(300))
    trainer = Trainer(config, Dataset(split, split, split, 3, 40, {}))
    before = trainer.network.theta.copy()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(1, stop)
    np.testing.assert_allclose(trainer.network.theta, before, rtol=0, atol=1e-20)
