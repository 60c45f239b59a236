"""What is kept of runs: here alone are checkpoints and whole runs removed, and never one that is being trained.

select   names or filters → Selection
prune    checkpoints of finished runs
remove   runs

A run that other sweeps have too, or that a sweep still wants to take further, is left as it is unless it is asked for
by name or with ``force``.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from sweeps.read.collect import Collection, find_sweep, load, read_manifest
from sweeps.read.summary import column_of
from sweeps.runs import checkpoint
from sweeps.runs.command import counted, human_size
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import folder, listed
from sweeps.runs.reading import find
from sweeps.runs.status import State
from sweeps.search import record

_SHOWN = 8  # names in a line
_REMOVED = ".removed"  # under out: runs on their way out of it, which no reader takes for runs


@dataclass(frozen=True)
class Selection:
    """Runs of one results tree that a command is about."""

    out: Path
    runs: tuple[RunDir, ...]
    by_name: bool
    sweep: str | None
    collection: Collection | None
    """Where filters chose them."""

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each directory that filters cannot choose, since it cannot be read."""
        return self.collection.problems if self.collection else ()


@dataclass
class Outcome:
    """The result; of a dry run, what would be done."""

    runs: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    kept: dict[str, list[str]] = field(default_factory=dict)
    """Reason → the runs that were left as they are."""
    failed: bool = False
    """A file could not be removed."""

    def add(self, run: RunDir, files: Iterable[Path]) -> None:
        self.runs.append(run.path.name)
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                self.bytes += path.lstat().st_size
                self.files += 1

    def keep(self, run: RunDir, reason: str) -> None:
        self.kept.setdefault(reason, []).append(run.path.name)

    def lines(self, done: str) -> Iterator[str]:
        """``pruned 12 runs: 24 files, 3.4 MB``, and a line for each reason for which others are as they were."""
        yield f"{done} {counted(len(self.runs), 'run')}: {counted(self.files, 'file')}, {human_size(self.bytes)}"
        for reason, names in self.kept.items():
            some = ", ".join(map(printable, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
            yield f"kept {counted(len(names), 'run')} {reason}: {some}"


class _Kept(Exception):
    """The run stays as it is; the message says why."""


# ----------------------------------------------------------------------------------------------------------- selecting


def select(out: Path, words: Sequence[str], sweep: str | None = None) -> Selection:
    """Runs by name, in any state, or by filters: those that can be read. Without words, all of ``sweep`` or ``out``.

    Raises:
        InputError: there is no such run, it is not in ``out``, or names and filters are mixed.
    """
    named = [word for word in words if not re.search(r"[=<>!\s]", word)]
    if not named:
        sweep = None if sweep is None else find_sweep(out, sweep)
        collection = load(out, *words, sweep=sweep)
        return Selection(out, tuple(RunDir.of(out, name) for name in collection.runs["run"]), False, sweep, collection)
    if len(named) < len(words) or sweep is not None:
        raise InputError("run", named[0], "is a name; give names, or filters and --sweep")
    return Selection(out, tuple(dict.fromkeys(one(out, name) for name in named)), True, None, None)


def one(out: Path, name: str) -> RunDir:
    """A run of ``out`` by its id, the beginning of it, or its path.

    Raises:
        InputError: there is none, there are several, or it is not in ``out``.
    """
    run = find(out, name)
    if run.path.parent.resolve() != (out / "runs").resolve():
        raise InputError("run", printable(name), f"is not in {printable(str(out))}; name its tree with --out")
    return RunDir.of(out, run.path.name)


class _Sweeps:
    """Which sweeps have a run, and how far they want to take it."""

    def __init__(self, selection: Selection) -> None:
        self._own = selection.sweep
        self._of: dict[str, list[str]] = {}
        self._epochs: dict[str, tuple[int, str]] = {}
        for place in _listed(selection.out, "sweeps"):
            if not os.path.lexists(place / "manifest.json"):
                continue
            name = place.name
            further = _goes_on(place)
            for entry in read_manifest(selection.out, name)["runs"]:
                run, epochs = entry["run_id"], entry.get("epochs")
                self._of.setdefault(run, []).append(name)
                wanted = (max(epochs if isinstance(epochs, int) else 0, further), name)
                self._epochs[run] = max(self._epochs.get(run, (0, "")), wanted)

    def refuse_shared(self, run: RunDir) -> None:
        """Raise :class:`_Kept` if a sweep has the run that was not asked about."""
        others = [name for name in self._of.get(run.path.name, ()) if name != self._own]
        if len(others) > (self._own is None):
            too = "" if self._own is None else " too"
            raise _Kept(f"of the sweep{'s' * (len(others) > 1)} {', '.join(map(printable, others))}{too}")

    def refuse_wanted(self, run: RunDir, epochs: int) -> None:
        """Raise :class:`_Kept` if a sweep may still continue it."""
        wanted, name = self._epochs.get(run.path.name, (0, ""))
        if wanted > epochs:
            raise _Kept(f"that the sweep {printable(name)} may take to epoch {wanted}")


def _goes_on(sweep: Path) -> int:
    """The epoch to which a halving search that is not over may still take any of its runs; 0 otherwise."""
    search = record.read(sweep)
    if search is None or search.method != "halving":
        return 0
    most = search.definition.get("epochs")
    reached = [epochs for trial in search.trials for epochs, _ in trial.rungs]
    if not isinstance(most, int) or (most in reached and all(trial.state != "running" for trial in search.trials)):
        return 0
    return most


# ------------------------------------------------------------------------------------------------------------ removing


def prune(selection: Selection, keep: str = "last", *, force: bool = False, dry_run: bool = False) -> Outcome:
    """Remove checkpoints of finished and diverged runs, which stay what they are: results, and never trained again.

    Args:
        keep: ``last``: remove only the one before the last, which serves if that is damaged. ``none``: both. ``best``
            or ``best:3``: both, but of the runs whose last epoch is the best.

    Raises:
        InputError: ``keep`` is none of these, or nothing says which run is the best.
    """
    best = _best(selection, keep)
    sweeps = None if selection.by_name or force else _Sweeps(selection)

    def act(run: RunDir, outcome: Outcome) -> None:
        try:
            status = run.read_status()
        except DamagedRun:
            raise _Kept("that cannot be read") from None
        if status is None or not status.state.is_result:
            raise _Kept("that are not finished, and continue from their checkpoints")
        is_spare = keep == "last" or run.path.name in best
        if sweeps and not is_spare:
            sweeps.refuse_shared(run)
            if status.state == State.FINISHED:  # diverged ones go no further
                sweeps.refuse_wanted(run, status.target)
        files = [path for path in (run.checkpoint_before, run.checkpoint) if os.path.lexists(path)]
        files = files[:-1] if is_spare and run.checkpoint in files else files * (not is_spare)
        if files:
            outcome.add(run, files)
            if not dry_run:
                (checkpoint.remove_spare if is_spare else checkpoint.remove)(run)

    return _each(selection, act, dry_run)


def _best(selection: Selection, keep: str) -> frozenset[str]:
    """Names of the runs whose last checkpoint stays."""
    if keep in ("last", "none"):
        return frozenset()
    match = re.fullmatch("best(?::([1-9][0-9]{0,8}))?", keep)
    if not match:
        raise InputError("--keep", keep, "must be last, none, best, or best:3 for the three best")
    collection = selection.collection or load(selection.out)
    metric = collection.metric
    runs = collection.runs[collection.runs["run"].isin([run.path.name for run in selection.runs])]
    if runs["program"].nunique() > 1:
        raise InputError("--keep", keep, f"needs runs of one program; choose by program={runs['program'].iloc[0]}")
    if metric is None or column_of(metric, runs) not in runs:
        raise InputError("--keep", keep, "needs runs that say what they are judged by")
    ranked = runs[runs["state"] == State.FINISHED].sort_values(
        column_of(metric, runs), ascending=not collection.maximize, kind="stable", na_position="last"
    )
    return frozenset(ranked["run"].head(int(match[1] or 1)))


def remove(selection: Selection, *, force: bool = False, dry_run: bool = False) -> Outcome:
    """Remove whole runs. Each is renamed away first, so that a kill in between leaves no half run."""
    sweeps = None if selection.by_name or force else _Sweeps(selection)

    def act(run: RunDir, outcome: Outcome) -> None:
        if sweeps:
            sweeps.refuse_shared(run)
        outcome.add(run, run.files())
        if not dry_run:
            gone = folder(selection.out, _REMOVED) / f"{run.path.name}-{secrets.token_hex(4)}"
            run.move(gone)
            _delete(gone)

    if not dry_run:
        for left in _left_behind(selection.out):
            _delete(left)
    outcome = _each(selection, act, dry_run)
    with contextlib.suppress(OSError):
        (selection.out / _REMOVED).rmdir()
    return outcome


def _left_behind(out: Path) -> list[Path]:
    """What an earlier removal was killed over."""
    return _listed(out, _REMOVED)


def _listed(out: Path, name: str) -> list[Path]:
    """The folders in ``out``/name."""
    try:
        return [Path(entry.path) for entry in listed(out, name) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # another process may be at it too
    if os.path.lexists(path):
        raise OSError(errno.EBUSY, "cannot be removed whole", str(path))


def _each(selection: Selection, act: Callable[[RunDir, Outcome], None], dry_run: bool) -> Outcome:
    """Act on each run under its lock; a run with an error is kept, and the others are handled."""
    outcome = Outcome()
    for run in selection.runs:
        try:
            if dry_run and run.is_locked():
                raise _Kept(_TRAINED)
            with contextlib.nullcontext() if dry_run else run.lock().acquire(timeout=0):
                act(run, outcome)
        except Timeout:
            outcome.keep(run, _TRAINED)
        except _Kept as why:
            outcome.keep(run, str(why))
        except OSError as error:
            outcome.keep(run, f"({error.strerror or error})")
            outcome.failed = True
    return outcome


_TRAINED = "that are being trained"
