"""The run directory: the only state that processes share, and all that outlives them.

    <out>/runs/<run_id>/
        config.yaml        the identity, resolved
        metrics.csv        one row per epoch: its number, and what the program logs
        steps.csv          what it logs as steps, or more than once an epoch: epoch, step, metric, value
        items.npz          what it logs of each item, in the epoch that was saved last
        status.json        :class:`sweeps.runs.status.Status`
        provenance.json    code, versions and machine: one entry per session
        checkpoint.npz     the program's state, and the metrics so far
        checkpoint-previous.npz  the one before, in case that is damaged
        checkpoint.pruned  instead of the two: they were removed, by ``mlp-sweeps prune``
        notes.json         the user's tags and note, :mod:`sweeps.runs.notes`
        train.log
        .hydra/            Hydra's own record
        .lock              held by the process that trains

Every file is written whole or not at all; metrics.csv grows by whole rows. Readers take no lock.

Damage at rest is found by SHA-256: status.json carries its own and those of config.yaml, metrics.csv, steps.csv and
provenance.json, a checkpoint its own. Nothing in a run directory is trusted: see :mod:`sweeps.runs.files`.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from sweeps.runs import files, metrics
from sweeps.runs.errors import DamagedRun
from sweeps.runs.files import append, digest, folder, read_if_there, read_json, set_aside, write_atomic
from sweeps.runs.metrics import Row
from sweeps.runs.status import Result, State, Status

_LARGEST_STATUS = 2**20  # bytes
_LOST = "lost"  # instead of the checksum of a table that does not come back


class _File:
    """The path of a run's file, made on demand."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunDir", _: object = None) -> Path:
        return run.path / self._name


