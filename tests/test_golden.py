"""Two short runs on real MNIST against the metrics that are committed in tests/golden.

    python tests/test_golden.py            train both; print the largest differences from what is committed
    python tests/test_golden.py --write    commit to new numbers

Other processors round differently, and training amplifies that, so equality is only up to a tolerance. Measured
from an AVX-512 machine (numpy 2.4, OpenBLAS 0.3.31) by OPENBLAS_CORETYPE=SkylakeX, Haswell, Sandybridge, Nehalem and
Prescott, each with NPY_DISABLE_CPU_FEATURES empty, "X86_V4 AVX512_ICL" and "X86_V3 X86_V4 AVX512_ICL", and by
threads=1, 2, 3: losses differ by at most 1.1e-15 in the float64 run and 2.0e-6 in the float32 run, relatively;
accuracies never do. :data:`TOLERANCE` is about ten times that in float32, and in float64 far above it and far below
any change of the arithmetic. ReLU is in float64 since in float32 at this learning rate its kinks amplify rounding to
8 % of a loss in three epochs; GeLU's slope has none.
"""

import csv
import sys
import tempfile
from pathlib import Path

import pytest

from mlp.composition import compose
from mlp.epochs import Epoch
from mlp.training import train

FOLDER = Path(__file__).parent / "golden"
RUNS = {
    "relu-ce-sgd": ("activ=relu", "loss=ce", "lr=0.1", "dtype=float64"),
    "gelu-euclidean-adam": ("activ=gelu", "loss=euclidean", "optim=adam", "lr=0.001", "wd=0.0001"),
}
TOLERANCE = {"relu-ce-sgd": (1e-12, 0), "gelu-euclidean-adam": (2e-5, 0.02)}  # of losses; of accuracies, in points
COLUMNS = Epoch._fields[:7]  # without the clock's


def run(name, out, *more):
    """The columns of metrics.csv, as written."""
    words = ("model.hidden=[64]", "epochs=3", "seed=0", "threads=1", f"out={out}")
    with open(train(compose(*RUNS[name], *words, *more)).path / "metrics.csv", newline="") as file:
        return [[row[column] for column in COLUMNS] for row in csv.DictReader(file)]


def golden(name):
    with open(FOLDER / f"{name}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    return rows


def differences(rows, expected):
    """The largest relative difference of a loss, and the largest of an accuracy in points, each epoch."""
    table = []
    for row, known in zip(rows, expected, strict=True):
        assert row[0] == known[0]
        a, b = ([float(value) for value in line[1:]] for line in (row, known))
        losses = max(abs(x - y) / y for x, y in zip(a[::2], b[::2], strict=True))
        table.append((losses, max(abs(x - y) for x, y in zip(a[1::2], b[1::2], strict=True))))
    return table


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_gives_the_committed_metrics(name, tmp_path):
    loss, points = map(max, zip(*differences(run(name, tmp_path), golden(name)), strict=True))
    assert loss <= TOLERANCE[name][0]
    assert points <= TOLERANCE[name][1]


def main(*words):
    for name in RUNS:
        with tempfile.TemporaryDirectory() as out:
            rows = run(name, out, *[word for word in words if word != "--write"])
        if "--write" in words:
            with open(FOLDER / f"{name}.csv", "w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        found = ", ".join(f"{loss:.1e} {points:.3f}" for loss, points in differences(rows, golden(name)))
        print(f"{name}: relative difference of losses and points of accuracy by epoch: {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
