"""The items of many runs as one table, for resampling runs and items: a bootstrap of seeds × test images."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.runs import outcomes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.schema import suggest

log = logging.getLogger(__name__)


def load(out: Path, epochs: Mapping[str, int], name: str) -> pd.DataFrame:
    """One row per run, its id the index, and one column per item, from 0.

    Args:
        out: the results tree.
        epochs: run's id → the epoch whose items are wanted.
        name: as they were logged.

    Returns:
        The runs in the order of ``epochs``; without those that logged no such items, or whose items are damaged or of
        another epoch, which are named in the log.

    Raises:
        InputError: no run has such items, or two have other numbers of them: they are not of the same test set.
    """
    found, known = {}, set()
    for run, epoch in epochs.items():
        try:
            kept = outcomes.load(RunDir.of(out, run))
        except DamagedRun as damage:
            log.warning("%s", damage)
            continue
        if kept is None:
            continue
        known |= set(kept.arrays)
        if name in kept.arrays and kept.epoch != epoch:
            log.warning("%s: its items are of epoch %d, not %d", run, kept.epoch, epoch)
        elif name in kept.arrays:
            found[run] = kept.arrays[name]
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise InputError("items", printable(name), f"no run has logged them{suggest(name, known)}; known: {names}")
    counts = {len(array): run for run, array in found.items()}
    if len(counts) > 1:
        (a, one), (b, other) = list(counts.items())[:2]
        raise InputError("items", name, f"{one} has {a} and {other} has {b}: choose runs of the same data")
    table = np.stack([*found.values()]) if found else np.empty((0, 0), bool)
    return pd.DataFrame(table, index=pd.Index([*found], dtype="str", name="run"))
