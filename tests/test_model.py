"""A trained network loaded to be used: it computes what training measured, and believes nothing in its directory."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from threadpoolctl import threadpool_limits

import mlp
from mlp import data
from mlp.activations import ACTIVATIONS
from mlp.composition import compose
from mlp.losses import LOSSES
from mlp.training import train
from sweeps.runs.checkpoint import _seal
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.identity import digest
from sweeps.runs.reading import read_identity


@pytest.fixture
def run(small):
    """A small run of this test's own."""
    return RunDir(train(compose(*small)).path)


@pytest.fixture
def clouds(small_npz):
    with np.load(small_npz) as file:
        return dict(file)


def test_two_lines_on_real_mnist_compute_what_training_measured(real):
    out, run_id = real
    model = mlp.load(out / "runs" / run_id)
    test = data.load("mnist", {"holdout": 0, "holdout_seed": 0}).test
    predicted = model.predict(test.x.reshape(-1, 28, 28))
    row = RunDir(out / "runs" / run_id).read_metrics()[-1]
    assert 100 * np.count_nonzero(predicted == test.y) / len(test) == row.test_acc
    assert (model.features, model.classes, model.epoch, model.state) == (784, 10, 2, "finished")
    assert repr(model) == f"<Model {run_id}: 784–360–10, epoch 2, finished>"
    probabilities = model.predict_proba(test.x[:7])
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == predicted[:7]).all()


def test_pixels_floats_and_flat_images_are_one_and_others_are_refused(real):
    out, run_id = real
    model = mlp.load(run_id, out)
    pixels = data.load("mnist", {"holdout": 0, "holdout_seed": 0}).test.x[:50]
    scaled = (pixels.astype(np.float32) - 128) * np.float32(1 / 255)
    assert np.allclose(model.logits(pixels), model.logits(scaled.reshape(-1, 28, 28)), atol=1e-5)
    assert model.logits(pixels[:0]).shape == (0, 10)
    for images, said in [
        (pixels / 255, "(pixel − 128) / 255"),
        (pixels.astype(float), "(pixel − 128) / 255"),
        (pixels.astype(int), "must be uint8 pixels"),
        (pixels[:, :-1], "(n, 28, 28)"),
        (pixels[0], "(n, 28, 28)"),
        (np.full((1, 784), np.nan), "finite"),
    ]:
        with pytest.raises(InputError) as caught:
            model.predict(images)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("activ", "loss", "dtype"),
    [*((activ, "ce", "float32") for activ in ACTIVATIONS), *(("tanh", loss, "float64") for loss in LOSSES)],
)
def test_every_network_gives_its_last_row_exactly(small, clouds, activ, loss, dtype):
    config = compose(*small, "epochs=1", "model.hidden=[16,8]", f"activ={activ}", f"loss={loss}", f"dtype={dtype}")
    result = train(config)
    model = mlp.load(result.path)
    with threadpool_limits(1, user_api="blas"):
        logits, labels = model.logits(clouds["x_test"]), clouds["y_test"]
    measured = LOSSES[loss].build(**config.loss.options).forward(logits.copy(order="F"), labels) / len(labels)
    assert (measured, 100 * np.count_nonzero(logits.argmax(axis=1) == labels) / len(labels)) == (
        result.last.test_loss,
        result.last.test_acc,
    )


def test_by_id_beginning_path_and_directory(run):
    out, run_id = run.path.parent.parent, run.path.name
    for name, tree in ((run_id, out), (run_id[:12], str(out)), (str(run.path), "none"), (run.path, "none"), (run, "")):
        assert mlp.load(name, tree).run_id == run_id
    with pytest.raises(InputError, match="no such run"):
        mlp.load("nothing", out)


def test_an_interrupted_run_says_its_epoch(small, run):
    longer = compose(*small, "epochs=9")

    def stop(row):
        if row.epoch == 6:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        train(longer, on_epoch=stop)
    model = mlp.load(run.path)
    assert (model.epoch, model.state) == (6, "failed")
    run.checkpoint.unlink()
    with pytest.raises(InputError, match="not one epoch is complete"):
        mlp.load(run.path)


