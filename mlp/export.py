"""``python -m mlp.export RUN --to onnx|safetensors FILE``: a trained network for other programs.

onnx          a graph from raw pixels to logits and probabilities, for any runtime of ONNX (opset 20)
safetensors   the parameters by name, bit for bit
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlp.model import Model, load
from sweeps.runs import command, extras
from sweeps.runs.errors import InputError, printable
from sweeps.runs.files import write_atomic

_OPSET = 20  # the first with Gelu
_NODES: Mapping[str, str] = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu"}


def to_onnx(model: Model, pixels: bool | None = None) -> bytes:
    """An ONNX model: input ``images`` (N, features), outputs ``logits`` and ``probabilities`` (N, classes), float32.

    uint8 pixels are scaled inside the graph, (pixel − 128) / 255; floats go in as they are. Everything is computed in
    float32, for any dtype of the run. The run's id, epoch and identity are in the metadata.

    Args:
        pixels: whether the input is uint8 or float32; needed only for a run on data=npz.

    Raises:
        InputError: onnx is not installed, or ``pixels`` is needed and missing.
    """
    onnx = extras.load("onnx", extra="onnx", field="--to", value="onnx")
    helper, tensor = onnx.helper, onnx.TensorProto
    pixels = model.on_pixels if pixels is None else pixels
    if pixels is None:
        raise InputError("--input", "", "must be uint8 or float32, since the run does not record the type of data=npz")
    if model.on_pixels and not pixels:
        raise InputError("--input", "float32", "must be uint8, since this run was trained on it")

    constants: dict[str, Any] = {name: array.astype(np.float32) for name, array in model.parameters.items()}
    nodes, x = [], "images"
    if pixels:
        constants |= {"middle": np.float32(128), "scale": np.float32(1) / np.float32(255)}
        nodes += [
            helper.make_node("Cast", ["images"], ["numbers"], to=tensor.FLOAT),
            helper.make_node("Sub", ["numbers", "middle"], ["centred"]),
            helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        ]
        x = "scaled"
    options = {key: value for key, value in model.identity["activ"].items() if key != "name"}
    last = len(model.parameters) // 2
    for i in range(1, last + 1):
        z = "logits" if i == last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [x, f"W{i}", f"b{i}"], [z]))
        if i < last:
            nodes.append(helper.make_node(_NODES[model.identity["activ"]["name"]], [z], [f"a{i}"], **options))
        x = f"a{i}"
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))

    inside = helper.make_tensor_value_info(
        "images", tensor.UINT8 if pixels else tensor.FLOAT, ["N", model.features], "(pixel - 128) / 255 inside"
    )
    outside = [
        helper.make_tensor_value_info(name, tensor.FLOAT, ["N", model.classes]) for name in ("logits", "probabilities")
    ]
    initial = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, model.run_id, [inside], outside, initial)
    opset = helper.make_opsetid("", _OPSET)
    whole = helper.make_model(
        graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]), producer_name="mlp-sweeps"
    )
    helper.set_model_props(whole, _metadata(model))
    onnx.checker.check_model(whole, full_check=True)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def to_safetensors(model: Model, pixels: bool | None = None) -> bytes:
    """``W1`` (fan_in, fan_out), ``b1`` (fan_out,), … in the run's dtype; its id, epoch and identity in the metadata.

    Args:
        pixels: not used here; must be None.

    Raises:
        InputError: safetensors is not installed.
    """
    if pixels is not None:
        raise InputError("--input", "uint8" if pixels else "float32", "is for --to onnx")
    numpy = extras.load("safetensors.numpy", extra="safetensors", field="--to", value="safetensors")
    content: bytes = numpy.save(dict(model.parameters), metadata=_metadata(model))
    return content


FORMATS: Mapping[str, Callable[[Model, bool | None], bytes]] = {"onnx": to_onnx, "safetensors": to_safetensors}


def _metadata(model: Model) -> dict[str, str]:
    return {"run_id": model.run_id, "epoch": str(model.epoch), "identity": json.dumps(model.identity, sort_keys=True)}


def main() -> None:
    """The command line; see :func:`sweeps.runs.command.run` for the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlp.export", description="A trained network for other programs.")
    parser.add_argument("run", metavar="RUN", help="id, its beginning, or a path")
    parser.add_argument("file", metavar="FILE", type=Path, help="replaced if it exists")
    parser.add_argument("--to", choices=FORMATS, required=True)
    parser.add_argument("--input", choices=("uint8", "float32"), help="of the graph, for a run on data=npz")
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="results tree (outputs)")
    sys.exit(command.run(lambda: _export(parser.parse_args())))


def _export(args: argparse.Namespace) -> None:
    model = load(args.run, args.out)
    content = FORMATS[args.to](model, None if args.input is None else args.input == "uint8")
    write_atomic(args.file, content)
    print(model)
    print(f"{printable(str(args.file))}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