class RunDir:
    """The files of one run."""

    config = _File("config.yaml")
    metrics = _File("metrics.csv")
    steps = _File("steps.csv")
    items = _File("items.npz")
    status = _File("status.json")
    provenance = _File("provenance.json")
    checkpoint = _File("checkpoint.npz")
    checkpoint_before = _File("checkpoint-previous.npz")
    pruned = _File("checkpoint.pruned")
    log = _File("train.log")
    _lock = _File(".lock")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checksums: dict[str, str] = {}  # of what was written here
        self._table: Any = None  # hashlib's, of metrics.csv as it grows
        self._steps: Any = None  # likewise of steps.csv, but for
        self._new_steps = (0, b"")  # an epoch's, until a status counts that

    @classmethod
    def of(cls, out: Path, run_id: str) -> "RunDir":
        return cls(out / "runs" / run_id)

    def make(self) -> None:
        """Make the directory if needed, and check that nothing in it leads elsewhere.

        Raises:
            InputError: it, or a file that is opened for writing as it is, is a link or no file.
        """
        folder(self.path.parent.parent, "runs", self.path.name)
        self.refuse_links()

    def refuse_links(self) -> None:
        """Check the places that Hydra writes to, since it would follow a link and wait for a pipe.

        Raises:
            InputError: a place of its is a link, or no file.
        """
        out, run_id = self.path.parent.parent, self.path.name
        files.inside(out, "runs", run_id, "job")
        hydra = files.inside(out, "runs", run_id, ".hydra")
        files.refuse(self.log, self._lock, *(hydra / name for name in ("config.yaml", "hydra.yaml", "overrides.yaml")))

    # -- the process that trains it --------------------------------------------------------------------------------

    def lock(self) -> FileLock:
        """The lock of the one process that trains; released by the kernel when the process ends."""
        return files.lock(self._lock)

    def is_locked(self) -> bool:
        """Whether a living process trains this run now."""
        return files.is_locked(self._lock)

    def move(self, to: Path) -> None:
        """Rename the directory (by the holder of the lock); a process that waits for the lock starts the run again."""
        os.replace(self.path, to)
        (to / self._lock.name).unlink(missing_ok=True)

    def files(self) -> Iterator[Path]:
        """All there are, in folders too; no link is followed."""
        return (Path(place, name) for place, _, names in os.walk(self.path) for name in names)

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_status(self) -> Status | None:
        """None if nothing has been written yet. "running" without a living process is returned as "interrupted".

        Raises:
            DamagedRun: the file is not a status, or not as it was written.
            InputError: the directory is a symbolic link.
        """
        files.inside(self.path.parent.parent, self.path.parent.name, self.path.name)
        try:
            values = read_json(self.status, _LARGEST_STATUS)
            if values.pop("sha256", None) not in (None, _seal(values)):
                raise ValueError("damaged since it was written")
            status = Status.of(values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedRun(f"{self.status}: not a run's status ({error})") from None
        if status.state == State.RUNNING and not self.is_locked():
            return replace(status, state=State.INTERRUPTED)
        return status

    def read_metrics(self, status: Status | None = None) -> list[Row]:
        """The complete rows of metrics.csv in order; a torn last row is left out.

        Args:
            status: whose checksum is compared.

        Raises:
            DamagedRun: the file is not a table of epochs 1, 2, 3, …, or not as it was written.
        """
        try:
            content = read_if_there(self.metrics)
            rows = metrics.parse(content or b"")
        except (OSError, ValueError, TypeError) as error:
            raise DamagedRun(f"{self.metrics}: not a table of epochs ({error})") from None
        if status is not None:
            covered = content and b"".join(content.splitlines(keepends=True)[: 1 + status.epoch])
            self._compare(self.metrics, covered, status)
        return rows

    def read(self, status: Status | None = None) -> tuple[Status | None, list[Row]]:
        """Status and history, and the checksums of config.yaml and provenance.json compared.

        Args:
            status: if it was read just now.

        Raises:
            DamagedRun: one of the files is not as it was written.
        """
        status = status or self.read_status()
        for attempt in range(3):
            try:
                return status, self._checked_metrics(status)
            except DamagedRun:
                before, status = status, self.read_status()
                if attempt == 2 or status == before:  # else: another process continues it at this moment
                    raise
        raise AssertionError

    def _checked_metrics(self, status: Status | None) -> list[Row]:
        rows = self.read_metrics(status)
        for path in (self.config, self.provenance):
            if status is not None and path.name in status.checksums:
                self._compare(path, read_if_there(path), status)
        return rows

    def _compare(self, path: Path, content: bytes | None, status: Status) -> None:
        expected = status.checksums.get(path.name)
        if expected is not None and (content is None or expected != digest(content)):
            raise DamagedRun(f"{path}: {'missing' if content is None else 'damaged since it was written'}")

    def result(self, epochs: int, status: Status | None = None) -> Result | None:
        """The result if no training is needed, else None.

        Args:
            status: if it was read just now.

        Raises:
            DamagedRun: one of the files that tell is not as it was written.
        """
        status, rows = self.read(status)
        if status is None:
            return None
        if status.own_target:
            if not status.state.is_result:
                return None
            epochs = max(status.target, len(rows))
        returned = status.returned if epochs >= status.epoch else None  # which is of its last epoch
        told = partial(
            Result.of, self.path, metric=status.metric, maximize=status.maximize, reused=True, returned=returned
        )
        has_stopped = (
            status.state == State.FINISHED and epochs <= status.target
        )  # if need be early, by its own decision
        if has_stopped or epochs <= min(len(rows), status.epoch):  # a row after those has no checkpoint yet
            return told(State.FINISHED, rows[:epochs])
        if status.state == State.DIVERGED:
            return told(State.DIVERGED, rows[:epochs], status.error)
        return None

    # -- writing (by the holder of the lock) -----------------------------------------------------------------------

    def clear_temporaries(self) -> None:
        """Remove files that killed writers left behind."""
        for entry in files.listed(self.path):
            if entry.name.startswith(".") and entry.name.endswith(".tmp") and not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)

    def write_status(self, status: Status) -> None:
        """On disk when this returns, except for "running", which is worthless after a power cut.

        It gets the checksums of what was written through this object.
        """
        values = asdict(status) | {"checksums": dict(self._checksums)}
        if self._table is not None:
            values["checksums"][self.metrics.name] = self._table.hexdigest()
        if self._steps is not None:
            epoch, rows = self._new_steps
            if epoch <= status.epoch:
                self._steps.update(rows)
                self._new_steps = (0, b"")
            values["checksums"][self.steps.name] = self._steps.hexdigest()
        content = json.dumps(values | {"sha256": _seal(values)}, indent=2).encode() + b"\n"
        write_atomic(self.status, content, durable=status.state != State.RUNNING)

    def write_config(self, identity: Mapping[str, Any]) -> None:
        self._write(self.config, to_yaml(identity))

    def write_metrics(self, history: Sequence[Row], names: Sequence[str]) -> None:
        """Replace the whole table, by one that the checkpoint can replace again."""
        content = metrics.table(history, names)
        write_atomic(self.metrics, content, durable=False)
        self._table = hashlib.sha256(content)

    def forget_metrics(self) -> None:
        """The next status does not vouch for the table."""
        self._table = None

    def append_metrics(self, row: Row, names: Sequence[str]) -> None:
        """Add one whole row, on disk when this returns."""
        content = metrics.to_csv([metrics.cells(row, names)])
        append(self.metrics, content)
        if self._table is not None:
            self._table.update(content)

    def read_steps(self, status: Status | None = None) -> list[tuple[int, int, str, float]]:
        """The complete rows of steps.csv: epoch, step (both from 1), metric, value.

        Args:
            status: what its checksum covers is compared with it.

        Raises:
            DamagedRun: it is not such a table, or not as it was written.
        """
        try:
            content = read_if_there(self.steps)
            whole = content and content[: content.rfind(b"\n") + 1]
            cells = (line.split(",") for line in (whole or b"").decode().splitlines()[1:])
            rows = [(int(epoch), int(step), name, float(value)) for epoch, step, name, value in cells]
        except (OSError, ValueError) as error:
            raise DamagedRun(f"{self.steps}: not a table of steps ({error})") from None
        if status is not None:
            count = 1 + sum(epoch <= status.epoch for epoch, *_ in rows)
            covered = whole and b"".join(whole.splitlines(keepends=True)[:count])
            self._compare(self.steps, covered, status)
        return rows

    def write_steps(self, rows: Sequence[tuple[int, int, str, float]]) -> None:
        """Replace the whole table."""
        content = metrics.to_csv([("epoch", "step", "metric", "value"), *rows])
        write_atomic(self.steps, content, durable=False)
        self._checksums.pop(self.steps.name, None)
        self._steps = hashlib.sha256(content)

    def append_steps(self, rows: Sequence[tuple[int, int, str, float]]) -> None:
        """Add an epoch's rows, on disk when this returns."""
        if not self.steps.exists():
            self.write_steps([])
        content = metrics.to_csv(rows)
        append(self.steps, content)
        self._new_steps = (rows[0][0], content)

    def give_up_steps(self) -> None:
        """The next status says that steps.csv is damaged, so that no reader takes a part of them for all."""
        self._checksums[self.steps.name] = _LOST

    def add_provenance(self, session: dict[str, Any]) -> None:
        """Append a session to provenance.json; an unreadable file is set aside, and a new one started."""
        try:
            content = [*read_json(self.provenance)["sessions"], session]
        except FileNotFoundError:
            content = [session]
        except (DamagedRun, TypeError, LookupError):
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
    """Every directory under ``out``/runs, by name; without checking their contents.

    Raises:
        InputError: ``out``/runs is a symbolic link.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in files.listed(out, "runs"):
            if entry.is_dir(follow_symlinks=False):
                yield RunDir(Path(entry.path))


def to_yaml(values: Mapping[str, Any]) -> bytes:
    """Block YAML in the order given, by libyaml where it is there: the pure Python emitter takes milliseconds."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(dict(values), Dumper=dumper, sort_keys=False, allow_unicode=True)).encode()
