"""stats.csv beside a run's metrics.csv: one row per epoch and layer, where the configuration has ``stats=true``."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun
from sweeps.runs.files import append as append_to_file
from sweeps.runs.files import read_file, write_atomic
from sweeps.runs.metrics import to_csv


class LayerStats(NamedTuple):
    """A layer after an epoch, layers counted from 1 and epoch 0 being the initial weights.

    Gradients are of the loss alone, without weight decay. rms is the root of the mean square over all entries. The
    output layer has no activation, and NaN in the last four columns.
    """

    epoch: int
    layer: int
    weight_rms: float  # of W
    grad_rms: float  # of ∂L/∂W, L the mean loss of the probe's images
    delta_rms: float  # of ∂l/∂z, l the loss of one image and z the layer's output before its activation
    slope: float  # mean of |a'(z)| over units and images
    saturated: float  # share of units × images with |a'(z)| < mlp.probe.SATURATED; for ReLU, of activations at 0
    dead: float  # share of units that are saturated on every image
    spread: float  # rms over units of a(z)'s standard deviation over the images: what tells images apart


def path_of(run: RunDir) -> Path:
    return run.path / "stats.csv"


def read(run: RunDir) -> list[LayerStats]:
    """The complete rows in order; epochs that were trained without stats are missing.

    Raises:
        DamagedRun: the file is not a table of layers 1, 2, … of ascending epochs.
    """
    path = path_of(run)
    try:
        text = read_file(path).decode()
        header, *lines = text[: text.rfind("\n") + 1].splitlines() or [",".join(LayerStats._fields)]
        if tuple(header.split(",")) != LayerStats._fields:
            raise ValueError("unknown columns")
        rows = [_parse(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DamagedRun(f"{path}: not a table of layers ({error})") from None
    layers = max([1, *(row.layer for row in rows)])
    rows = rows[: len(rows) // layers * layers]  # an epoch's rows are written at once, but a kill may tear them
    epochs = [row.epoch for row in rows[::layers]]
    if epochs != sorted(set(epochs)) or rows != [
        row._replace(epoch=epochs[i // layers], layer=1 + i % layers) for i, row in enumerate(rows)
    ]:
        raise DamagedRun(f"{path}: layers are not 1, 2, … of ascending epochs")
    return rows


def write(run: RunDir, rows: Sequence[LayerStats]) -> None:
    """Replace the whole table."""
    write_atomic(path_of(run), to_csv([LayerStats._fields, *rows]))


def append(run: RunDir, rows: Sequence[LayerStats]) -> None:
    """Add an epoch's rows, on disk when this returns."""
    append_to_file(path_of(run), to_csv(rows))


def _parse(line: str) -> LayerStats:
    epoch, layer, *values = line.split(",")
    return LayerStats(int(epoch), int(layer), *map(float, values))
