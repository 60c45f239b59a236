"""The steps of many runs as one table: what was logged several times within an epoch, such as means of some batches."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun
from sweeps.runs.metrics import NAME

log = logging.getLogger(__name__)

_MOST_CELLS = 2**24  # of one run, which is not trusted: a name in a single row is a column


def load(out: Path, epochs: Mapping[str, int]) -> pd.DataFrame:
    """The steps of runs, up to an epoch of each.

    Args:
        out: the results tree.
        epochs: run's id → its last epoch to be read.

    Returns:
        Columns run, epoch, step (both from 1), then every metric that has steps, NaN where a run has none; in the
        order of ``epochs``. A run without steps has no rows; one with a damaged table neither, and is named in the log.
    """
    found = []
    for name, last in epochs.items():
        try:
            found.append(_table(RunDir.of(out, name), last))
        except DamagedRun as damage:
            log.warning("%s", damage)
    found = [table for table in found if len(table)]
    if not found:
        return pd.DataFrame({"run": pd.Series(dtype="str"), "epoch": [], "step": []}).astype(_WHOLE)
    return pd.concat(found, ignore_index=True)


_WHOLE = {"epoch": "int64", "step": "int64"}


def _table(run: RunDir, last: int) -> pd.DataFrame:
    rows = [row for row in run.read_steps(run.read_status()) if row[0] <= last]
    places = list(dict.fromkeys(row[:2] for row in rows))
    columns: dict[str, dict[tuple[int, int], float]] = {}
    for epoch, step, name, value in rows:
        columns.setdefault(name, {})[epoch, step] = value
    if len(places) * len(columns) > _MOST_CELLS:
        raise DamagedRun(f"{run.steps}: {len(columns)} metrics at {len(places)} steps are too many to be read")
    if not all(map(NAME.fullmatch, columns)) or not all(epoch > 0 < step < 2**53 for epoch, step in places):
        raise DamagedRun(f"{run.steps}: not a table of steps (a metric's name, or an epoch or step that is none)")
    if sum(map(len, columns.values())) < len(rows):
        raise DamagedRun(f"{run.steps}: not a table of steps (one is there twice)")
    places.sort()
    table = {name: [values.get(place, float("nan")) for place in places] for name, values in columns.items()}
    head = {"run": run.path.name, "epoch": [epoch for epoch, _ in places], "step": [step for _, step in places]}
    return pd.DataFrame({**head, **table}).astype({"run": "str", **_WHOLE})
