"""Runs that exist already, told to a tracker as if it had watched them; what it knows already is left out."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sweeps.read.collect import Collection
from sweeps.runs.directory import Epoch, RunDir
from sweeps.runs.identity import flatten
from sweeps.runs.reading import read_identity
from sweeps.runs.trackers import TRACKERS, require

TARGETS = ("mlflow", "tensorboard")  # wandb cannot be asked offline what it has


class ExportError(Exception):
    """The tracker failed; the message says with what, and how far it got."""


def export(collection: Collection, name: str, *, say: Callable[[str], None], **options: Any) -> int:
    """Tell the tracker ``name`` of every run but those that are being trained.

    Args:
        say: called with a line for each run that is left out.
        options: of the tracker, as in conf/tracker/.

    Returns:
        How many runs were told.

    Raises:
        InputError: its package is not installed.
        ExportError: it failed; the same command goes on from there.
        DamagedRun, OSError: a run's configuration cannot be read.
    """
    require(name)
    histories = {str(run): rows for run, rows in collection.epochs.groupby("run")}
    nothing, told = collection.epochs.head(0), 0
    for run in collection.runs.itertuples():
        if run.state == "running":
            say(f"{run.run} is being trained; export it when it has ended")
            continue
        params = flatten(read_identity(RunDir.of(Path(collection.out), str(run.run))))
        history = [
            Epoch(*row) for row in histories.get(str(run.run), nothing)[list(Epoch._fields)].itertuples(index=False)
        ]
        try:
            tracker = TRACKERS[name].build(collection.out, _clock(run.updated), **options)
            tracker.begin(str(run.run), params, history)
            tracker.end(str(run.state))  # type: ignore[arg-type]  # the collector has checked it
        except Exception as error:  # whatever a library raises
            reason = str(error).strip().splitlines()[:1]
            where = f"{told} of {len(collection.runs)} runs were exported"
            raise ExportError(": ".join([name, type(error).__name__, *reason, where])) from error
        told += 1
    return told


def _clock(updated: Any) -> Callable[[], float]:
    """The time at which a run's status was last written."""
    when = datetime.fromisoformat(updated).timestamp() if isinstance(updated, str) else pd.Timestamp.now().timestamp()
    return lambda: when
