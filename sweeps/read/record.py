"""One run directory as plain data, or the reason why it is none: nothing in it is trusted.

Record    a run as the collector keeps it
read      run directory → Record
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp.config import flatten
from mlp.files import DamagedRun, read_file
from mlp.reading import brief, printable, read_identity
from mlp.runs import Epoch, RunDir
from mlp.schema import Check, InputError, integer, list_of, number, text

# The identity's fields that are columns under a name of their own; all others keep their dotted name.
_COLUMNS: Mapping[str, tuple[str, Check]] = {
    "activ.name": ("activ", text()),
    "loss.name": ("loss", text()),
    "optim.name": ("optim", text()),
    "data.name": ("data", text()),
    "optim.lr": ("lr", number()),
    "optim.wd": ("wd", number()),
    "optim.mo": ("mo", number()),
    "bsz": ("bsz", integer(ge=1)),
    "seed": ("seed", integer(ge=0, le=2**63 - 1)),
    "dtype": ("dtype", text()),
    "eval_train": ("eval_train", text()),
    "model.init_std": ("init_std", number()),
}
_HIDDEN = list_of(integer(ge=1), allowed="must be a list of layer widths", at_most=1000)


@dataclass(frozen=True)
class Record:
    """A run, flat enough for a cache."""

    name: str
    signature: str
    """Of its files when they were read, as the caller gave it."""
    live: bool
    """It says that it is running; whether that is so must be asked anew each time."""
    row: str
    """JSON: identity, status and provenance by column."""
    epochs: bytes
    """(n, len(Epoch._fields)) float64."""


def read(run: RunDir, signature: str) -> Record:
    """Everything but the checkpoint and the log.

    Raises:
        DamagedRun, OSError: it is not a run, or a damaged one.
    """
    identity = read_identity(run)
    status = read_status(run)
    try:
        _, metrics = run.read()
    except DamagedRun as damage:
        raise brief(damage, run) from None
    row = {"run": run.path.name, **_identity_columns(identity), **status, **_provenance_columns(run)}
    text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()  # lone surrogates fit no table
    matrix = np.array(metrics, float).reshape(-1, len(Epoch._fields))
    live = status["state"] == "running" or _says_running(run)
    return Record(run.path.name, signature, live, text, matrix.tobytes())


def _identity_columns(identity: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(identity)
    hidden = flat.pop("model.hidden", None)
    columns: dict[str, Any] = {}
    try:
        for field, (column, check) in _COLUMNS.items():
            columns[column] = check(field, flat.pop(field, None))
        _HIDDEN("model.hidden", hidden)
    except InputError as error:
        raise DamagedRun(f"config.yaml: {error}") from None
    columns["model"], columns["layers"] = "x".join(map(str, hidden or ())), len(hidden or ())
    return {printable(key): _scalar(value) for key, value in (flat | columns).items()}


def _scalar(value: Any) -> Any:
    """A table's cell: a number, a text or nothing."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return printable(value if isinstance(value, str) else json.dumps(value))


def read_status(run: RunDir) -> dict[str, Any]:
    """State, target, host, times and error; epochs are counted, not believed."""
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
    return {key: _scalar(columns[key]) for key in ("state", "target", "host", "started", "updated", "error")}


def _says_running(run: RunDir) -> bool:
    return b'"running"' in read_file(run.status)


def _provenance_columns(run: RunDir) -> dict[str, Any]:
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
