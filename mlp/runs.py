"""The run directory: the only state that processes share, and all that outlives them.

    <out>/runs/<run_id>/
        config.yaml        the identity, resolved
        metrics.csv        one row per epoch, columns of :class:`Epoch`
        stats.csv          with stats=true: one row per epoch and layer, columns of :class:`LayerStats`
        status.json        :class:`Status`
        provenance.json    what trained it: one entry for each session
        checkpoint.npz     parameters, optimizer state, epoch, metrics so far
        checkpoint-previous.npz  the one before, should that be damaged
        train.log
        .hydra/            Hydra's own record
        .lock              held by the process that trains

Every file is written whole or not at all; metrics.csv grows by whole rows. Whoever only reads takes no lock.

Damage at rest is found by SHA-256: status.json carries its own and those of config.yaml, metrics.csv and
provenance.json, a checkpoint its own. Nothing in a run directory is trusted: see :func:`mlp.files.read_file`.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from filelock import FileLock, Timeout

from mlp.files import (
    DamagedRun,
    append,
    digest,
    folder,
    linked,
    read_file,
    read_if_there,
    set_aside,
    write_atomic,
)
from mlp.schema import InputError

State = Literal["running", "finished", "failed", "diverged", "interrupted"]


class Epoch(NamedTuple):
    """One row of metrics.csv. Losses are means per image, accuracies in percent, times in seconds.

    ``train_*`` are running means over the epoch's batches unless ``eval_train=full``; ``valid_*`` are the test set's,
    as in the report, unless the data bring a validation split. ``seconds`` is training alone.
    """

    epoch: int
    train_loss: float
    train_acc: float
    valid_loss: float
    valid_acc: float
    test_loss: float
    test_acc: float
    seconds: float
    eval_seconds: float


class LayerStats(NamedTuple):
    """One row of stats.csv: a layer after an epoch, layers counted from 1 and epoch 0 being the initial weights.

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
    dead: float  # share of units for which that is so on every image
    spread: float  # rms over units of a(z)'s standard deviation over the images: what tells images apart


@dataclass(frozen=True)
class Status:
    """status.json: how a run stands, by the account of the process that last trained it."""

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


@dataclass(frozen=True)
class Result:
    """What a training run has come to, as far as it was asked for."""

    run_id: str
    path: Path
    state: State
    history: tuple[Epoch, ...]
    error: str | None = None
    reused: bool = False  # nothing had to be trained
    signal: int | None = field(default=None, compare=False)  # the one that interrupted it
    warning: str | None = None  # of its tracker

    @property
    def last(self) -> Epoch | None:
        return self.history[-1] if self.history else None

    @property
    def best(self) -> Epoch | None:
        """The first epoch of the highest validation accuracy."""
        return max(self.history, key=lambda row: row.valid_acc, default=None)


