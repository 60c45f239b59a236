"""The current contents of the run directories: read once, cached, and read again only if a file has changed.

    Snapshot  every readable run of a results tree: plain rows, and all epochs in one matrix
    refresh   scan → cache → read what is new → cache
    scanned   a text that changes with what refresh would read

The cache, <out>/.collect/runs.npz, is one file that is replaced whole: of two collectors at once the later one wins,
and both are right. It is not trusted, as the runs are not: it is checked as they are, is not read if it is larger
than they could make it, and takes no more memory than its size. One that is damaged, of another version, or made with
other column rules is rebuilt.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sweeps.read import extensions
from sweeps.read.record import MOST_METRICS, Record, check, read, read_status
from sweeps.runs import notes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import folder, inside, listed, opened, write_atomic
from sweeps.runs.npy import UNREADABLE, opened_npz, read_npy

_VERSION = 5  # of the cache's contents: raise it when a row's meaning changes
_BLANK = RunDir(Path())
_FILES = tuple(
    path.name for path in (_BLANK.config, _BLANK.status, _BLANK.metrics, _BLANK.provenance, notes.path_of(_BLANK))
)
_LARGEST_CACHE = 2**32  # bytes
_MOST_KEYS = 10_000  # of all configurations


@dataclass(frozen=True)
class Snapshot:
    """All that could be read, in the order of the directories' names."""

    names: list[str]
    """The directories' names, one for each run."""
    rows: list[dict[str, Any]]
    """Status and provenance of each, and its configuration as ``config``; strings hold no control characters."""
    counts: npt.NDArray[np.intp]
    """(runs,) epochs of each."""
    columns: list[str]
    """``epoch``, then every metric in the order in which the runs name them."""
    logged: list[tuple[str, ...]]
    """The columns that each run has."""
    epochs: npt.NDArray[np.float64]
    """(sum of counts, len(columns)); NaN where a run has no such metric."""
    problems: tuple[tuple[str, str], ...]
    """(directory's name, reason)"""


