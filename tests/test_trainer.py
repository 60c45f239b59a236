"""The loop: bitwise determinism, what the columns mean, divergence."""

import contextlib
import gc
import weakref

import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_limits

from mlp.composition import compose
from mlp.data import Batches, Dataset, Split, load
from mlp.epochs import windows
from mlp.losses import LOSSES
from mlp.optim import OPTIMIZERS
from mlp.trainer import Trainer
from sweeps.runs.errors import Diverged


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


def test_a_closed_one_is_freed_at_once(small):
    gc.disable()  # of a worker's hundreds of runs each would wait for a full collection
    try:
        t = trainer(*small)
        t.epoch(1)
        t.close()
        left = [weakref.ref(t), weakref.ref(t.network)]
        del t
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


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
def wide():
    """Makes trainers whose network is large enough to be shared; their helpers end with the test."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 1090)
    x = (rng.normal(size=(10, 784))[y] + rng.normal(size=(1090, 784))).astype(np.float32)
    train, test = (Split(x, y[rows], rows) for rows in (np.arange(1000), np.arange(1000, 1090)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(threadpool_limits(1, user_api="blas"))  # as a run has it

        def make(threads, *words):
            config = compose("model.hidden=[400,300]", "bsz=190", "lr=0.01", *words)  # the last batch is shorter
            made = Trainer(config, Dataset(train, test, test, 10, 784, {}), threads)
            return stack.enter_context(contextlib.closing(made))

        yield make


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_but_rounding_and_that_always_in_the_same_way(wide, threads, optim):
    one, some, again = (wide(n, "dtype=float64", f"optim={optim}") for n in (1, threads, threads))
    assert (one.members, some.members) == (1, threads)
    for k in (1, 2):
        expected, found, repeated = one.epoch(k), some.epoch(k), again.epoch(k)
        np.testing.assert_allclose(found[:7], expected[:7], rtol=1e-8)
        assert found[:7] == repeated[:7]
    np.testing.assert_allclose(some.network.theta, one.network.theta, rtol=1e-6, atol=1e-9)
    assert some.network.theta.tobytes() == again.network.theta.tobytes()
    for name, array in some.optimizer.state.items():  # which a checkpoint holds
        np.testing.assert_allclose(array, one.optimizer.state[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("hidden", ["[400]", "[1,2000]", "[200,40,30]"])
def test_networks_of_any_shape_can_be_shared(wide, hidden):
    words = ("dtype=float64", f"model.hidden={hidden}")
    one, three = wide(1, *words), wide(3, *words)
    assert three.members == 3
    assert three.epoch(1)[:7] == pytest.approx(one.epoch(1)[:7], rel=1e-12)
    np.testing.assert_allclose(three.network.theta, one.network.theta, rtol=1e-9, atol=1e-15)


def test_a_batch_of_one_leaves_nothing_to_the_others(wide):
    one, two = wide(1, "dtype=float64"), wide(2, "dtype=float64")
    for index in (np.array([5]), np.array([7, 3, 1])):
        assert two.train(index) == pytest.approx(one.train(index), rel=1e-12)
    np.testing.assert_allclose(two.network.theta, one.network.theta, rtol=1e-9, atol=1e-15)


def test_any_split_can_be_evaluated_by_any_number(wide):
    one, two = wide(1, "dtype=float64"), wide(2, "dtype=float64")
    own = one._dataset.train
    for split in (own, Split(own.x, own.y[:77], own.rows[:77])):
        assert two.evaluate(split) == pytest.approx(one.evaluate(split), rel=1e-12)


def test_a_small_network_or_batch_is_not_shared(small):
    config = compose(*small)
    assert Trainer(config, load(config.data.name, config.data.options), 8).members == 1


def test_velocities_that_move_nothing_do_not_stay_subnormal():
    config = compose("model.hidden=[8]", "lr=0.1", "wd=0", "mo=0.9", "bsz=10")
    rng = np.random.default_rng(0)
    split = Split(rng.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 3, np.arange(40))
    t = Trainer(config, Dataset(split, split, split, 3, 5, {}))
    t.network.linears[0].bias[:4] = -1000  # these units are dead
    (velocity,) = t.optimizer.state.values()
    velocity[:] = 1e-42
    t.epoch(1)
    assert np.count_nonzero(velocity)
    assert not np.any((velocity != 0) & (np.abs(velocity) < np.finfo(np.float32).tiny))


def test_divergence_on_several_threads_is_found_without_a_warning(wide):
    with pytest.raises(Diverged):
        wide(2, "lr=1e30").epoch(1)


def helpers():
    return psutil.Process().children()


def test_the_death_of_a_helper_is_noticed(wide):
    before = set(helpers())
    trainer = wide(3)
    trainer.train(np.arange(190))
    (victim, _) = sorted(set(helpers()) - before, key=lambda process: process.pid)
    victim.kill()
    with pytest.raises(ChildProcessError, match=f"helper process {victim.pid} has died"):
        trainer.train(np.arange(190))
    trainer.close()
    assert set(helpers()) == before


def test_what_a_member_raises_leaves_the_team_in_step(wide, monkeypatch):
    trainer, undisturbed = wide(2), wide(2)

    def interrupt(layer, z):
        raise KeyboardInterrupt

    with monkeypatch.context() as here:
        here.setattr(trainer.network, "forward_from", interrupt)  # not in the helper, as a signal comes to us alone
        with pytest.raises(KeyboardInterrupt):
            trainer.train(np.arange(190))
    assert trainer.train(np.arange(190)) == undisturbed.train(np.arange(190))


@pytest.mark.parametrize("threads", [1, 2])
def test_windows_are_means_over_fifty_batches_and_the_last_is_shorter(wide, threads):
    trainer, batchwise = wide(threads), wide(threads)
    index = np.random.default_rng(1).integers(0, 1000, 190 * 119 + 7)  # two windows of 50 batches, and 19 and one of 7
    batches = [index[start : start + 190] for start in range(0, len(index), 190)]
    measured = [(*batchwise.train(batch), len(batch)) for batch in batches]
    total, correct = trainer.train(index)
    assert [len(batches[start : start + 50]) for start in (0, 50, 100)] == [50, 50, 20]
    for window, start in zip(trainer.windows, (0, 50, 100), strict=True):
        loss, right, images = np.sum(measured[start : start + 50], axis=0)
        assert window == pytest.approx((loss / images, 100 * right / images), rel=1e-12)
    images = [50 * 190, 50 * 190, 19 * 190 + 7]
    assert np.dot([window.window_train_loss for window in trainer.windows], images) == pytest.approx(total, rel=1e-12)
    assert np.dot([window.window_train_acc for window in trainer.windows], images) == pytest.approx(100 * correct)


def test_windows_of_other_batches_are_of_so_many_batches_all_the_same():
    assert [len(windows([(1.0, 1, 2)] * count)) for count in (0, 1, 50, 51, 300)] == [0, 1, 1, 2, 6]
    assert windows([(3.0, 1, 2), (1.0, 1, 6)]) == [(0.5, 25.0)]
