"""Where ``scripts/faults`` and ``scripts/soak`` work: small data, commands to train on it, and how they came out."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import mlp
import sweeps
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import DamagedRun

CLOCK = ("seconds", "eval_seconds")
EPOCHS = 120
RUNS = 4
SWEEP = f"seed=range(0,{RUNS})"


class Skipped(Exception):
    """This machine, or this user, cannot have the fault; the message says why."""


@dataclass(frozen=True)
class Trial:
    """One fault and what came of it."""

    survived: bool  # the same command finished, with the same bits
    lost: int = 0  # complete epochs that had to be trained again
    seen: str = ""  # if something went wrong


class Lab:
    """Small data, the command lines that train on them, and how undisturbed runs came out."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self._count = 0
        self.environment = os.environ | {"MLP_CACHE": str(folder / "cache"), "OPENBLAS_NUM_THREADS": "1"}
        centres = np.random.default_rng(1).normal(0, 1.5, (3, 20))
        numbers = np.random.default_rng(2)
        arrays = {}
        for part, count in (("train", 640), ("test", 200)):
            y = numbers.integers(0, 3, count)
            arrays |= {f"y_{part}": y, f"x_{part}": (centres[y] + numbers.normal(size=(count, 20))).astype(np.float32)}
        np.savez(folder / "clouds.npz", **arrays)  # type: ignore[arg-type]
        self.reference = folder / "reference"
        assert self.end(self.start(self.reference, SWEEP))[0] == 0
        assert all(run.steps.exists() and run.items.exists() for run in run_dirs(self.reference))

    def fresh(self) -> Path:
        """A results tree that is not there yet."""
        self._count += 1
        return self.folder / f"out{self._count}"

    def command(self, out: Path, *words: str) -> list[str]:
        """One run; a sweep if a word has several values."""
        data = ("data=npz", f"data.path={self.folder}/clouds.npz", "model.hidden=[16]", "bsz=10", f"epochs={EPOCHS}")
        sweep = ("--multirun", "hydra.launcher.workers=2", "hydra.launcher.retries=50")
        varies = any("range" in word or "],[" in word for word in words)
        start = [sys.executable, "-m", "mlp.train", *(sweep if varies else ())]
        return [*start, *data, f"out={out}", "threads=1", *words]

    def start(self, out: Path, *words: str, before: Sequence[str] = (), **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*before, *self.command(out, *words)], cwd=self.folder, env=self.environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def sweep_here(self, out: Path) -> None:
        """The sweep by ``sweeps.sweep``, of this process; raises if a run did not finish."""
        os.environ |= {name: self.environment[name] for name in ("MLP_CACHE", "OPENBLAS_NUM_THREADS")}
        data = {"data": "npz", "data.path": str(self.folder / "clouds.npz")}
        grid = {"model.hidden": [[16]], "bsz": [10], "threads": [1], "seed": list(range(RUNS))}
        given = {"epochs": EPOCHS, "out": out, "workers": 2, "retries": 50, "quiet": True}
        result = sweeps.sweep(mlp.program, {**data, **grid}, **given)
        if len(result.runs) != RUNS or set(result.runs["state"]) != {"finished"}:
            raise RuntimeError(f"not all finished: {result.runs['state'].tolist()}")

    @staticmethod
    def end(process: "subprocess.Popen[str]", seconds: float = 300) -> tuple[int, str]:
        """Exit status and all output; one that hangs is killed with its family, and its status is -9."""
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += "\nHUNG"
        return process.returncode, output

    def moment(self, process: "subprocess.Popen[str]", out: Path) -> None:
        """Let a random time pass: half of the time anywhere from the start on, half of it while it trains."""
        if self.rng.random() < 0.5:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.rng.uniform(0, 2))
            return
        before = rows(out)
        while process.poll() is None and rows(out) == before:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0, 0.4))

    def again(self, out: Path, *words: str, but: Collection[str] = ()) -> Trial:
        """The same command once more, undisturbed, and what it comes to; ``but`` are files that did not survive."""
        lost = sum(epochs_lost(run) for run in run_dirs(out))
        status, output = self.end(self.start(out, *words))
        wrong = differences(out, self.reference, but)
        if status or wrong or "Traceback" in output:
            return Trial(False, lost, f"status {status}; {'; '.join(wrong[:3])}; {output[-1500:]}")
        return Trial(True, lost)


def rows(out: Path) -> int:
    """Rows of all metrics.csv, roughly."""
    return sum(path.stat().st_size for path in out.glob("runs/*/metrics.csv"))


def epochs_lost(run: RunDir) -> int:
    """Epochs that are complete by the run's status and in no checkpoint that can be read."""
    try:
        status = run.read_status()
    except DamagedRun:
        return 0
    return max(0, status.epoch - resumes_at(run)) if status else 0


def resumes_at(run: RunDir) -> int:
    for path in (run.checkpoint, run.checkpoint_before):
        with contextlib.suppress(Exception), np.load(path) as file:
            return len(file["history"])
    return 0


def differences(out: Path, reference: Path, but: Collection[str] = ()) -> list[str]:
    """What is not as in the undisturbed tree, but for the clocks; runs that were not asked for do not count."""
    wrong = []
    for run in run_dirs(out):
        other = RunDir.of(reference, run.path.name)
        try:
            status = run.read()[0]
            state = status.state if status else "none"
            ours, theirs = content(run), content(other)
            names = sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))
            differ = ", ".join(name for name in names if name not in but)
            if differ or state != "finished":
                wrong.append(f"{run.path.name} ({state}): {differ or 'nothing'} differs")
        except (DamagedRun, OSError, ValueError) as error:
            wrong.append(f"{run.path.name}: {error}")
    return wrong or ([] if any(run_dirs(out)) else ["no run at all"])


def content(run: RunDir) -> dict[str, Any]:
    """All that training came to, by file, and an array of the checkpoint by its name."""
    table = [[(name, value) for name, value in row.items() if name not in CLOCK] for row in run.read_metrics()]
    with np.load(run.checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    clock = [list(arrays["columns"]).index(name) for name in CLOCK]
    arrays["history"] = np.delete(arrays["history"], clock, axis=1)
    found: dict[str, Any] = {"metrics.csv": repr(table)}
    found |= {path.name: path.read_bytes() for path in (run.steps, run.items) if path.exists()}
    return found | {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def kill_all(process: "subprocess.Popen[Any]") -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return []


def is_worker(process: psutil.Process) -> bool:
    """Of a sweep."""
    with contextlib.suppress(psutil.Error):
        return any("sweeps-worker" in word for word in process.cmdline())
    return False
