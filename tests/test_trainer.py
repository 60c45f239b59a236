"""The loop: bitwise determinism, what the columns mean, divergence."""

import contextlib
import itertools

import numpy as np
import pytest

from mlp.composition import compose
from mlp.data import Batches, Dataset, Split, load
from mlp.losses import LOSSES
from mlp.optim import OPTIMIZERS
from mlp.team import Team
from mlp.trainer import Diverged, Trainer


def trainer(*words):
    config = compose(*words)
    return Trainer(config, load(config.data.name, config.data.options))


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_the_same_configuration_gives_the_same_bits(small, optim):
    a, b = trainer(*small, f"optim={optim}"), trainer(*small, f"optim={optim}")
    rows = [(a.epoch(k), b.epoch(k)) for k in (1, 2, 3)]
    assert all(x[:7] == y[:7] for x, y in rows)
    assert a.network.theta.tobytes() == b.network.theta.tobytes()
    assert rows[-1][0].test_acc > 80  # and it learns


def test_another_seed_gives_other_weights_and_another_order(small):
    a, b = trainer(*small), trainer(*small, "seed=1")
    assert not np.array_equal(a.network.theta, b.network.theta)
    assert a.epoch(1)[:7] != b.epoch(1)[:7]


def test_float32_and_float64_start_from_the_same_draws(small):
    a, b = trainer(*small), trainer(*small, "dtype=float64")
    np.testing.assert_array_equal(a.network.theta, b.network.theta.astype(np.float32))
    assert b.epoch(1).test_loss == pytest.approx(a.epoch(1).test_loss, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_and_its_accuracy_is_that_of_the_logits(small, loss):
    t = trainer(*small, f"loss={loss}", "lr=0.05")
    rows = [t.epoch(k) for k in (1, 2, 3)]
    split = load(*dataset(small)).test
    x, labels = Batches(split, len(split), np.float32).take(np.arange(len(split)))
    right = np.count_nonzero(t.network.forward(x).argmax(axis=1) == labels)
    assert rows[-1].test_acc == 100 * right / len(split)
    assert rows[-1].test_acc > 80
    assert rows[-1].train_acc > rows[0].train_acc > 40


def test_every_image_is_seen_once_an_epoch_and_a_short_last_batch_counts_by_its_size(small):
    """With a learning rate too small to matter, the running mean over batches of 37 is the mean over all images."""
    t = trainer(*small, "lr=1e-30", "bsz=37", "dtype=float64")
    row = t.epoch(1)
    loss, accuracy = t.evaluate(load(*dataset(small)).train)
    assert row.train_loss == pytest.approx(loss, rel=1e-12)
    assert row.train_acc == pytest.approx(accuracy, rel=1e-12)


def dataset(words):
    config = compose(*words)
    return config.data.name, config.data.options


def test_train_columns_are_running_means_or_measured_after_the_epoch(small):
    running, full = trainer(*small, "lr=0.1"), trainer(*small, "lr=0.1", "eval_train=full")
    a, b = running.epoch(1), full.epoch(1)
    assert a.valid_loss == b.valid_loss
    assert a.train_loss > b.train_loss  # the mean still has the untrained batches in it
    assert b.train_loss == running.evaluate(load(*dataset(small)).train)[0]


def test_valid_is_the_test_set_unless_something_is_held_out(small):
    row = trainer(*small).epoch(1)
    assert row.valid_loss == row.test_loss
    held = trainer(*small, "data.holdout=100").epoch(1)
    assert held.valid_loss != held.test_loss


@pytest.mark.parametrize("loss", ["ce", "euclidean", "hinge"])
def test_divergence_is_noticed_and_named(small, loss):
    t = trainer(*small, "lr=1e20", f"loss={loss}")
    with pytest.raises(Diverged, match="epoch"):
        [t.epoch(k) for k in range(1, 6)]


def test_a_batch_larger_than_the_training_set_is_the_whole_set(small):
    assert trainer(*small, "bsz=100000").epoch(1).epoch == 1


def test_a_network_of_one_batch_learns_xor():
    """Depth matters: no single layer can do this."""
    config = compose("model.hidden=[8,8]", "activ=tanh", "lr=0.5", "wd=0", "bsz=4", "model.init_std=1", "dtype=float64")
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
    split = Split(x, np.array([0, 1, 1, 0]), np.arange(4))
    t = Trainer(config, Dataset(split, split, split, 2, 2, {}))
    for k in range(1, 300):
        row = t.epoch(k)
    assert row.test_acc == 100


@pytest.fixture
def team():
    """Makes teams, whose threads end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda threads: stack.enter_context(contextlib.closing(Team(threads)))


def wide(team, *words):
    """A trainer whose network is large enough for threads."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 1090)
    x = (rng.normal(size=(10, 784))[y] + rng.normal(size=(1090, 784))).astype(np.float32)
    train, test = (Split(x, y[rows], rows) for rows in (np.arange(1000), np.arange(1000, 1090)))
    config = compose("model.hidden=[400,300]", "bsz=190", "lr=0.01", *words)  # the last batch is shorter
    return Trainer(config, Dataset(train, test, test, 10, 784, {}), team)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_but_rounding_and_that_always_in_the_same_way(team, threads):
    one, some, again = (wide(team(n), "dtype=float64") for n in (1, threads, threads))
    for k in (1, 2):
        expected, found, repeated = one.epoch(k), some.epoch(k), again.epoch(k)
        np.testing.assert_allclose(found[:7], expected[:7], rtol=1e-9)
        assert found[:7] == repeated[:7]
    np.testing.assert_allclose(some.network.theta, one.network.theta, rtol=1e-7, atol=1e-12)
    assert some.network.theta.tobytes() == again.network.theta.tobytes()


def test_divergence_on_several_threads_is_found_without_a_warning(team):
    with pytest.raises(Diverged):
        wide(team(2), "lr=1e30").epoch(1)


def test_a_product_is_right_however_its_rows_are_divided(team):
    rng = np.random.default_rng(0)
    for threads, shape in itertools.product((2, 3, 7), [(784, 190, 400), (2, 4000, 4000), (200, 300, 10)]):
        a, b = rng.normal(size=shape[:2]), rng.normal(size=shape[1:])
        for out in (np.empty((shape[0], shape[2])), np.empty((shape[2], shape[0])).T):
            np.testing.assert_allclose(team(threads).matmul(a, b, out), a @ b, rtol=1e-9, atol=1e-9)


def test_what_a_thread_raises_reaches_the_caller_and_the_team_goes_on(team):
    two, a = team(2), np.ones((4000, 100))
    with pytest.raises(ValueError, match="matmul"):
        two.matmul(a, np.ones((99, 100)), np.empty((4000, 100)))
    np.testing.assert_array_equal(two.matmul(a, np.ones((100, 100)), np.empty((4000, 100))), np.full((4000, 100), 100))