def members(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def rewritten(run, **changes):
    """With the right checksum, as anybody could write it."""
    arrays = members(run.checkpoint) | {"state.json": None, "columns": None} | changes
    np.savez(run.checkpoint, **{name: array for name, array in arrays.items() if array is not None})
    seal(run.checkpoint)


def seal(path):
    path.write_bytes(_seal(path.read_bytes(), path.parent.name))


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def lying_header(shape):
    """An .npz whose W1 promises more than it holds."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.checkpoint.write_bytes(b""),
        lambda run: run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-100]),
        lambda run: run.checkpoint.write_bytes(run.checkpoint.read_bytes().replace(b"W1.npy", b"X1.npy")),
        lambda run: rewritten(run, W1=np.array([Bomb()], object)),
        lambda run: rewritten(run, W1=np.zeros((20, 15), np.float32)),
        lambda run: rewritten(run, W1=np.zeros((20, 16), np.float64)),
        lambda run: rewritten(run, b2=np.zeros((), np.float32)),
        lambda run: rewritten(run, W2=None),
        lambda run: rewritten(run, W3=np.zeros((3, 3), np.float32), b3=np.zeros(3, np.float32)),
        lambda run: rewritten(run, history=None),
        lambda run: run.config.write_text("a: &x [1]\nb: *x\n"),
        lambda run: run.config.write_text("!!python/object/apply:os.system ['touch exploded']"),
        lambda run: run.config.write_text(run.config.read_text().replace("seed: 0", "seed: 1")),
        lambda run: run.config.unlink(),
        lambda run: run.status.write_text("{"),
        lambda run: run.status.unlink(),
        lambda run: (run.config.unlink(), os.mkfifo(run.config)),
        lambda run: (run.checkpoint.unlink(), os.mkfifo(run.checkpoint)),
    ],
)
def test_damage_is_named(run, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    damage(run)
    with pytest.raises(DamagedRun) as caught:
        mlp.load(run.path)
    assert str(caught.value).startswith(f"{run.path.name}: ")
    assert not Path("exploded").exists()


def test_a_header_s_size_is_not_believed(run):
    np.savez(run.checkpoint, **members(run.checkpoint))
    with zipfile.ZipFile(run.checkpoint, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("W1.npy", lying_header((10**9, 10**3)))
    seal(run.checkpoint)
    with pytest.raises(DamagedRun, match="promises"):
        mlp.load(run.path)


def test_a_configuration_s_sizes_are_not_believed(run):
    identity = read_identity(run)
    identity["model"]["hidden"] = [100_000] * 100
    path = run.path.with_name(f"relu-ce-wide-{digest(identity)[:10]}")
    run.path.rename(path)
    rewritten(RunDir(path))
    (path / "config.yaml").write_text(yaml.safe_dump(identity))
    with pytest.raises(DamagedRun, match="not the network"):
        mlp.load(path)


def test_an_identity_of_no_network_is_damage(run):
    identity = read_identity(run)
    identity["activ"]["name"] = "gelu\x1b[31m"
    path = run.path.with_name(f"gelu\x1b[31m-ce-16-{digest(identity)[:10]}")
    run.path.rename(path)
    rewritten(RunDir(path))
    (path / "config.yaml").write_text(json.dumps(identity))
    with pytest.raises(DamagedRun, match="must be one of") as caught:
        mlp.load(path)
    assert "\x1b" not in str(caught.value)


def test_the_function_and_the_command_share_a_name(small):
    """However they were imported, ``mlp.train`` trains; and what the process had of Hydra's is left as it was."""
    code = f"""
import hydra, mlp.train
from hydra.core.global_hydra import GlobalHydra
from mlp import compose, train
hydra.initialize(version_base="1.3")
mine = GlobalHydra.instance().hydra
print(train(compose(*{small!r})).last.epoch, GlobalHydra.instance().hydra is mine)
from mlp.train import main
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "4 True\n"
