"""``mlp-sweeps work``: a worker that trains the remaining runs of sweeps; any number of them, on any machine."""

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sweeps.launch import detach
from sweeps.launch.job import Job, failed_since
from sweeps.launch.manifest import Manifest
from sweeps.launch.plan import split
from sweeps.launch.planned import opened, plans
from sweeps.launch.plugins import SweepLauncher
from sweeps.launch.pool import Pool
from sweeps.read.collect import find_sweep, read_manifest, sweep_names
from sweeps.runs.command import printed
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.schema import integer
from sweeps.runs.status import State


def work(out: Path, names: Sequence[str], *, workers: int, max_time: float, trust: bool) -> int:
    """Train the remaining runs of the sweeps; of all that are planned under ``out`` if none is named.

    Args:
        max_time: seconds after which to stop at a checkpoint.
        trust: also what another user planned.

    Returns:
        Exit status: 0 all finished, 1 a run failed or is left, 128 + n on signal n.

    Raises:
        InputError: no such sweep, or its plan cannot be used.
    """
    end = time.monotonic() + max_time
    workers = integer(ge=1, le=1024)("--workers", workers)
    out = Path(os.path.abspath(out))
    names = [find_sweep(out, name) for name in names] or [name for name in sweep_names(out) if plans(out, name)]
    todo = [_Plan(out, name, path, end, trust) for name in names for path in _plans(out, name)]
    if not todo:
        print(f"nothing is planned in {out}")
    passes = (False, True) if len(todo) > 1 else (True,)  # for others' runs only when nothing else is left
    signum = None
    for wait, plan in itertools.product(passes, todo):
        signum = signum or plan.work(workers, wait)
    for plan in todo:
        plan.tell()
    if signum:
        return 128 + signum
    return 0 if all(plan.is_done for plan in todo) else 1


def _plans(out: Path, name: str) -> list[Path]:
    """Of a sweep that is there; the newest first.

    Raises:
        InputError: there is no such sweep, or workers cannot continue it.
    """
    command = read_manifest(out, name)["command"]
    found = plans(out, name)
    if not found:
        raise InputError("sweep", name, f"has no plan to work on; continue with its own command: {printed(command)}")
    return found


class _Plan:
    """A worker's part in one of a sweep's plans."""

    def __init__(self, out: Path, name: str, path: Path, end: float, trust: bool) -> None:
        self._out, self._name, self._path, self._end, self._trust = out, name, path, end, trust
        self._manifest = Manifest(out, name)
        self._states: Counter[State] | None = None
        """The states of its runs; None before they were read."""

    @property
    def is_done(self) -> bool:
        return self._states is not None and all(state.is_result for state in self._states)

    def _halt(self) -> str | None:
        if time.monotonic() > self._end:
            return "stopping at a checkpoint, since --max-time is over"
        return self._manifest.halt()

    def work(self, workers: int, wait: bool) -> int | None:
        """Train what is left; returns the signal that ended it, if one did."""
        if self._states is not None and (self._halt() or not self._states[State.INTERRUPTED]):
            return None
        with opened(self._path, self._out, trust=self._trust) as (program, plan):
            ended, left = split(plan.jobs, program)
            failed = [job for job in left if failed_since(job)]
            left = sorted((job for job in left if job not in failed), key=_has_begun)
            states = Counter(result.state for result in ended) + Counter({State.FAILED: len(failed)})
            status = 0
            if left:
                print(f"{self._name}: {_counted(states + Counter({State.INTERRUPTED: len(left)}))}", flush=True)
                pool = partial(Pool, workers=workers, threads=plan.threads)
                launcher = SweepLauncher(pool, workers, plan.threads, vars(plan.policy))
                launcher.program = program
                results, status = launcher.run(
                    plan, left, self._manifest, reused=len(ended), halt=self._halt, wait=wait
                )
                states += Counter(result.state for result in results)
            self._states = states
        return status - 128 if status > 128 else None

    def tell(self) -> None:
        """How the sweep stands, and what continues it."""
        if self._states is None:  # a signal came first
            return
        print(f"{self._name}: {_counted(self._states)}")
        if self._states[State.INTERRUPTED]:
            print("  to continue: repeat the command, or start any other worker")
        if self._states[State.FAILED]:
            command = printed(read_manifest(self._out, self._name)["command"])
            print(f"  failed runs are tried again by the sweep's own command: {printable(command)}")


def _has_begun(job: Job) -> bool:
    return job.run.status.exists()


def _counted(states: Counter[State]) -> str:
    words = {State.INTERRUPTED: "left"}
    return ", ".join(f"{states[state]} {words.get(state, state)}" for state in State if states[state]) or "no runs"


def stop(out: Path, names: Sequence[str]) -> None:
    """End the sweeps at checkpoints, on any machine; workers that start later are not stopped.

    Raises:
        InputError: no such sweep.
    """
    out = Path(os.path.abspath(out))
    names = [find_sweep(out, name) for name in names]
    runs = {name: [run["run_id"] for run in read_manifest(out, name)["runs"]] for name in names}
    for name in names:
        manifest = Manifest(out, name)
        manifest.stop()
        detach.call_back(manifest)
        at_work = [worker for run in runs[name] if (worker := _trained_by(RunDir.of(out, run)))]
        print(f"{name}: told to stop; {len(at_work)} runs are being trained" + "".join(f"\n  {w}" for w in at_work))


def _trained_by(run: RunDir) -> str | None:
    try:
        status = run.read_status()
    except DamagedRun:
        return None
    if status is None or status.state != State.RUNNING:
        return None
    return printable(f"{run.path.name} by {status.worker}")


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def seconds(field: str, value: str) -> float:
    """``55m``, ``1h30m``, ``90s`` or ``90`` in seconds.

    Raises:
        InputError: it is not such a time.
    """
    match = _DURATION.fullmatch(value)
    if not match or not any(match.groups()):
        raise InputError(field, value, "must be a time like 55m, 1h30m or 90s")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + rest)
