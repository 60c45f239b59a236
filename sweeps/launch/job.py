"""A worker's part: train the run of one point, and return its result."""

import contextlib
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.launch.sending import Sent, foreign, unpacked
from sweeps.runs import code
from sweeps.runs.directory import RunDir, to_yaml
from sweeps.runs.errors import Busy, DamagedRun, InputError, Interrupted
from sweeps.runs.files import folder, opened, read_file, write_atomic
from sweeps.runs.metrics import Row, parse_row
from sweeps.runs.program import RunSpec
from sweeps.runs.session import train
from sweeps.runs.status import Result, State


@dataclass(frozen=True)
class Job:
    """A point of a sweep: its overrides, and its frozen run."""

    overrides: tuple[str, ...]
    spec: RunSpec
    program: Sent | None = None  # attached when it is submitted, as are the following
    stop_file: str = ""  # when it exists, the job ends after the epoch it is in
    timeout: float | None = None  # seconds
    wait: bool = False  # for another process that trains this run
    failure: str | None = None  # its last one as it was planned; a later one is another worker's, and is not repeated

    @property
    def run_id(self) -> str:
        return self.spec.run_id

    @property
    def run(self) -> RunDir:
        return self.spec.run


def execute(job: Job, unwanted: Callable[[], bool] = lambda: False) -> Result:
    """Train a job's run; every exception becomes a result, with the traceback in the run's own log.

    Args:
        unwanted: called after each epoch: whether the job was cancelled.
    """
    start = time.monotonic()
    damage = _Damage()

    def ended(state: State, error: str | None = None) -> Result:
        seconds = time.monotonic() - start
        return Result(job.run_id, job.run.path, state, error=error, damage=tuple(damage.lines), seconds=seconds)

    def watch(_row: Row) -> None:
        if Path(job.stop_file).exists() or unwanted():
            raise Interrupted(signal.SIGTERM)
        if job.timeout is not None and time.monotonic() - start > job.timeout:
            raise TimeoutError(f"took longer than {job.timeout:g} s")

    try:
        assert job.program is not None
        if Path(job.stop_file).exists():
            return ended(State.INTERRUPTED, "before it began")
        if error := failed_since(job):
            return ended(State.FAILED, error)
        with unpacked(job.program) as program, damage.noted():
            result = train(program, job.spec, on_epoch=watch, wait=job.wait)
    except Busy:
        return ended(State.BUSY)
    except (Exception, SystemExit) as error:
        return ended(State.FAILED, f"{type(error).__name__}: {error}")
    if not result.reused:
        _record(job)
    seconds = time.monotonic() - start
    return replace(result, history=(), damage=tuple(damage.lines), seconds=seconds)


def last_failure(run: RunDir) -> str:
    """Which failure its status tells of; empty if it has not failed."""
    with contextlib.suppress(DamagedRun):
        status = run.read_status()
        if status and status.state == State.FAILED:
            return f"{status.updated} {status.worker}"
    return ""


def failed_since(job: Job) -> str | None:
    """The error of a run that has failed since it was planned, if that is known."""
    if job.failure is None or last_failure(job.run) in ("", job.failure):
        return None
    status = job.run.read_status()
    return status.error or "failed" if status else None


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
        logging.getLogger("sweeps").addHandler(self)
        try:
            yield
        finally:
            logging.getLogger("sweeps").removeHandler(self)


def _record(job: Job) -> None:
    """Hydra's own record beside a job's results."""
    if not job.spec.values or (job.run.path / ".hydra" / "hydra.yaml").exists():
        return
    hydra = folder(job.run.path, ".hydra")
    overrides = "".join(f"- {json.dumps(text)}\n" for text in job.overrides)
    write_atomic(hydra / "overrides.yaml", overrides.encode(), durable=False)
    write_atomic(hydra / "config.yaml", to_yaml(job.spec.values), durable=False)


@dataclass(frozen=True)
class Unfit:
    """The answer of a worker that must not train, and why."""

    worker: str
    reason: str


def execute_elsewhere(
    job: Job, proof: tuple[str, str], unwanted: Callable[[], bool] = lambda: False, worker: str = ""
) -> Result | Unfit:
    """:func:`execute` on a worker that may have joined since they were checked.

    Args:
        proof: path and content of a file that is visible only with the shared results tree.
    """
    host = socket.gethostname()
    if _read_token(proof[0]) != proof[1]:
        return Unfit(worker or host, str(_unseen(job.spec.out, host)))
    assert job.program is not None
    if package := foreign(job.program):
        return Unfit(worker or host, str(_other_version(host, package)))
    return execute(job, unwanted)


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker reports before a sweep begins."""

    host: str
    token: str | None  # what it read in the results tree
    package: str  # SHA-256 of this package's sources there


@contextlib.contextmanager
def token_file(out: Path) -> Iterator[tuple[Path, str]]:
    """A file in the results tree, with a token that only a process with this tree can read.

    Raises:
        InputError: the file cannot be written.
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


def report_worker(path: str) -> WorkerInfo:
    """Read a file that the main process has just written: proof that both see the same tree."""
    return WorkerInfo(socket.gethostname(), _read_token(path), code.package_digest("sweeps"))


def _read_token(path: str) -> str | None:
    try:
        return read_file(Path(path)).decode()
    except (OSError, DamagedRun, ValueError):
        return None


def check_workers(out: Path, token: str, workers: list[WorkerInfo]) -> None:
    """Every worker must see the same ``out`` and run the same version of this package.

    Raises:
        InputError: names the worker that does not.
    """
    mine = code.package_digest("sweeps")
    for worker in workers:
        if worker.token != token:
            raise _unseen(out, worker.host)
        if worker.package != mine:
            raise _other_version(worker.host, "sweeps")


def _other_version(host: str, package: str) -> InputError:
    said = f"this worker has another version of the {package} package; install the same everywhere"
    return InputError("hydra/launcher", host, said)


def _unseen(out: Path, host: str) -> InputError:
    return InputError("out", str(out), f"must be on a file system that all workers share; {host} does not see it")


def last_row(run: RunDir) -> Row | None:
    """The last whole row of metrics.csv, read cheaply; None while there is none."""
    try:
        with opened(run.metrics) as file:
            names = file.readline(2**16).decode().strip().split(",")
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            tail = file.read()
        return parse_row(tail[: tail.rindex(b"\n")].rsplit(b"\n", 1)[-1].decode(), names)
    except (OSError, DamagedRun, ValueError, TypeError):
        return None


def epochs_done(run: RunDir) -> int:
    """Complete epochs of a run by its metrics.csv."""
    row = last_row(run)
    return row.epoch if row else 0
