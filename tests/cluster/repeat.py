"""``python repeat.py TREE OUT``: trains the runs of the sweep in TREE once more, by the local pool, into OUT."""

import json
import sys
from pathlib import Path

import sweeps
from mlp import program


def main(tree: Path, out: Path) -> None:
    (manifest,) = tree.glob("sweeps/*/manifest.json")
    points = [dict(word.split("=", 1) for word in run["overrides"]) for run in json.loads(manifest.read_text())["runs"]]
    sweeps.sweep(program, *({key: value for key, value in point.items() if key != "out"} for point in points), out=out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
