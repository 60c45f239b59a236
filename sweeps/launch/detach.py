"""Detached sweeps: the commands that work on them, or an array of Slurm jobs."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeps.launch.manifest import Manifest
from sweeps.runs.command import printed
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import append, read_file
from sweeps.runs.schema import fields, flag, integer, list_of, optional, text

Leave = Callable[[Manifest], None]
"""Says how a planned sweep continues without this process, or submits it."""


def say(manifest: Manifest, workers: int, sbatch: str | None = None) -> None:
    """Print the commands that work on a sweep, watch it and stop it."""
    log = shlex.quote(str(manifest.folder / "work.log"))
    here = shlex.join(_work(manifest, workers))
    print(f"nothing runs yet; each of these works on it, as often as you like and wherever {manifest.out} is seen:")
    print(f"  here:   nohup {here} >>{log} 2>&1 &")
    print(f"  Slurm:  {sbatch or shlex.join(Slurm().sbatch(manifest))}")
    _say_how_to_follow(manifest)


def _say_how_to_follow(manifest: Manifest) -> None:
    out = ["--out", str(manifest.out)]
    print(f"look:     {printed(['mlp-sweeps', 'watch', '--sweep', manifest.name, *out])}")
    print(f"end it:   {printed(['mlp-sweeps', 'stop', manifest.name, *out])}")


def _work(manifest: Manifest, workers: int) -> list[str]:
    number = ["--workers", str(workers)] if workers > 1 else []
    return [sys.executable, "-m", "sweeps", "work", manifest.name, "--out", str(manifest.out), *number]


def _array(field: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return f"1-{value}"
    if isinstance(value, str) and re.fullmatch(r"[0-9][0-9,:-]*(%[0-9]+)?", value):
        return value
    raise InputError(field, value, "must be a number of tasks ≥ 1, or as sbatch --array has it: 1-16%4")


_OPTIONS = {
    "submit": flag(),
    "array": _array,
    "partition": optional(text()),
    "time": optional(text()),
    "cpus": integer(ge=1, le=1024),
    "workers": optional(integer(ge=1, le=1024)),
    "threads": integer(ge=1, le=1024),
    "args": optional(list_of(text(), allowed="must be a list of sbatch's options", at_most=100)),
}


@dataclass(frozen=True)
class Slurm:
    """See conf/hydra/launcher/slurm.yaml."""

    submit: bool = False
    array: str = "1-4"
    partition: str | None = None
    time: str | None = None
    cpus: int = 1
    workers: int | None = None
    threads: int = 1
    args: list[str] | None = None

    @classmethod
    def of(cls, **values: object) -> "Slurm":
        """Check the launcher's options.

        Raises:
            InputError: names the option; or there is no sbatch to submit with.
        """
        options = cls(**fields(_OPTIONS, "hydra.launcher.", values))
        if options.submit and shutil.which("sbatch") is None:
            raise InputError(
                "hydra/launcher", "slurm", "needs sbatch, which is not on PATH; hydra.launcher.submit=false prints the "
                "command for a machine that has it"
            )  # fmt: skip
        return options

    @property
    def slots(self) -> int:
        """Runs at once, if all tasks run at once."""
        tasks, _, limit = self.array.partition("%")
        sizes = [part.partition(":") for part in tasks.split(",")]
        ends = [(span.partition("-"), int(step or 1)) for span, _, step in sizes]
        count = sum(len(range(int(a), int(b or a) + 1, step)) for (a, _, b), step in ends)
        return max(1, min(count, int(limit or count))) * self._workers

    @property
    def _workers(self) -> int:
        return self.workers or max(1, self.cpus // self.threads)

    def sbatch(self, manifest: Manifest) -> list[str]:
        """The command that submits the array."""
        given = {"partition": self.partition, "time": self.time, "cpus-per-task": self.cpus if self.cpus > 1 else None}
        log = str(manifest.folder).replace("%", "%%") + "/slurm-%A_%a.log"
        return [
            "sbatch", f"--array={self.array}", f"--job-name={manifest.name}", f"--output={log}",
            *(f"--{key}={value}" for key, value in given.items() if value is not None), *(self.args or []),
            "--wrap", f"exec {shlex.join(_work(manifest, self._workers))}",  # exec: signals reach it, and no shell
        ]  # fmt: skip

    def leave(self, manifest: Manifest) -> None:
        """Submit it, or print how.

        Raises:
            InputError: Slurm refuses it; quotes its reason.
        """
        if not self.submit:
            say(manifest, self._workers, shlex.join(self.sbatch(manifest)))
            return
        command, *words = self.sbatch(manifest)
        done = subprocess.run([command, "--parsable", *words], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise InputError("hydra/launcher", "slurm", said[-1])
        job = done.stdout.strip().partition(";")[0]
        append(_submitted(manifest), f"{job}\n".encode())
        print(
            f"submitted as Slurm's array {job}, tasks {self.array}; their logs are {manifest.folder}/slurm-{job}_*.log"
        )
        _say_how_to_follow(manifest)


def _submitted(manifest: Manifest) -> Path:
    return manifest.folder / "slurm-jobs"


def call_back(manifest: Manifest) -> None:
    """Cancel the tasks that wait in Slurm's queue: they would start after the stop."""
    try:
        jobs = [line.decode() for line in read_file(_submitted(manifest)).splitlines() if line.isdigit()]
    except (OSError, DamagedRun):
        return
    if not jobs:
        return
    command = ["scancel", "--state=PENDING", *jobs]
    if shutil.which("scancel"):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    else:
        print(f"tasks that wait in Slurm's queue are cancelled by: {shlex.join(command)}")
