"""checkpoint.npz: everything that training needs to continue, bit for bit.

The program's state (:mod:`sweeps.runs.state`) and the metrics so far. The metrics are there too (they are tiny) so that
metrics.csv can be cut back or rebuilt from one consistent file. Members: the state's arrays under their own names,
``state.json`` how they hang together, ``history`` (epochs, columns) float64 with ``columns``, its names, and
``missing``, where a metric was not logged in every epoch.

The archive's comment ends the file: the run's id, and the SHA-256 of every byte before it.
"""

import hashlib
import io
import logging
import os
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sweeps.runs import metrics, state
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, Pruned
from sweeps.runs.files import opened, set_aside, write_atomic
from sweeps.runs.metrics import Row
from sweeps.runs.npy import UNREADABLE, opened_npz, read_npy

log = logging.getLogger(__name__)

LARGEST = 2**36  # bytes
_LONGEST_SEAL = 2**10  # bytes; a directory's name has 255 at most
_SEAL = re.compile(rb" sha256:[0-9a-f]{64}\Z")


def save(run: RunDir, tree: Any, history: Sequence[Row]) -> None:
    """Replace the checkpoint atomically; the one before it is kept under another name.

    Args:
        tree: of :func:`sweeps.runs.state.capture`.

    Raises:
        InputError: a part of the state cannot be saved.
        OSError: it cannot be written, or does not read back; the last one is as it was.
    """
    spec, arrays = state.encode(tree)
    names = metrics.columns(history)
    rows = [[row.get(name, np.nan) for name in names] for row in history]
    own = {
        "state.json": np.frombuffer(spec, np.uint8),
        "columns": np.array(names),
        "history": np.array(rows, np.float64).reshape(-1, len(names)),
    }
    missing = [[name not in row for name in names] for row in history]
    if any(map(any, missing)):
        own["missing"] = np.array(missing)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **own, **arrays)
    write_atomic(run.checkpoint, _seal(buffer.getvalue(), run.path.name), keep=run.checkpoint_before)


def remove(run: RunDir) -> None:
    """Remove both checkpoints of a run whose lock is held, and leave a mark; killed in between, they are still there
    or the mark says that they are not.
    """
    write_atomic(run.pruned, b"", durable=False)
    remove_spare(run)
    run.checkpoint.unlink(missing_ok=True)


def remove_spare(run: RunDir) -> None:
    """Remove the one before the last, which serves only if that is damaged."""
    run.checkpoint_before.unlink(missing_ok=True)


def refuse_pruned(run: RunDir) -> None:
    """Raise :class:`Pruned` if the run's checkpoint was removed."""
    if run.pruned.exists() and not run.checkpoint.exists():
        raise Pruned(
            "run",
            run.path.name,
            f"was pruned, so its checkpoint is gone; to train it again: mlp-sweeps rm {run.path.name}",
        )


def restore(run: RunDir, put_back: Callable[[Any], None] | None) -> list[Row]:
    """The history of the checkpoint, or else of the one before it, or none; its state goes to ``put_back``.

    A damaged one is named in the log and set aside.

    Raises:
        InputError: the state is of another program or network than the checkpoint's; nothing is set aside.
        PermissionError: there is one that we may not read.
    """
    for path in (run.checkpoint, run.checkpoint_before):
        try:
            tree, history = load(path)
        except FileNotFoundError:
            continue
        except DamagedRun as damage:
            log.warning("%s; set aside as %s, continuing from the one before, if any", damage, set_aside(path).name)
            continue
        if put_back:
            put_back(tree)
        return history
    return []


def load(path: Path) -> tuple[Any, list[Row]]:
    """State and history; everything in the file is checked.

    Raises:
        FileNotFoundError: there is none yet.
        Pruned: there was one.
        DamagedRun: the file is truncated, altered, or of another run.
    """
    refuse_pruned(RunDir(path.parent))
    with opened(path, LARGEST) as file:
        try:
            size = _check_seal(file, path.parent.name)  # before anything is read of a file that may be sparse
            with opened_npz(file, size) as archive:
                return _read(archive, RunDir(path.parent))
        except MemoryError:  # which is not the file's fault
            raise
        except (*UNREADABLE, DamagedRun, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None


def _read(archive: zipfile.ZipFile, run: RunDir) -> tuple[Any, list[Row]]:
    def read(name: str) -> Any:
        return read_npy(archive, name, "biufcU", allowed="numbers or texts")

    members = set(archive.namelist())
    missing = read("missing") if "missing.npy" in members else None
    if "state.json.npy" in members:
        spec = read("state.json").tobytes()
        tree = state.decode(spec, {name: read(name) for name in state.names(spec)})
        names = [str(name) for name in read("columns")]
    else:  # release 0.1: a flat mapping of arrays, the names in metrics.csv alone
        plain = [name.removesuffix(".npy") for name in sorted(members) if name != "history.npy"]
        tree = {name: read(name) for name in plain}
        names = metrics.columns(run.read_metrics()[:1])
    return tree, _history(read("history"), names, missing)


def _history(table: Any, names: list[str], missing: Any) -> list[Row]:
    if table.ndim != 2 or table.shape[1] != len(names) or table.dtype != np.float64 or names[:1] != ["epoch"]:
        raise ValueError(f"history is {table.dtype}{table.shape} of {len(names)} columns")
    if not np.array_equal(table[:, 0], np.arange(1, len(table) + 1)):
        raise ValueError("history is not of the epochs 1, 2, 3, …")
    there = np.ones(table.shape, bool) if missing is None else ~missing
    if there.shape != table.shape or there.dtype != bool or not there[:, 0].all():
        raise ValueError("missing is not of the history")
    return [
        Row({"epoch": int(values[0])} | {names[i]: float(values[i]) for i in range(1, len(names)) if known[i]})
        for values, known in zip(table, there, strict=True)
    ]


def _seal(archive: bytes, run_id: str) -> bytes:
    """The zip file with the comment; its length is the last field of one that has none."""
    label = _label(run_id)
    head = archive[:-2] + struct.pack("<H", len(label) + 64) + label
    return head + hashlib.sha256(head).hexdigest().encode()


def _check_seal(file: BinaryIO, run_id: str) -> int:
    """The file's size; raises ValueError if it is not as it was written, or another run's."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_SEAL))
    tail = file.read()
    if not _SEAL.search(tail):
        raise ValueError("not as it was written: it does not end with a seal")
    total, left = hashlib.sha256(), size - 64
    file.seek(0)
    while left > 0 and (piece := file.read(min(left, 2**20))):
        total.update(piece)
        left -= len(piece)
    if total.hexdigest().encode() != tail[-64:]:
        raise ValueError("not as it was written, by its SHA-256")
    if not tail[:-64].endswith(_label(run_id)):
        raise ValueError("another run's")
    return size


def _label(run_id: str) -> bytes:
    return f"{run_id} sha256:".encode()
