"""What a worker does with one point, wherever it is: train it, and answer with what came of it."""

import contextlib
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mlp import provenance
from mlp.config import RunConfig
from mlp.files import DamagedRun, folder, write_atomic
from mlp.runs import Epoch, Result, RunDir, State, parse_epoch, to_yaml
from mlp.schema import InputError
from mlp.session import Busy, Interrupted, train


@dataclass(frozen=True)
class Job:
    """A point on its way to a worker; all plain data, frozen at submission."""

    run_id: str
    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    stop_file: str  # when it exists, the job ends after the epoch it is in
    timeout: float | None  # seconds
    wait: bool = False  # for another process that trains this run


@dataclass(frozen=True)
class Outcome:
    """How a job ended. ``busy``: another process trains the run; ``lost``: the worker died."""

    state: State | Literal["busy", "lost"]
    epoch: int = 0
    last: Epoch | None = None
    best: Epoch | None = None
    error: str | None = None
    reused: bool = False
    seconds: float = 0.0
    warning: str | None = None
    damage: tuple[str, ...] = ()  # what was found damaged of the run, a line each

    @classmethod
    def of(cls, result: Result, seconds: float = 0.0) -> "Outcome":
        history = result.history
        return cls(
            result.state, len(history), result.last, result.best, result.error, result.reused, seconds, result.warning
        )


def execute(job: Job, unwanted: Callable[[], bool] = lambda: False) -> Outcome:
    """Train a job's run; every exception becomes an outcome, with the traceback in the run's own log.

    Args:
        unwanted: asked after each epoch, like the stop file: nobody waits for this job any more.
    """
    start = time.monotonic()
    damage = _Damage()

    def watch(row: Epoch) -> None:
        if Path(job.stop_file).exists() or unwanted():
            raise Interrupted(signal.SIGTERM)
        if job.timeout is not None and time.monotonic() - start > job.timeout:
            raise TimeoutError(f"took longer than {job.timeout:g} s")

    try:
        config = RunConfig.from_mapping(job.values)
        if Path(job.stop_file).exists():
            return Outcome("interrupted", error="before it began")
        with damage.noted():
            result = train(config, on_epoch=watch, wait=job.wait)
    except Busy:
        return Outcome("busy")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Outcome("failed", error=reason, seconds=time.monotonic() - start, damage=tuple(damage.lines))
    if not result.reused:
        _record(result.path, job)
    return replace(Outcome.of(result, time.monotonic() - start), damage=tuple(damage.lines))


class _Damage(logging.Handler):
    """Catches what the package's log says of damaged files; a worker's terminal may be far away."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and any(isinstance(arg, DamagedRun) for arg in record.args):
            self.lines.append(record.getMessage())

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        logging.getLogger("mlp").addHandler(self)
        try:
            yield
        finally:
            logging.getLogger("mlp").removeHandler(self)


def _record(path: Path, job: Job) -> None:
    """What Hydra writes beside a job's results, for those who look there."""
    hydra = folder(path, ".hydra")
    overrides = "".join(f"- {json.dumps(text)}\n" for text in job.overrides)
    write_atomic(hydra / "overrides.yaml", overrides.encode(), durable=False)
    write_atomic(hydra / "config.yaml", to_yaml(job.values), durable=False)


def execute_elsewhere(job: Job, unwanted: Callable[[], bool] = lambda: False) -> Outcome:
    """:func:`execute` on a worker that may have joined since they were checked: never train into a private tree."""
    if not Path(job.values["out"], "sweeps").is_dir():
        return Outcome("failed", error=str(_unseen(Path(job.values["out"]), socket.gethostname())))
    return execute(job, unwanted)


@dataclass(frozen=True)
class Witness:
    """What a worker says of itself before a sweep begins."""

    host: str
    token: str | None  # what it read in the results tree
    source_sha256: str


@contextlib.contextmanager
def token_file(out: Path) -> Iterator[tuple[Path, str]]:
    """A file in the results tree, and what only who sees that very tree can read in it.

    Raises:
        InputError: there can be no file.
    """
    token = uuid.uuid4().hex
    path = out / "sweeps" / f".seen-{token}"
    try:
        folder(out, "sweeps")
        write_atomic(path, token.encode())
    except OSError as error:
        raise InputError("out", str(out), f"cannot be written ({error.strerror}: {error.filename})") from error
    try:
        yield path, token
    finally:
        path.unlink(missing_ok=True)


def testify(path: str) -> Witness:
    """Read a file that the main process has just written: proof that both see one results tree."""
    try:
        token = Path(path).read_text()
    except OSError:
        token = None
    return Witness(socket.gethostname(), token, provenance.collect()["source_sha256"])


def check_witnesses(out: Path, token: str, witnesses: list[Witness]) -> None:
    """Every worker must see the same ``out`` and run the same code.

    Raises:
        InputError: names the worker that does not.
    """
    mine = provenance.collect()["source_sha256"]
    for witness in witnesses:
        if witness.token != token:
            raise _unseen(out, witness.host)
        if witness.source_sha256 != mine:
            raise InputError(
                "hydra/launcher",
                witness.host,
                "this worker has another version of the mlp package; install the same everywhere",
            )


def _unseen(out: Path, host: str) -> InputError:
    return InputError("out", str(out), f"must be on a file system that all workers share; {host} does not see it")


def last_row(run: RunDir) -> Epoch | None:
    """The last whole row of metrics.csv as it stands, cheaply; None while there is none."""
    try:
        with open(run.metrics, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 512))
            tail = file.read()
        return parse_epoch(tail[: tail.rindex(b"\n")].rsplit(b"\n", 1)[-1].decode())
    except (OSError, ValueError, TypeError):
        return None


def epochs_done(run: RunDir) -> int:
    """Complete epochs of a run as its metrics.csv stands."""
    row = last_row(run)
    return row.epoch if row else 0
