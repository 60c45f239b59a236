"""One run directory as plain data, or the reason why it is not a run. Nothing in it is trusted.

Record    a run as the collector keeps it
read      run directory → Record
check     whether a cache's record is one
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sweeps.read import extensions
from sweeps.runs import metrics, notes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import read_file, read_if_there, read_json
from sweeps.runs.identity import flatten
from sweeps.runs.reading import brief, read_identity
from sweeps.runs.status import State

MOST_METRICS = 1000
"""Runs of others must not widen the table of all epochs beyond the memory."""

_STATUS = ("state", "target", "host", "worker", "started", "updated", "error", "program", "metric")
_PROVENANCE = ("git_commit", "source_sha256", "python", "numpy", "cpu", "blas")
_NOTES = ("tags", "note")
_TEXTS = (*_STATUS[2:], *_PROVENANCE, *_NOTES)
_ROW = {"config", "ruled", "maximize", "threads", *_STATUS, *_PROVENANCE, *_NOTES}
_STATES = frozenset(State)


class Record(NamedTuple):
    """A run, flat enough for a cache."""

    live: bool
    """Its status is "running", which must be checked each time."""
    row: dict[str, Any]
    """``config``, columns of the configuration, apart from status and provenance, so that no key hides those;
    ``ruled``: their names are the program's own."""
    columns: tuple[str, ...]
    """``epoch``, then the names of its metrics."""
    epochs: npt.NDArray[np.float64]
    """(n × len(columns),)"""


def read(run: RunDir) -> Record:
    """Everything but the checkpoint and the log.

    Raises:
        DamagedRun, OSError: it is not a run, or a damaged one.
    """
    identity = read_identity(run)
    status = read_status(run)
    try:
        _, history = run.read()
    except DamagedRun as damage:
        raise brief(damage, run) from None
    config, is_ruled = _config(identity)
    row = {"config": config, "ruled": is_ruled, **status, **_provenance(run), **_notes(run)}
    names = metrics.columns(history) if history else _header(run)
    if len(names) > MOST_METRICS:
        raise DamagedRun(f"{run.metrics.name}: {len(names)} columns; at most {MOST_METRICS} are read")
    whole = all(len(row) == len(names) for row in history)  # then each has them in this order
    rows = ([*row.values()] if whole else [row.get(name, np.nan) for name in names] for row in history)
    live = status["state"] == "running" or _says_running(run)
    return Record(live, row, tuple(names), np.array([*rows], float).ravel())


def check(live: object, row: Any, columns: Any, count: object) -> None:
    """Check a record from a cache, and return it as :func:`read` does.

    Args:
        count: of the epochs.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is something else.
    """
    if type(live) is not bool or type(count) is not int or count < 0:
        raise ValueError("no record")
    _check_columns(tuple(columns))
    if (
        row.keys() != _ROW
        or not all(map(_is_cell, row["config"].values()))
        or not all(map(str.isprintable, row["config"]))
    ):
        raise ValueError("no row")
    texts = [row[name] for name in _TEXTS]
    if not all(text is None or (type(text) is str and text.isprintable()) for text in texts):
        raise ValueError("no texts")
    if type(row["ruled"]) is not bool or type(row["maximize"]) is not bool:
        raise ValueError("no flags")
    target, threads = row["target"], row["threads"]
    if row["state"] not in _STATES or not _is_count(target) or not (threads is None or _is_count(threads)):
        raise ValueError("no status")


@functools.lru_cache(maxsize=1000)
def _check_columns(names: tuple[str, ...]) -> None:
    is_known = all(type(name) is str and metrics.NAME.fullmatch(name) for name in names)
    if names[0] != "epoch" or len({*names}) < len(names) or not is_known or len(names) > MOST_METRICS:
        raise ValueError("no columns")


def _is_cell(value: Any) -> bool:
    """As :func:`_scalar` makes it."""
    kind = type(value)
    return kind is float or value is None or (value.isprintable() if kind is str else kind is int and _fits(value))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**53


def _fits(value: int) -> bool:
    """Into a table's int64."""
    return -(2**63) <= value < 2**63


def _header(run: RunDir) -> list[str]:
    """The names in a metrics.csv without rows."""
    first, newline, _ = (read_if_there(run.metrics) or b"").partition(b"\n")
    names = first.decode("utf-8", "replace").split(",")
    return names if newline and all(map(metrics.NAME.fullmatch, names)) else ["epoch"]


def _config(identity: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Column → cell, and whether by the program's own rule (entry point ``sweeps.columns``): else the dotted keys."""
    try:
        found = (columns(identity) for columns in extensions.load(extensions.COLUMNS))
        chosen = next((columns for columns in found if columns is not None), None)
    except InputError as error:
        raise DamagedRun(f"config.yaml: {error}") from None
    except Exception as error:  # a rule of any package, on a configuration that is not trusted
        raise DamagedRun(f"config.yaml: its columns cannot be made ({type(error).__name__}: {error})") from None
    named = flatten(identity) if chosen is None else chosen
    return {printable(str(key)): _scalar(value) for key, value in named.items()}, chosen is not None


def _scalar(value: Any) -> Any:
    """A table's cell: a number, a text or nothing."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _fits(value):
        return value
    return printable(value if isinstance(value, str) else json.dumps(value))


def read_status(run: RunDir) -> dict[str, Any]:
    """State, target, host, times, error and program, and what judges an epoch; epochs are counted, not believed."""
    try:
        status = run.read_status()
    except DamagedRun as damage:
        raise brief(damage, run) from None
    if status is None:
        raise DamagedRun(f"no {run.status.name}: not a run, or one that never began")
    return {key: _scalar(getattr(status, key)) for key in _STATUS} | {"maximize": status.maximize}


def _notes(run: RunDir) -> dict[str, str | None]:
    """The user's tags and note, None for nothing; if they cannot be read, the note says so."""
    try:
        found = notes.read(run)
    except (DamagedRun, OSError) as error:
        found = notes.Notes(text=str(brief(DamagedRun(str(error)), run)))
    return {"tags": ",".join(found.tags) or None, "note": printable(found.text) or None}


def _says_running(run: RunDir) -> bool:
    return b'"running"' in read_file(run.status)


def _provenance(run: RunDir) -> dict[str, Any]:
    """Of the session that trained last; None for what is not recorded."""
    try:
        session = read_json(run.provenance)["sessions"][-1]
        commit, packages, blas = session.get("git_commit"), session.get("packages"), session.get("blas")
        columns = {
            "git_commit": f"{commit}-dirty" if commit and session.get("git_dirty") else commit,
            "source_sha256": session.get("source_sha256"),
            "python": session.get("python"),
            "numpy": packages and packages.get("numpy"),
            "cpu": session.get("cpu"),
            "blas": ", ".join(" ".join(str(word) for word in pool.values() if word) for pool in blas or ()) or None,
        }
        threads = session.get("threads", session.get("blas_threads"))
        return {key: value if value is None else printable(str(value)) for key, value in columns.items()} | {
            "threads": threads if _is_count(threads) else None
        }
    except FileNotFoundError:
        return dict.fromkeys((*_PROVENANCE, "threads"))
    except DamagedRun as damage:
        raise brief(damage, run) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedRun(f"{run.provenance.name}: cannot be read ({type(error).__name__})") from None
