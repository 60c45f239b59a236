"""Export finished runs to a tracker, as if it had recorded them, without repeating what it has."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sweeps.read.collect import Collection
from sweeps.runs.directory import RunDir
from sweeps.runs.identity import flatten
from sweeps.runs.reading import read_identity
from sweeps.runs.status import State
from sweeps.runs.trackers import TRACKERS, require

TARGETS = ("mlflow", "tensorboard")  # wandb cannot be asked offline what it has


class ExportError(Exception):
    """The tracker failed; the message says with what, and how far it got."""


def export(collection: Collection, name: str, *, say: Callable[[str], None], **options: Any) -> int:
    """Export every run to the tracker ``name``, except those that are training.

    Args:
        say: called with a line for each run that is left out.
        options: of the tracker, as in conf/tracker/.

    Returns:
        The number of exported runs.

    Raises:
        InputError: its package is not installed.
        ExportError: it failed; the same command continues from there.
        DamagedRun, OSError: a run's files cannot be read.
    """
    require(name)
    runs, told = collection.runs, 0
    for run_id, state, epoch, updated in zip(runs["run"], runs["state"], runs["epoch"], runs["updated"], strict=True):
        if state == State.RUNNING:
            say(f"{run_id} is being trained; export it when it has ended")
            continue
        run = RunDir.of(Path(collection.out), run_id)
        params, history = flatten(read_identity(run)), run.read_metrics()[:epoch]
        try:
            tracker = TRACKERS[name].build(collection.out, _clock(updated), **options)
            tracker.begin(run_id, params, history)
            tracker.end(State(state))
        except Exception as error:  # of any library's kind
            reason = str(error).strip().splitlines()[:1]
            where = f"{told} of {len(collection.runs)} runs were exported"
            raise ExportError(": ".join([name, type(error).__name__, *reason, where])) from error
        told += 1
    return told


def _clock(updated: Any) -> Callable[[], float]:
    """The time at which a run's status was last written."""
    when = datetime.fromisoformat(updated).timestamp() if isinstance(updated, str) else pd.Timestamp.now().timestamp()
    return lambda: when