class RunDir:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.stats = path / "stats.csv"
        self.status = path / "status.json"
        self.provenance = path / "provenance.json"
        self.checkpoint = path / "checkpoint.npz"
        self.checkpoint_before = path / "checkpoint-previous.npz"
        self.log = path / "train.log"
        self._lock = path / ".lock"
        self._checksums: dict[str, str] = {}  # of what was written here
        self._table: Any = None  # hashlib's, of metrics.csv as it grows

    @classmethod
    def of(cls, out: Path, run_id: str) -> "RunDir":
        return cls(out / "runs" / run_id)

    def make(self) -> None:
        """Make the directory, unless it is there, and see to it that nothing in it leads us elsewhere.

        Raises:
            InputError: it, or a file that is opened for writing as it is, is a link or no file.
        """
        folder(self.path.parent.parent, "runs", self.path.name)
        self.refuse_links()

    def refuse_links(self) -> None:
        """For what is written in place; files that are replaced whole replace a link as well."""
        hydra = self.path / ".hydra"
        in_place = (hydra / name for name in ("config.yaml", "hydra.yaml", "overrides.yaml"))
        for path in (self.path.parent, self.path, hydra, self.log, self._lock, *in_place):
            if path.is_symlink():
                raise linked(path)
        if self.log.exists() and not self.log.is_file():
            raise InputError("out", str(self.log), "must be a file")

    # -- who works on it -------------------------------------------------------------------------------------------

    def lock(self) -> FileLock:
        """The lock of the one process that trains; it dies with the process, however that ends."""
        return FileLock(self._lock)

    def is_locked(self) -> bool:
        """Whether a living process trains this run now."""
        if not self._lock.exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_status(self) -> Status | None:
        """None where nothing has been written yet. A "running" that nobody owns is given as "interrupted".

        Raises:
            DamagedRun: the file is not a status, or not as it was written.
        """
        try:
            values = json.loads(read_file(self.status))
            if values.pop("sha256", None) not in (None, _seal(values)):
                raise ValueError("damaged since it was written")
            status = Status(**values)
            if status.state not in get_args(State) or not isinstance(status.epoch, int):
                raise ValueError(f"state {status.state!r}, epoch {status.epoch!r}")
            if not isinstance(status.checksums, dict):
                raise ValueError("checksums are no mapping")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedRun(f"{self.status}: not a run's status ({error})") from None
        if status.state == "running" and not self.is_locked():
            return Status(**{**values, "state": "interrupted"})
        return status

    def read_metrics(self, status: Status | None = None) -> list[Epoch]:
        """The complete rows of metrics.csv in order; a torn last row is left out.

        Args:
            status: what its checksum covers is compared with it.

        Raises:
            DamagedRun: the file is not a table of epochs 1, 2, 3, …, or not as it was written.
        """
        try:
            content = read_if_there(self.metrics)
            text = (content or b"").decode()
            lines = text[: text.rfind("\n") + 1].splitlines()
            if lines and tuple(lines[0].split(",")) != Epoch._fields:
                raise ValueError("unknown columns")
            rows = [parse_epoch(line) for line in lines[1:]]
        except (OSError, ValueError, TypeError) as error:
            raise DamagedRun(f"{self.metrics}: not a table of epochs ({error})") from None
        if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
            raise DamagedRun(f"{self.metrics}: epochs are not 1, 2, 3, …")
        if status is not None:
            covered = content and b"".join(content.splitlines(keepends=True)[: 1 + status.epoch])
            self._compare(self.metrics, covered, status)
        return rows

    def read_stats(self) -> list[LayerStats]:
        """The complete rows of stats.csv in order; epochs that were trained without stats are missing.

        Raises:
            DamagedRun: the file is not a table of layers 1, 2, … of ascending epochs.
        """
        try:
            text = read_file(self.stats).decode()
            header, *lines = text[: text.rfind("\n") + 1].splitlines() or [",".join(LayerStats._fields)]
            if tuple(header.split(",")) != LayerStats._fields:
                raise ValueError("unknown columns")
            rows = [_parse_stats(line) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise DamagedRun(f"{self.stats}: not a table of layers ({error})") from None
        layers = max([1, *(row.layer for row in rows)])
        rows = rows[: len(rows) // layers * layers]  # an epoch's rows are written at once, but a kill may tear them
        epochs = [row.epoch for row in rows[::layers]]
        if epochs != sorted(set(epochs)) or rows != [
            row._replace(epoch=epochs[i // layers], layer=1 + i % layers) for i, row in enumerate(rows)
        ]:
            raise DamagedRun(f"{self.stats}: layers are not 1, 2, … of ascending epochs")
        return rows

    def read(self) -> tuple[Status | None, list[Epoch]]:
        """Status and history, and the checksums of config.yaml and provenance.json compared.

        Raises:
            DamagedRun: one of the files is not as it was written.
        """
        status = self.read_status()
        for attempt in range(3):
            try:
                return status, self._checked_metrics(status)
            except DamagedRun:
                before, status = status, self.read_status()
                if attempt == 2 or status == before:  # else: somebody goes on with it at this moment
                    raise
        raise AssertionError

    def _checked_metrics(self, status: Status | None) -> list[Epoch]:
        rows = self.read_metrics(status)
        for path in (self.config, self.provenance):
            if status is not None and path.name in status.checksums:
                self._compare(path, read_if_there(path), status)
        return rows

    def _compare(self, path: Path, content: bytes | None, status: Status) -> None:
        expected = status.checksums.get(path.name)
        if expected is not None and (content is None or expected != digest(content)):
            raise DamagedRun(f"{path}: {'missing' if content is None else 'damaged since it was written'}")

    def result(self, epochs: int) -> Result | None:
        """What there is to say without training, or None if there is more to do.

        Raises:
            DamagedRun: one of the files that tell is not as it was written.
        """
        status, rows = self.read()
        if status is None:
            return None
        history = tuple(rows[:epochs])
        if epochs <= min(len(rows), status.epoch):  # a row after those is of an epoch that has no checkpoint yet
            return Result(self.path.name, self.path, "finished", history, reused=True)
        if status.state == "diverged":
            return Result(self.path.name, self.path, "diverged", history, status.error, reused=True)
        return None

    # -- writing (by the holder of the lock) -----------------------------------------------------------------------

    def clear_temporaries(self) -> None:
        """Remove what writers that were killed left behind."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def write_status(self, status: Status) -> None:
        """On disk when this returns, unless the run goes on: "running" is worth nothing after a power cut.

        It gets the checksums of what was written through this object.
        """
        values = asdict(status) | {"checksums": dict(self._checksums)}
        if self._table is not None:
            values["checksums"][self.metrics.name] = self._table.hexdigest()
        content = json.dumps(values | {"sha256": _seal(values)}, indent=2).encode() + b"\n"
        write_atomic(self.status, content, durable=status.state != "running")

    def write_config(self, identity: Mapping[str, Any]) -> None:
        self._write(self.config, to_yaml(identity))

    def write_metrics(self, history: list[Epoch]) -> None:
        """Replace the whole table, by one that the checkpoint can replace again."""
        content = _csv([Epoch._fields, *history])
        write_atomic(self.metrics, content, durable=False)
        self._table = hashlib.sha256(content)

    def append_metrics(self, row: Epoch) -> None:
        """Add one whole row, on disk when this returns."""
        content = _csv([row])
        append(self.metrics, content)
        if self._table is not None:
            self._table.update(content)

    def write_stats(self, rows: list[LayerStats]) -> None:
        """Replace the whole table."""
        write_atomic(self.stats, _csv([LayerStats._fields, *rows]))

    def append_stats(self, rows: list[LayerStats]) -> None:
        """Add an epoch's rows, on disk when this returns."""
        append(self.stats, _csv(rows))

    def add_provenance(self, session: dict[str, Any]) -> None:
        """Append a session to provenance.json; an unreadable file is set aside, and begun anew."""
        try:
            sessions = json.loads(read_file(self.provenance))["sessions"]
            content = [*sessions, session]
        except FileNotFoundError:
            content = [session]
        except (DamagedRun, ValueError, TypeError, KeyError, RecursionError):
            set_aside(self.provenance)
            content = [session]
        self._write(self.provenance, json.dumps({"sessions": content}, indent=1).encode() + b"\n")

    def _write(self, path: Path, content: bytes) -> None:
        write_atomic(path, content)
        self._checksums[path.name] = digest(content)


def _seal(values: Mapping[str, Any]) -> str:
    """The checksum that a JSON file carries of itself: of all else in it."""
    return digest(json.dumps(values, sort_keys=True).encode())


def run_dirs(out: Path) -> Iterator[RunDir]:
    """Every directory under ``out``/runs, by name; what is in it is the reader's to judge.

    Raises:
        InputError: ``out``/runs is a symbolic link.
    """
    if (out / "runs").is_symlink():
        raise linked(out / "runs")
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.scandir(out / "runs"), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield RunDir(Path(entry.path))


def to_yaml(values: Mapping[str, Any]) -> bytes:
    """Block YAML in the order given, by libyaml where it is there: the pure Python emitter takes milliseconds."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(dict(values), Dumper=dumper, sort_keys=False, allow_unicode=True)).encode()


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_status(state: State, *, epoch: int, target: int, started: str, error: str | None = None) -> Status:
    """A status of this process, as of now."""
    return Status(state, epoch, target, socket.gethostname(), os.getpid(), started, now(), error)


def parse_epoch(line: str) -> Epoch:
    """A row of metrics.csv; ValueError or TypeError if it is none."""
    epoch, *values = line.split(",")
    return Epoch(int(epoch), *map(float, values))


def _parse_stats(line: str) -> LayerStats:
    epoch, layer, *values = line.split(",")
    return LayerStats(int(epoch), int(layer), *map(float, values))


def _csv(rows: Sequence[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
