"""``python -m mlp.export``: what other programs read is the same network."""

import json
import sys

import numpy as np
import pytest

from mlp import data, load, train
from mlp.composition import compose
from mlp.export import FORMATS, to_onnx
from sweeps.runs.errors import InputError

NETWORKS = [
    ("activ=relu", "model=mlp2"),
    ("activ=sigmoid",),
    ("activ=tanh", "loss=hinge"),
    ("activ=gelu", "activ.approximate=tanh"),
    ("activ=gelu", "activ.approximate=none", "dtype=float64"),
]


@pytest.mark.heavy
@pytest.mark.parametrize("words", NETWORKS, ids=" ".join)
def test_onnxruntime_computes_the_same_from_raw_pixels(command, tmp_path, words):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    model = load(train(compose(*words, "lr=0.1", "epochs=1", f"out={out}")).path)
    done = command(model.run_id, "--to", "onnx", "net.onnx", "--out", out, module="mlp.export")
    assert (done.returncode, done.stderr) == (0, "")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    pixels = data.load("mnist", {"holdout": 0, "holdout_seed": 0}).test.x
    logits, probabilities = session.run(None, {"images": np.asarray(pixels)})
    assert probabilities.dtype == logits.dtype == np.float32
    assert np.abs(probabilities - model.predict_proba(pixels)).max() < 1e-5
    ours = model.logits(pixels)
    assert np.abs(logits - ours).max() < 1e-5 * max(1, np.abs(ours).max())  # a float32 of 20 has steps of 2e-6
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["identity"]) == model.identity
    assert (metadata["run_id"], metadata["epoch"]) == (model.run_id, "1")


@pytest.mark.heavy
def test_networks_of_floats_take_floats(small, small_npz):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = load(train(compose(*small)).path)
    with pytest.raises(InputError, match="must be uint8 or float32"):
        to_onnx(model)
    session = onnxruntime.InferenceSession(to_onnx(model, pixels=False), providers=["CPUExecutionProvider"])
    with np.load(small_npz) as file:
        logits = session.run(["logits"], {"images": file["x_test"]})[0]
        assert np.allclose(logits, model.logits(file["x_test"]), rtol=1e-5, atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_safetensors_are_the_parameters_bit_for_bit(command, small, tmp_path, dtype):
    safetensors = pytest.importorskip("safetensors")
    model = load(train(compose(*small, f"dtype={dtype}")).path)
    done = command(str(model.run.path), "--to", "safetensors", "net.safetensors", module="mlp.export")
    assert (done.returncode, done.stderr) == (0, "")
    with safetensors.safe_open(tmp_path / "net.safetensors", "np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["identity"]) == model.identity
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in read.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in model.parameters.items()
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_extra_is_one_line(real, kind, monkeypatch):
    out, run_id = real
    for module in (kind, f"{kind}.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'mlp-sweeps\[{kind}\]'"):
        FORMATS[kind](load(run_id, out), None)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("none", "--to", "onnx", "x"), 2, "no such run"),
        (("relu", "--to", "pickle", "x"), 2, "invalid choice"),
        (("relu", "--to", "safetensors", "x", "--input", "uint8"), 2, "--input=uint8: is for --to onnx"),
    ],
)
def test_unusable_words(command, real, words, status, said):
    done = command(*words, "--out", real[0], module="mlp.export")
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
