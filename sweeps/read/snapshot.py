"""What the run directories hold now: read once, cached, and read again only where a file has changed.

    Snapshot  every readable run of a results tree: plain rows, and all epochs in one matrix
    refresh   scan → cache → read what is new → cache

The cache, <out>/.collect/runs.parquet, is one file that is replaced whole: of two collectors at once the later one
wins, and both are right. A cache that is damaged, of another version, or made with other column rules is rebuilt.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.read import extensions
from sweeps.read.record import read, read_status
from sweeps.runs import notes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import write_atomic
from sweeps.runs.reading import printable

_VERSION = b"3"  # of the cache's contents: raise it when a row's meaning changes
_BLANK = RunDir(Path())
_FILES = tuple(
    path.name for path in (_BLANK.config, _BLANK.status, _BLANK.metrics, _BLANK.provenance, notes.path_of(_BLANK))
)

_CACHE = pa.schema(
    [
        ("name", pa.string()),
        ("signature", pa.string()),
        ("live", pa.bool_()),  # says that it is running; whether that is so must be checked each time
        ("row", pa.large_string()),  # JSON
        ("columns", pa.string()),  # JSON: the names of its epochs' columns
        ("epochs", pa.large_binary()),  # (n, len(columns)) float64
    ]
)


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
    found, problems = _scan(out)
    cache = out / ".collect" / "runs.parquet"
    if cache.parent.is_symlink():
        raise InputError("out", str(cache.parent), "is a symbolic link inside of the results tree, and is not followed")
    cached = _load(cache)
    old = dict(zip(cached["name"].to_pylist(), cached["signature"].to_pylist(), strict=True))
    stays = [found.get(name) == signature for name, signature in old.items()]
    changed = [name for name, signature in found.items() if old.get(name) != signature]

    records = []
    for name in changed:
        with _noted(name, problems):
            records.append(read(RunDir.of(out, name), found[name]))
    if not all(stays):
        cached = cached.filter(pa.array(stays, pa.bool_()))
    if records:
        fresh = pa.Table.from_pylist([vars(record) for record in records], cached.schema)
        cached = pa.concat_tables([cached, fresh]).sort_by("name")
    if records or not all(stays):
        _save(cache, cached)

    names = cached["name"].to_pylist()
    rows: list[Any] = json.loads(f"[{','.join(cached['row'].to_pylist())}]")
    keep = np.ones(len(rows), bool)
    for i in np.flatnonzero(cached["live"].to_numpy(zero_copy_only=False)):
        keep[i] = False
        with _noted(names[i], problems):
            rows[i]["state"] = read_status(RunDir.of(out, names[i]))["state"]
            keep[i] = True
    if not keep.all():
        cached = cached.filter(pa.array(keep))
        rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
    logged = _parsed(cached["columns"].to_pylist())
    columns, counts, epochs = _matrix(cached["epochs"].combine_chunks(), logged)
    return Snapshot(cached["name"].to_pylist(), rows, counts, columns, logged, epochs, tuple(sorted(problems)))


# ---------------------------------------------------------------------------------------------------- scan and cache


def _scan(out: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The signature of each directory, by name in order; and what is no run at first sight."""
    found, problems = {}, []
    folder = out / "runs"
    if folder.is_symlink():
        raise InputError("out", str(folder), "is a symbolic link inside of the results tree, and is not followed")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError("out", str(out), f"holds no runs ({error.strerror}: {folder})") from None
    for entry in entries:
        if entry.is_symlink():
            problems.append((printable(entry.name), "is a symbolic link, and is not followed"))
        elif entry.is_dir(follow_symlinks=False):
            if entry.name.isprintable():
                found[entry.name] = _signature(entry.path)
            else:
                problems.append((printable(entry.name), "not a run's name"))
    return found, problems


def _signature(folder: str) -> str:
    """Changes whenever one of the files is written: each is replaced (inode) or grows (size)."""
    parts = []
    for name in _FILES:
        try:
            info = os.stat(f"{folder}/{name}")
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{info.st_mtime_ns}:{info.st_size}:{info.st_ino}")
    return " ".join(parts)


def _schema() -> pa.Schema:
    """With the version, and the rules that made the columns: a cache of others is not ours."""
    rules = json.dumps(extensions.names(extensions.COLUMNS)).encode()
    return _CACHE.with_metadata({b"version": _VERSION, b"rules": rules})


def _load(path: Path) -> pa.Table:
    """The cached records, or none."""
    schema = _schema()
    try:
        table = pq.read_table(path, page_checksum_verification=True, memory_map=False, partitioning=None)
        if table.schema.equals(schema, check_metadata=True):
            return table
    except (OSError, pa.ArrowException):
        pass
    return schema.empty_table()


def _parsed(texts: list[str]) -> list[tuple[str, ...]]:
    """JSON lists of names; each different text is parsed once."""
    known: dict[str, tuple[str, ...]] = {text: tuple(json.loads(text)) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts]


def _matrix(
    column: pa.LargeBinaryArray, logged: list[tuple[str, ...]]
) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """All names, the rows of each run, and all of them in one matrix: the column's own memory if all have one set."""
    kinds = {names: i for i, names in enumerate(dict.fromkeys(logged))}
    columns = list(dict.fromkeys(["epoch", *(name for names in kinds for name in names)]))
    kind = np.array([kinds[names] for names in logged], np.intp)
    widths = np.array([len(names) for names in logged], np.intp)
    offsets = np.frombuffer(column.buffers()[1], np.int64) if len(column) else np.zeros(1, np.int64)
    sizes = np.diff(offsets[column.offset : column.offset + len(column) + 1]) // 8
    counts = (sizes // widths).astype(np.intp)
    if len(kinds) == 1:
        return columns, counts, _values(column, len(columns))
    epochs = np.full((counts.sum(), len(columns)), np.nan)
    for names, number in kinds.items():
        mine = kind == number
        rows = np.flatnonzero(np.repeat(mine, counts))
        places = np.array([columns.index(name) for name in names])
        epochs[np.ix_(rows, places)] = _values(column.filter(pa.array(mine)), len(names))
    return columns, counts, epochs


def _values(column: pa.LargeBinaryArray, width: int) -> npt.NDArray[np.float64]:
    """(rows, width): a view of the column's memory."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1] // 8
    values = np.frombuffer(data, np.float64, ends[-1]) if data is not None else np.empty(0)
    return values[ends[0] :].reshape(-1, width)


def _save(path: Path, table: pa.Table) -> None:
    """Replace the cache; where nothing may be written, go without."""
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=10_000,
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue())


@contextlib.contextmanager
def _noted(name: str, problems: list[tuple[str, str]]) -> Iterator[None]:
    """One run's trouble becomes one line, and the others go on."""
    try:
        yield
    except DamagedRun as damage:
        problems.append((name, printable(str(damage))))
    except OSError as error:
        problems.append((name, printable(f"{Path(error.filename or '').name}: {error.strerror or error}")))
