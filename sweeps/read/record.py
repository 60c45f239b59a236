"""One run directory as plain data, or the reason why it is not a run: nothing in it is trusted.

Record    a run as the collector keeps it
read      run directory → Record
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.read import extensions
from sweeps.runs import metrics, notes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import read_file, read_if_there
from sweeps.runs.identity import flatten
from sweeps.runs.reading import brief, printable, read_identity

_MOST_METRICS = 1000  # a stranger's run must not widen the table of all epochs beyond the memory
_STATUS = ("state", "target", "host", "started", "updated", "error", "program", "metric")


@dataclass(frozen=True)
class Record:
    """A run, flat enough for a cache."""

    name: str
    signature: str
    """Of its files when they were read, as the caller gave it."""
    live: bool
    """It says that it is running; whether that is so must be checked each time."""
    row: str
    """JSON: ``config``, columns of the configuration, apart from status and provenance, so that no key hides those;
    ``ruled``: their names are the program's own."""
    columns: str
    """JSON: ``epoch``, then the names of its metrics."""
    epochs: bytes
    """(n, len(columns)) float64."""


def read(run: RunDir, signature: str) -> Record:
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
    text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()  # lone surrogates fit no table
    names = metrics.columns(history) if history else _header(run)
    if len(names) > _MOST_METRICS:
        raise DamagedRun(f"{run.metrics.name}: {len(names)} columns; at most {_MOST_METRICS} are read")
    whole = all(len(row) == len(names) for row in history)  # then each has them in this order
    rows = ([*row.values()] if whole else [row.get(name, np.nan) for name in names] for row in history)
    matrix = np.array([*rows], float)
    live = status["state"] == "running" or _says_running(run)
    return Record(run.path.name, signature, live, text, json.dumps(names), matrix.tobytes())


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
    except Exception as error:  # a rule of any package, on a configuration that may be a stranger's
        raise DamagedRun(f"config.yaml: its columns cannot be made ({type(error).__name__}: {error})") from None
    named = flatten(identity) if chosen is None else chosen
    return {printable(str(key)): _scalar(value) for key, value in named.items()}, chosen is not None


def _scalar(value: Any) -> Any:
    """A table's cell: a number, a text or nothing."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return printable(value if isinstance(value, str) else json.dumps(value))


def read_status(run: RunDir) -> dict[str, Any]:
    """State, target, host, times, error and program, and what judges an epoch; epochs are counted, not believed."""
    try:
        status = run.read_status()
    except DamagedRun as damage:
        raise brief(damage, run) from None
    except RecursionError:
        raise DamagedRun(f"{run.status.name}: not a run's status (nested)") from None
    if status is None:
        raise DamagedRun(f"no {run.status.name}: not a run, or one that never began")
    columns = dataclasses.asdict(status)
    if not isinstance(status.target, int) or not 0 < status.target < 2**63:
        raise DamagedRun(f"{run.status.name}: not a run's status (target {printable(repr(status.target))})")
    return {key: _scalar(columns[key]) for key in _STATUS} | {"maximize": bool(status.maximize)}


def _notes(run: RunDir) -> dict[str, str]:
    """What the user says of it; if that cannot be read the note says so, for the run itself can."""
    try:
        found = notes.read(run)
    except (DamagedRun, OSError) as error:
        found = notes.Notes(text=str(brief(DamagedRun(str(error)), run)))
    return {"tags": ",".join(found.tags), "note": printable(found.text)}


def _says_running(run: RunDir) -> bool:
    return b'"running"' in read_file(run.status)


def _provenance(run: RunDir) -> dict[str, Any]:
    """Of the session that trained last; None for what is not recorded."""
    try:
        session = json.loads(read_file(run.provenance))["sessions"][-1]
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
            "threads": threads if isinstance(threads, int) else None
        }
    except FileNotFoundError:
        return {}
    except DamagedRun as damage:
        raise brief(damage, run) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedRun(f"{run.provenance.name}: cannot be read ({type(error).__name__})") from None
