"""Statistics per layer: right by hand, harmless to the training, and in step with the checkpoint."""

import numpy as np
import pytest
from test_session import arrays, measured, start

from mlp import stats
from mlp.activations import ACTIVATIONS
from mlp.composition import compose
from mlp.data import load
from mlp.losses import LOSSES
from mlp.probe import SATURATED, Probe
from mlp.trainer import Trainer
from mlp.training import train
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun


def stats_of(run):
    return run.path / "stats.csv"


def of(words):
    config = compose(*words)
    dataset = load(config.data.name, config.data.options)
    return Probe(config, dataset), Trainer(config, dataset), dataset


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activ", ACTIVATIONS)
def test_the_gradients_are_those_of_training(small, activ, loss):
    """On the same images the network's own backward pass gives ∂L/∂W; 640 training images are the whole probe."""
    words = [*small, f"activ={activ}", f"loss={loss}", "model.hidden=[16,8]", "dtype=float64", "model.init_std=0.5"]
    probe, trainer, dataset = of(words)
    network, criterion = trainer.network, trainer._loss
    rows = probe.measure(network.theta, 7)
    criterion.forward(network.forward(dataset.train.x.astype(np.float64)), dataset.train.y)
    delta = criterion.backward(1 / 640)
    output_delta = rms(delta) * 640
    network.backward(delta)
    assert [(row.epoch, row.layer) for row in rows] == [(7, 1), (7, 2), (7, 3)]
    for row, linear in zip(rows, network.linears, strict=True):
        assert row.weight_rms == pytest.approx(rms(linear.weight))
        assert row.grad_rms == pytest.approx(rms(linear.grad_weight))
    assert rows[-1].delta_rms == pytest.approx(output_delta)
    assert all(np.isnan(rows[-1][5:]))


def test_delta_by_hand(small):
    """δ₁ = (δ₂ W₂ᵀ) ⊙ σ'(z₁), each image on its own."""
    probe, trainer, dataset = of([*small, "activ=sigmoid", "dtype=float64", "model.init_std=0.7"])
    first, second = trainer.network.linears
    z = dataset.train.x.astype(np.float64) @ first.weight + first.bias
    a = 1 / (1 + np.exp(-z))
    logits = a @ second.weight + second.bias
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = a * (1 - a)
    delta = ((p - np.eye(3)[dataset.train.y]) @ second.weight.T) * slope
    row = probe.measure(trainer.network.theta, 0)[0]
    assert row.delta_rms == pytest.approx(rms(delta))
    assert row.slope == pytest.approx(slope.mean())
    assert row.saturated == pytest.approx((np.abs(z) > 4).mean(), abs=0.002)
    assert row.spread == pytest.approx(rms(a.std(axis=0)))


def test_dead_units_are_those_that_no_image_wakes(small):
    probe, trainer, dataset = of([*small, "model.init_std=0.1"])
    trainer.network.linears[0].bias[:5] = -1000
    row = probe.measure(trainer.network.theta, 0)[0]
    z = dataset.train.x @ trainer.network.linears[0].weight + trainer.network.linears[0].bias
    assert row.dead == pytest.approx((z <= 0).all(axis=0).mean()) == 5 / 16
    assert row.saturated == pytest.approx((z <= 0).mean())
    assert row.slope == pytest.approx((z > 0).mean())


def test_the_threshold_is_the_report_s():
    sigmoid = 1 / (1 + np.exp(-4.0))
    assert pytest.approx(sigmoid * (1 - sigmoid), rel=0.003) == SATURATED


@pytest.mark.parametrize("optim", ["sgd", "adam"])
def test_with_and_without_the_training_is_the_same_bit_for_bit(small, tmp_path, optim):
    for activ in ACTIVATIONS:
        words = [*small, f"activ={activ}", f"optim={optim}", "epochs=2"]
        plain, probed = train(compose(*words)), train(compose(*words, "stats=true", f"out={tmp_path / 'probed'}"))
        assert (measured(plain.path), arrays(plain.path)) == (measured(probed.path), arrays(probed.path))
        assert not stats_of(RunDir(plain.path)).exists()


def epochs(run):
    return [row.epoch for row in stats.read(run) if row.layer == 1]


def test_the_table_has_the_initial_weights_and_each_epoch(small):
    run = RunDir(train(compose(*small, "stats=true")).path)
    assert epochs(run) == [0, 1, 2, 3, 4]
    assert stats.read(run)[-1].grad_rms > 0


def test_after_kill_9_it_is_what_it_would_have_been(small, tmp_path):
    words = [*small[:-2], "bsz=5", "checkpoint_every=4", "stats=true"]
    for _ in range(2):
        process = start(*words, "epochs=10000", f"out={tmp_path / 'out'}")
        for _ in range(7):
            process.stdout.readline()
        process.kill()
        process.communicate()
    (path,) = (tmp_path / "out" / "runs").iterdir()
    run = RunDir(path)
    last = len(run.read_metrics()) + 3
    with stats_of(run).open("a") as file:  # what no checkpoint covers, and a torn row
        file.write(f"{last + 90},1,9,9,9,9,9,9,9\n{last + 90},2,9,9")
    train(compose(*words, f"epochs={last}", f"out={tmp_path / 'out'}"))
    straight = train(compose(*words, f"epochs={last}", f"out={tmp_path / 'straight'}"))
    assert stats_of(run).read_bytes() == stats_of(RunDir(straight.path)).read_bytes()
    assert epochs(run) == list(range(last + 1))


def test_a_run_that_had_none_gets_them_from_where_it_continues(small, caplog):
    train(compose(*small, "epochs=2"))
    run = RunDir(train(compose(*small, "stats=true")).path)
    assert epochs(run) == [2, 3, 4]
    assert "stats.csv lacks 2 of the epochs up to 2" in caplog.text


def test_a_finished_run_is_not_trained_again_for_them(small, command):
    assert command(*small).returncode == 0
    again = command(*small, "stats=true")
    assert again.stdout.startswith("finished already")
    assert again.stderr == "WARNING: finished, and not trained again, so it has no stats.csv; use another out=DIR\n"


HEADER = ",".join(stats.LayerStats._fields)


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "\0\n", f"{HEADER}\n1,1,x\n", f"{HEADER}\n3,1{',1' * 7}\n2,1{',1' * 7}\n"]
)
def test_a_damaged_table_is_found_and_restarted(small, content, caplog):
    run = RunDir(train(compose(*small, "epochs=2", "stats=true")).path)
    stats_of(run).write_text(content)
    with pytest.raises(DamagedRun):
        stats.read(run)
    train(compose(*small, "stats=true"))
    assert epochs(run) == [2, 3, 4]
    assert "starting it again" in caplog.text
