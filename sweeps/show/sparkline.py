"""Two columns of ``ls`` in a wide terminal: the curve of a run's metric in a few characters, and its size on disk."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.runs.command import human_size
from sweeps.runs.directory import RunDir

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=+*#"
_WIDTH = 12

Column = tuple[str, list[str], bool]
"""Title, cells, and whether they are right-aligned."""


def columns(collection: Collection, runs: Sequence[str], encoding: str) -> Iterator[Column]:
    """``curve``, of the metric that the collection's runs judge by, and ``size``, in the order of ``runs``.

    Args:
        encoding: of the terminal; without block characters, the curve is ASCII.
    """
    metric, _ = summary.judged(collection)
    if metric is not None:
        epochs = collection.epochs[collection.epochs["run"].isin(list(runs))]
        found = {str(run): values.to_numpy(float) for run, values in epochs.groupby("run", observed=True)[metric]}
        levels = _levels(encoding)
        yield "curve", [sparkline(found.get(run, np.empty(0)), levels) for run in runs], False
    yield "size", [human_size(_bytes(RunDir.of(collection.out, run))) for run in runs], True


def sparkline(values: npt.NDArray[np.float64], levels: str = _BLOCKS, width: int = _WIDTH) -> str:
    """A curve in at most ``width`` characters, from its lowest value to its highest.

    Args:
        values: (epochs,); each character is the mean of as many epochs as there are to it, or a blank if none of them
            is finite. A curve that does not move is in the middle.
        levels: eight characters, the lowest first.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    parts = [part[~np.isnan(part)] for part in np.array_split(values, min(width, len(values)) or 1)]
    means = [float((part / part.size).sum()) if part.size else math.nan for part in parts]  # no sum that overflows
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return ""
    low, high = min(known), max(known)
    half = (high / 2 - low / 2) or math.inf
    top = len(levels) - 1
    places = [math.nan if math.isnan(mean) else (mean / 2 - low / 2) / half for mean in means]
    if half == math.inf:
        places = [place + 0.5 for place in places]
    return "".join(" " if math.isnan(place) else levels[round(place * top)] for place in places)


def _levels(encoding: str) -> str:
    try:
        _BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _bytes(run: RunDir) -> int:
    size = 0
    for path in run.files():
        with contextlib.suppress(OSError):  # it may have been replaced
            size += path.lstat().st_size
    return size
