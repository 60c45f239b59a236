"""Figures of a network's inside, from real short runs; checkpoints are not trusted."""

import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mlp import stats, train
from mlp.composition import compose
from mlp.inspect import diagnostics
from mlp.inspect.restore import layer_stats, restore
from sweeps.cli import main
from sweeps.read.collect import load
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two nets on 5 × 5 images, trained by the command line: (the words, the results tree)."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 25)).astype(np.float32), rng.integers(0, 3, 200)
    x[np.arange(200), y] += 3
    np.savez(folder / "squares.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    words = ["data=npz", f"data.path={folder}/squares.npz", "model.hidden=[16,8]", "bsz=50", "epochs=3", "threads=1"]
    for activ in ("relu", "sigmoid"):
        more = [f"activ={activ}", "stats=true", f"out={folder}/out"]
        subprocess.run([sys.executable, "-m", "mlp.train", *words, *more], check=True, capture_output=True)
    return words, folder / "out"


@pytest.fixture
def trained(original, tmp_path):
    """A copy of the results tree, to be damaged."""
    return shutil.copytree(original[1], tmp_path / "out")


@pytest.fixture
def squares(original, tmp_path):
    """The words that train more in that copy."""
    return [*original[0], f"out={tmp_path / 'out'}"]


def run_of(out, activ):
    (path,) = (out / "runs").glob(f"{activ}-*")
    return RunDir(path)


def test_the_commands_draw(trained, capsys):
    (relu, sigmoid) = (run_of(trained, activ).path.name for activ in ("relu", "sigmoid"))
    for words, stem in (
        (["gradients"], "gradients"),
        (["weights", "relu", "--units", "7"], f"weights-{relu}"),
        (["landscape", "relu", sigmoid], "landscape"),
    ):
        assert main([*words, "--out", str(trained)]) == 0
        files = [f"{trained}/figures/{stem}.{kind}" for kind in ("png", "svg", "pdf")]
        assert capsys.readouterr().out.splitlines() == files


def test_gradients_shows_what_stats_csv_holds(trained):
    collection = load(trained)
    figure = diagnostics.gradients(collection)
    table = layer_stats(collection)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert titles == ["relu", "sigmoid"]
    for place, activ in enumerate(("relu", "sigmoid")):
        axes = figure.axes[2 + place]  # second row: rms ∂L/∂W
        for layer, line in enumerate(axes.get_lines(), start=1):
            expected = [row.grad_rms for row in stats.read(run_of(trained, activ)) if row.layer == layer]
            np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), expected)
        assert layer == 3
    assert set(table["epoch"]) == {0, 1, 2, 3}
    assert set(layer_stats(load(trained, epochs=1))["epoch"]) == {0, 1}


def test_gradients_says_what_is_missing(trained, squares, capsys):
    train(compose(*squares, "activ=tanh"))
    assert any(
        "1 of the runs chosen have no stats" in text.get_text() for text in diagnostics.gradients(load(trained)).texts
    )
    assert main(["gradients", "activ=tanh", "--out", str(trained)]) == 2
    assert "train with stats=true" in capsys.readouterr().err
    for seed in range(4):
        train(compose(*squares, f"lr=0.0{seed + 2}", "stats=true"))
    assert main(["gradients", "--out", str(trained)]) == 2
    assert "at most 4 fit; choose some by activ, lr" in capsys.readouterr().err


def test_restore_has_both_ends_of_the_training(trained, squares):
    network = restore(run_of(trained, "relu"))
    assert network.epoch == 3
    config = compose(*squares, "activ=relu", f"out={trained / 'begin'}")
    rows = [row for row in stats.read(run_of(trained, "relu")) if row.epoch in (0, 3)]
    parameters = [np.split(theta, [25 * 16])[0] for theta in (network.initial, network.trainer.network.theta)]
    for weight, row in zip(parameters, (rows[0], rows[3]), strict=True):
        assert np.sqrt(np.mean(weight.astype(float) ** 2)) == pytest.approx(row.weight_rms)
    assert network.config.run_id == config.run_id
    history = run_of(trained, "relu").read_metrics()
    assert network.trainer.evaluate(network.dataset.test) == pytest.approx(
        (history[-1].test_loss, history[-1].test_acc)
    )


def test_the_landscape_goes_through_both_ends(trained):
    network = restore(run_of(trained, "relu"))
    end = network.trainer.network.theta.copy()
    losses = dict(zip(diagnostics._ALPHAS.round(6), diagnostics._along(network, "test"), strict=True))
    assert losses[1.0] == pytest.approx(run_of(trained, "relu").read_metrics()[-1].test_loss, rel=1e-5)
    np.testing.assert_array_equal(network.trainer.network.theta, end)
    network.trainer.network.theta[:] = network.initial
    assert losses[0.0] == pytest.approx(network.trainer.evaluate(network.dataset.test)[0])


def test_the_landscape_of_two_kinds_of_loss_is_refused(trained, squares, capsys):
    train(compose(*squares, "loss=hinge"))
    networks = [restore(run_of(trained, "relu-ce"))]
    with pytest.raises(InputError, match="losses of different kinds"):
        diagnostics.landscape([*networks, restore_with_path(run_of(trained, "relu-hinge"), networks[0])])


def restore_with_path(run, other):
    """A run that was trained without Hydra has no record of its data's place; borrow one."""
    shutil.copytree(other.config.out / "runs" / other.config.run_id / ".hydra", run.path / ".hydra")
    return restore(run)


def test_weights_of_inputs_that_are_no_images(small, capsys):
    result = train(compose(*small))  # 20 features
    with pytest.raises(InputError, match=r"data\.path"):
        restore(RunDir(result.path))
    (result.path / ".hydra").mkdir()
    (result.path / ".hydra" / "config.yaml").write_text(f"data: {{path: '{small[1].partition('=')[2]}'}}\n")
    with pytest.raises(InputError, match="not square images: 20 features"):
        diagnostics.weights(restore(RunDir(result.path)))


@pytest.mark.parametrize("damage", ["absent", "torn", "pickle", "other", "nan", "huge"])
def test_a_checkpoint_that_is_none_is_one_line(trained, capsys, damage):
    path = run_of(trained, "relu").checkpoint
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "absent":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "pickle":
        np.savez(path, **arrays | {"W1": np.array([print] * 10_000, object)}, allow_pickle=True)
    elif damage == "other":
        np.savez(path, **arrays | {"W1": np.zeros((25, 17), np.float32)})
    elif damage == "nan":
        np.savez(path, **arrays | {"W1": np.full((25, 16), np.nan, np.float32)})
    else:
        content = arrays["W1"].tobytes()
        head = np.lib.format.magic(1, 0)
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**13},), }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as file:
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w") as entry:
                    if name == "W1":
                        entry.write(head + len(text).to_bytes(2, "little") + text.encode() + content)
                    else:
                        np.lib.format.write_array(entry, array)
    assert main(["weights", "relu", "--out", str(trained)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_data_that_changed_are_found_out(trained, squares, tmp_path):
    path = squares[1].partition("=")[2]
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(tmp_path / "other.npz", **arrays | {"x_train": arrays["x_train"] + 1})
    record = run_of(trained, "relu").path / ".hydra" / "config.yaml"
    record.write_text(record.read_text().replace(path, str(tmp_path / "other.npz")))
    with pytest.raises(DamagedRun, match="data have changed"):
        restore(run_of(trained, "relu"))
