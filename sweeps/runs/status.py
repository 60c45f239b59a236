"""A run's state, its status.json, and the result that callers get."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sweeps.runs import metrics
from sweeps.runs.errors import printable
from sweeps.runs.metrics import Row


class State(StrEnum):
    """Of a run; the last two are only a job's, and never in a file."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    BUSY = "busy"
    """Another process trains the run."""
    LOST = "lost"
    """The worker died."""

    @property
    def is_result(self) -> bool:
        """The run needs no more training."""
        return self in (State.FINISHED, State.DIVERGED)


_KEPT = tuple(state for state in State if state not in (State.BUSY, State.LOST))
_COUNTS = ("epoch", "target", "pid")
_TEXTS = ("host", "started", "updated", "error", "program", "metric", "task")
_FLAGS = ("maximize", "own_target")
_MOST = 2**53  # epochs: what a table's float64 holds exactly
_LONGEST = 10_000  # characters of an error


@dataclass(frozen=True)
class Status:
    """status.json: how a run stands, as its last process recorded it."""

    state: State
    epoch: int  # epochs that are complete
    target: int  # epochs asked for
    host: str
    pid: int
    started: str  # of this session; UTC, ISO 8601
    updated: str
    error: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of config.yaml and provenance.json, and of metrics.csv up to row ``epoch``; empty in older files."""
    program: str | None = None
    """Which training function it is of: ``module:name``; not in files of release 0.1."""
    metric: str | None = None
    """The metric that judges an epoch."""
    maximize: bool = True
    own_target: bool = False
    """The target is the training function's own, for its program declares no budget that could ask for another."""
    returned: Any = None
    """What the training function returned, as far as JSON can hold it."""
    task: str | None = None
    """Slurm's name for where it ran, ``123_4``: task 4 of the array 123."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Status":
        """From a file, which is not trusted: checked, and without control characters in its texts.

        Raises:
            TypeError, ValueError: it is not a status; names the field.
        """
        status = cls(**values)
        given = vars(status)
        optional = {field.name for field in fields(cls) if field.default is None}
        good = {name: type(given[name]) is int and 0 <= given[name] <= _MOST for name in _COUNTS}
        good |= {name: isinstance(given[name], str) or (given[name] is None and name in optional) for name in _TEXTS}
        good |= {name: isinstance(given[name], bool) for name in _FLAGS}
        good["state"] = status.state in _KEPT
        good["checksums"] = isinstance(status.checksums, dict)
        for name, is_good in good.items():
            if not is_good:
                raise ValueError(f"{name} {repr(given[name])[:100]}")
        if status.target < 1:
            raise ValueError("target 0")
        texts: dict[str, Any] = {
            name: "\n".join(map(printable, given[name].split("\n"))) for name in _TEXTS if given[name]
        }
        return replace(status, state=State(status.state), **texts)

    @classmethod
    def new(
        cls, state: State, *, epoch: int, target: int, started: str, error: str | None = None,
        program: str | None = None, metric: str | None = None, maximize: bool = True, own_target: bool = False,
        returned: Any = None,
    ) -> "Status":  # fmt: skip
        """A status of this process, as of now."""
        return cls(
            state, epoch, target, socket.gethostname(), os.getpid(), started, now(), error and error[:_LONGEST],
            program=program, metric=metric, maximize=maximize, own_target=own_target, returned=returned,
            task=slurm_task(),
        )  # fmt: skip

    @property
    def worker(self) -> str:
        """Who trains the run, or did so last: ``host:pid``, and Slurm's task where it is one's."""
        return f"{self.host}:{self.pid}" + (f" slurm {self.task}" if self.task else "")


@dataclass(frozen=True)
class Result:
    """The result of a run, up to the requested epochs."""

    run_id: str
    path: Path
    state: State
    history: tuple[Row, ...] = ()
    """Of all epochs; a sweep's workers send only the last and the best."""
    epoch: int = 0
    last: Row | None = None
    best: Row | None = None
    error: str | None = None
    reused: bool = False  # nothing had to be trained
    signal: int | None = field(default=None, compare=False)  # the one that interrupted it
    warning: str | None = None  # of its tracker
    damage: tuple[str, ...] = ()  # damage found in the run, a line each
    seconds: float = field(default=0.0, compare=False)  # that this job took
    returned: Any = None  # by the training function, in JSON's types

    @classmethod
    def of(
        cls, path: Path, state: State, history: Sequence[Row], error: str | None = None, *, metric: str | None = None,
        maximize: bool = True, reused: bool = False, signal: int | None = None, warning: str | None = None,
        returned: Any = None,
    ) -> "Result":  # fmt: skip
        rows = tuple(history)
        return cls(
            path.name, path, state, rows, len(rows), rows[-1] if rows else None, metrics.best(rows, metric, maximize),
            error, reused, signal, warning, returned=returned,
        )  # fmt: skip


def slurm_task() -> str | None:
    """``123_4`` in a task of an array, ``123`` in another job of Slurm's."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
