"""``python -m mlp.predict RUN IMAGE …``: classify image files with a trained network."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from mlp.model import load
from sweeps.runs import command
from sweeps.runs.errors import printable


def main() -> None:
    """The command line; see :func:`sweeps.runs.command.run` for the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mlp.predict",
        description="Classify image files of any size with a trained network, dark on light or light on dark.",
    )
    parser.add_argument("run", metavar="RUN", help="id, its beginning, or a path")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="results tree (outputs)")
    parser.add_argument("--json", action="store_true", help="full precision, for programs")
    sys.exit(command.run(lambda: _predict(parser.parse_args())))


def _predict(args: argparse.Namespace) -> None:
    from mlp.images import prepare

    model = load(args.run, args.out)
    pixels = np.stack([prepare(path, model.identity["data"]["name"]) for path in args.images])
    probabilities = model.predict_proba(pixels)
    if args.json:
        answers = [
            {"image": str(path), "class": int(row.argmax()), "probabilities": row.tolist()}
            for path, row in zip(args.images, probabilities, strict=True)
        ]
        print(json.dumps(answers, indent=1))
        return
    print(model)
    header = ["image", "class", *(f"p({k})" for k in range(model.classes))]
    rows = [
        [printable(str(path)), row.argmax(), *(f"{p:.3f}" for p in row)]
        for path, row in zip(args.images, probabilities, strict=True)
    ]
    print(command.aligned([header, *rows]))


if __name__ == "__main__":
    main()
