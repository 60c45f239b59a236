"""The loop: bitwise determinism, what the columns mean, divergence."""

import contextlib

import numpy as np
import pytest

from mlp.data import Dataset, Split, load
from mlp.optim import OPTIMIZERS
from mlp.team import Team
from mlp.train import compose
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


WIDE = ("model.hidden=[400,300]", "bsz=200", "lr=0.05")  # work enough for two threads


@pytest.fixture
def wide():
    """Trainers of a network that is large enough for threads; their threads end with the test."""
    with contextlib.ExitStack() as stack:

        def make(threads, *words):
            config = compose(*WIDE, *words)
            rng = np.random.default_rng(0)
            y = rng.integers(0, 10, 1090)
            x = (rng.normal(size=(10, 784))[y] + rng.normal(size=(1090, 784))).astype(np.float32)
            train, test = (Split(x, y[rows], rows) for rows in (np.arange(1000), np.arange(1000, 1090)))
            made = Trainer(config, Dataset(train, test, test, 10, 784, {}), threads)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_but_rounding_and_that_always_in_the_same_way(wide, optim, threads):
    words = (f"optim={optim}", "dtype=float64", "lr=0.01", "bsz=190")  # the last batch is shorter
    one, some, again = wide(1, *words), wide(threads, *words), wide(threads, *words)
    assert (one.threads, some.threads) == (1, threads)
    for k in (1, 2):
        expected, found, repeated = one.epoch(k), some.epoch(k), again.epoch(k)
        np.testing.assert_allclose(found[:7], expected[:7], rtol=1e-9)
        assert found[:7] == repeated[:7]
    np.testing.assert_allclose(some.network.theta, one.network.theta, rtol=1e-7, atol=1e-12)
    assert some.network.theta.tobytes() == again.network.theta.tobytes()


def test_a_small_network_uses_one_thread(small):
    config = compose(*small)
    assert Trainer(config, load(config.data.name, config.data.options), threads=8).threads == 1


def test_divergence_is_found_on_every_thread_without_a_warning(wide):
    with pytest.raises(Diverged):
        wide(2, "lr=1e30").epoch(1)


def test_what_a_thread_raises_reaches_the_caller_and_the_team_goes_on():
    team = Team(helpers=2)

    def task(k):
        if k == 2:
            raise ValueError("part 2")

    for _ in range(2):
        team.begin(task)
        with pytest.raises(ValueError, match="part 2"):
            team.finish()
    done = []
    team.begin(done.append)
    team.finish()
    team.close()
    assert sorted(done) == [1, 2]