def refresh(out: Path) -> Snapshot:
    """Read what changed under ``out``/runs since the cache was written.

    Raises:
        InputError: there is no such directory.
    """
    found, problems, size = _scan(out)
    cache = inside(out, ".collect") / "runs.npz"
    cached = _load(cache, size)
    entries: dict[str, _Entry] = {}
    for name, signature in found.items():
        entry = cached.get(name)
        if signature and entry and entry.signature == signature:
            entries[name] = entry
            continue
        with _noted(name, problems):
            entries[name] = _entry(name, signature, read(RunDir.of(out, name)))
    if entries.keys() != cached.keys() or any(entry is not cached[name] for name, entry in entries.items()):
        _save(cache, entries.values())

    runs: dict[str, Record] = {}
    metrics: set[str] = set()
    keys: set[str] = set()
    for name, (_, _, record) in entries.items():
        with _noted(name, problems):
            if record.live:
                record.row["state"] = read_status(RunDir.of(out, name))["state"]
            _add(metrics, record.columns, MOST_METRICS, "metrics")
            _add(keys, record.row["config"], _MOST_KEYS, "keys of configurations")
            runs[name] = record
    counts = np.array([len(record.epochs) // len(record.columns) for record in runs.values()], np.intp)
    rows, logged = [record.row for record in runs.values()], [record.columns for record in runs.values()]
    columns, epochs = _matrix([record.epochs for record in runs.values()], logged, counts)
    return Snapshot(list(runs), rows, counts, columns, logged, epochs, tuple(sorted(problems)))


def scanned(out: Path) -> str:
    """A text that is another whenever a file that :func:`refresh` reads is. It opens none.

    Raises:
        InputError: there is no such directory.
    """
    found, problems, _ = _scan(out)
    return json.dumps([found, problems])


def _add(known: set[str], names: Iterable[str], most: int, what: str) -> None:
    new = {*names} - known
    if len(known) + len(new) > most:
        raise DamagedRun(f"with it there would be more than {most} {what}")
    known |= new


def _matrix(
    values: Sequence[npt.NDArray[np.float64]], logged: Sequence[tuple[str, ...]], counts: npt.NDArray[np.intp]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """All names, and the epochs of all runs, one run after the other."""
    kinds = dict.fromkeys(logged)
    columns = list(dict.fromkeys(["epoch", *(name for names in kinds for name in names)]))
    if len(kinds) <= 1:
        return columns, np.concatenate([np.empty(0), *values]).reshape(-1, len(columns))
    places = {names: [columns.index(name) for name in names] for names in kinds}
    epochs = np.full((counts.sum(), len(columns)), np.nan)
    ends = np.cumsum(counts).tolist()
    for own, names, start, end in zip(values, logged, [0, *ends], ends, strict=False):
        epochs[start:end, places[names]] = own.reshape(-1, len(names))
    return columns, epochs


# --------------------------------------------------------------------------------------------------------------- scan


def _scan(out: Path) -> tuple[dict[str, str], list[tuple[str, str]], int]:
    """The signature of each directory, by name in order; what is obviously not a run; the largest size of a cache."""
    found, problems, size = {}, [], 2**20
    try:
        entries = listed(out, "runs")
    except OSError as error:
        raise InputError("out", str(out), f"holds no runs ({error.strerror}: {out / 'runs'})") from None
    for entry in entries:
        if entry.is_symlink():
            problems.append((printable(entry.name), "is a symbolic link, and is not followed"))
        elif entry.is_dir(follow_symlinks=False):
            if entry.name.isprintable():
                found[entry.name], own = _signature(entry.path)
                size += 2**11 + 8 * own  # of a cell without a value, a byte in metrics.csv, and 8 as a number
            else:
                problems.append((printable(entry.name), "not a run's name"))
    return found, problems, min(size, _LARGEST_CACHE)


def _signature(folder: str) -> tuple[str, int]:
    """What changes whenever one of the files is written, for each is replaced (inode) or grows (size); and their size.

    Empty if it is not a run, and must not be in a cache.
    """
    parts, size = [], 0
    for name in _FILES:
        try:
            info = os.lstat(f"{folder}/{name}")
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{info.st_mtime_ns}:{info.st_size}:{info.st_ino}")
            size += info.st_size
    return "" if "-" in parts[:2] else " ".join(parts), size


# -------------------------------------------------------------------------------------------------------------- cache


class _Entry(NamedTuple):
    """A run in the cache."""

    signature: str
    line: str
    """Its JSON: name, signature, and the record, with a count in place of the epochs."""
    record: Record


def _entry(name: str, signature: str, record: Record) -> _Entry:
    count = len(record.epochs) // len(record.columns)
    line = json.dumps([name, signature, record.live, record.row, record.columns, count], ensure_ascii=False)
    return _Entry(signature, line, record)


def _head() -> list[Any]:
    """The version, and the rules that made the columns: a cache of others is not ours."""
    return [_VERSION, *extensions.names(extensions.COLUMNS)]


def _load(path: Path, limit: int) -> dict[str, _Entry]:
    """The cached records by name, or none."""
    try:
        with opened(path, limit) as file, opened_npz(file, limit) as archive:
            lines = read_npy(archive, "records").tobytes().decode().split("\n")
            epochs = read_npy(archive, "epochs", "f")
        head, *records = json.loads(f"[{','.join(lines)}]")
        if head != _head() or epochs.dtype != np.float64 or epochs.ndim != 1:
            return {}
        return _entries(lines[1:], records, epochs)
    except (*UNREADABLE, DamagedRun, TypeError, LookupError, AttributeError, RecursionError):
        return {}


def _entries(lines: list[str], records: list[Any], epochs: npt.NDArray[np.float64]) -> dict[str, _Entry]:
    """Raises one of the above if something is not as :func:`sweeps.read.record.read` would have made it."""
    found, ends, widths = {}, [0], []
    for line, (name, signature, live, row, columns, count) in zip(lines, records, strict=True):
        check(live, row, columns, count)
        widths.append(len(columns))
        ends.append(ends[-1] + count * len(columns))
        found[name] = _Entry(signature, line, Record(live, row, tuple(columns), epochs[ends[-2] : ends[-1]]))
    if len(found) < len(records) or ends[-1] != len(epochs):
        raise ValueError("two of one name, or epochs of no run")
    width, starts = np.array(widths, np.intp), np.array(ends[:-1], np.intp)
    counts = np.diff(ends) // width
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    if not np.array_equal(epochs[np.repeat(starts, counts) + number * np.repeat(width, counts)], number + 1):
        raise ValueError("epochs are not 1, 2, 3, …")
    return found


def _save(path: Path, entries: Iterable[_Entry]) -> None:
    """Replace the cache, if the tree is writable."""
    entries = list(entries)
    text = "\n".join([json.dumps(_head()), *(entry.line for entry in entries)])
    epochs = np.concatenate([np.empty(0), *(entry.record.epochs for entry in entries)])
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, records=np.frombuffer(text.encode(), np.uint8), epochs=epochs)
    with contextlib.suppress(OSError):
        write_atomic(folder(path.parent.parent, ".collect") / path.name, buffer.getvalue())


@contextlib.contextmanager
def _noted(name: str, problems: list[tuple[str, str]]) -> Iterator[None]:
    """One run's error becomes one line, and the others are read."""
    try:
        yield
    except DamagedRun as damage:
        problems.append((name, printable(str(damage))))
    except OSError as error:
        problems.append((name, printable(f"{Path(error.filename or '').name}: {error.strerror or error}")))
