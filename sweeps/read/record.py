"""One run directory as plain data, or the reason why it is none: nothing in it is trusted.

Record    a run as the collector keeps it
read      run directory → Record
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from mlp.config import digest
from mlp.runs import DamagedRun, Epoch, RunDir, read_file
from mlp.schema import Check, InputError, integer, list_of, number, text

_LARGEST_CONFIG = 2**16  # bytes
_DEEPEST_CONFIG = 8
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

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
        raise _brief(damage, run) from None
    row = {"run": run.path.name, **_identity_columns(identity), **status, **_provenance_columns(run)}
    text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()  # lone surrogates fit no table
    matrix = np.array(metrics, float).reshape(-1, len(Epoch._fields))
    live = status["state"] == "running" or _says_running(run)
    return Record(run.path.name, signature, live, text, matrix.tobytes())


def read_identity(run: RunDir) -> dict[str, Any]:
    """config.yaml, when it is what the directory's name says.

    Raises:
        DamagedRun, OSError: it is missing, unreadable, or another run's.
    """
    name = run.config.name
    try:
        raw = read_file(run.config, _LARGEST_CONFIG)
    except FileNotFoundError:
        raise DamagedRun(f"no {name}: not a run") from None
    except DamagedRun as damage:
        raise _brief(damage, run) from None
    try:
        _check_events(raw)
        identity = yaml.load(raw, _LOADER)
        if not isinstance(identity, dict):
            raise ValueError("not a mapping")
        prefix, _, code = run.path.name.rpartition("-")
        of_this_name = prefix.startswith(f"{identity['activ']['name']}-{identity['loss']['name']}-")
        if not of_this_name or digest(identity)[:10] != code:
            raise DamagedRun(f"{name} does not match the directory's name")
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedRun(f"{name}: not a run's configuration ({reason})") from None
    return identity


def _check_events(raw: bytes) -> None:
    """Refuse what would blow up the reader: aliases (they multiply) and deep nesting (libyaml's loader recurses)."""
    depth = 0
    for event in yaml.parse(raw, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("has aliases")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > _DEEPEST_CONFIG:
            raise ValueError("too deep")


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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optim": {"lr": 0.1}}`` as ``{"optim.lr": 0.1}``; the data's checksums become one short word."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "checksums":
            flat[f"{prefix}{key}"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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
        raise _brief(damage, run) from None
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
        threads = session.get("blas_threads")
        return {key: value if value is None else printable(str(value)) for key, value in columns.items()} | {
            "blas_threads": threads if isinstance(threads, int) else None
        }
    except FileNotFoundError:
        return {}
    except DamagedRun as damage:
        raise _brief(damage, run) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedRun(f"{run.provenance.name}: cannot be read ({type(error).__name__})") from None


def _brief(damage: DamagedRun, run: RunDir) -> DamagedRun:
    """Without the path, which stands before the colon already."""
    return DamagedRun(str(damage).removeprefix(f"{run.path}/"))


def printable(value: str) -> str:
    """The text on one line, control characters written out: what a run directory holds may be hostile."""
    return value if value.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
