"""Find a run directory by name and read it without trust: its files may be damaged, or someone else's.

find            id, beginning of it, or path → RunDir
read_identity   config.yaml, checked against the directory's name
read_composed   the whole configuration that Hydra composed, where it did
"""

from pathlib import Path
from typing import Any

import yaml

from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import read_file
from sweeps.runs.identity import digest
from sweeps.runs.schema import suggest

_LARGEST_CONFIG = 2**16  # bytes
_DEEPEST_CONFIG = 8
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find(out: Path, name: str) -> RunDir:
    """A run by its id, by the beginning of it or of its code (``1a2b``), or by its path.

    Raises:
        InputError: none, or more than one.
    """
    if "/" in name and Path(name).is_dir():
        return RunDir(Path(name).resolve())
    runs = {run.path.name: run for run in run_dirs(out)}
    if name in runs:
        return runs[name]
    found = [key for key in runs if name and (key.startswith(name) or key.rpartition("-")[2].startswith(name))]
    if not found:
        raise InputError("run", printable(name), f"no such run in {out}{printable(suggest(name, runs))}")
    if len(found) > 1:
        some = ", ".join(map(printable, found[:8])) + (", …" if len(found) > 8 else "")
        raise InputError("run", printable(name), f"{len(found)} runs begin so: {some}")
    return runs[found[0]]


def read_identity(run: RunDir) -> dict[str, Any]:
    """config.yaml, checked against the directory's name.

    Raises:
        DamagedRun, OSError: it is missing, unreadable, or another run's.
    """
    name = run.config.name
    try:
        raw = read_file(run.config, _LARGEST_CONFIG)
    except FileNotFoundError:
        raise DamagedRun(f"no {name}: not a run") from None
    except DamagedRun as damage:
        raise brief(damage, run) from None
    try:
        check_events(raw)
        identity = yaml.load(raw, _LOADER)
        if not isinstance(identity, dict):
            raise ValueError("not a mapping")
        if digest(identity)[:10] != run.path.name.rpartition("-")[2]:
            raise DamagedRun(f"{name} does not match the directory's name")
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedRun(f"{name}: not a run's configuration ({reason})") from None
    return identity


def read_composed(run: RunDir) -> dict[str, Any]:
    """Hydra's record of the run's whole configuration, with what decides no result; empty if none can be read."""
    try:
        raw = read_file(run.path / ".hydra" / "config.yaml", _LARGEST_CONFIG)
        check_events(raw)
        composed = yaml.load(raw, _LOADER)
    except (OSError, DamagedRun, yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return composed if isinstance(composed, dict) else {}


def check_events(raw: bytes) -> None:
    """Refuse what would exhaust the reader: aliases (they multiply) and deep nesting (libyaml's loader recurses)."""
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


def brief(damage: DamagedRun, run: RunDir) -> DamagedRun:
    """Without the path, for messages that name the run already."""
    return DamagedRun(str(damage).removeprefix(printable(f"{run.path}/")))


def no_formula(value: str) -> str:
    """The text for a CSV file, which spreadsheets read: with an apostrophe where they would take it for a formula."""
    if value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
