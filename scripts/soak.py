"""A soak: small sweeps without a pause, for hours, faults thrown in, and a look every few seconds at what could leak.

Three at a time, all in one temporary directory:

* a *resident*: one Python process that sweeps through :func:`sweeps.sweep`, collects, checks and draws, over and over;
  its workers are killed now and then;
* a *long sweep* of thousands of short jobs, by the command line and undisturbed, so that its main process and its
  worker grow old;
* the faults of ``scripts/faults``, one after another in random order, each with its own check of bits and losses.

It fails if a fault is not survived, a sweep fails, a process outlives its sweep, a file is left in the temporary
directory, the results trees or /dev/shm, or if the memory, threads or file descriptors of a process keep growing. What
other programs leave in /dev/shm meanwhile is counted too: run none beside it.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from faults import FAULTS, network_gone, out_of_memory, workers
from lab import Lab, Skipped, Trial, is_worker, kill_all
from machine import machine

LONG = 2000  # jobs of the long sweep, which takes about a quarter of an hour
EVERY = 10.0  # seconds between looks
GROWTH = 1.05  # of memory, from the second fifth of a process's life to its last one
SHARED = Path("/dev/shm")
_N = TypeVar("_N", int, float)
MARK = "MLP_SOAK"  # in the environment of every process that descends from this one


# ------------------------------------------------------------------------------------------------------------- resident


def reside(folder: Path) -> None:
    """Sweep, collect, check and draw in one process, until it is killed; ``sweeps.txt`` has a line for each round."""
    import mlp
    import sweeps
    from sweeps.cli import main as command

    os.chdir(folder)
    number = 0
    while True:
        out = folder / f"resident{number}"
        seeds = [number * 6 + i for i in range(6)]
        words = ["data=npz", f"data.path={folder}/clouds.npz", "model.hidden=[16]", "bsz=10", "threads=1"]
        found = sweeps.sweep(
            mlp.program, {"seed": seeds}, *words, "hydra.launcher.retries=50", out=out, epochs=60, workers=2, quiet=True
        )
        wrong = "" if list(found.runs["epoch"]) == [60] * 6 else str(found.runs[["run", "state", "epoch"]])
        sizes = found.steps().groupby(["run", "epoch"]).size(), found.items("test_correct").shape
        wrong += "" if list(sizes[0]) == [2] * 6 * 60 and sizes[1] == (6, 200) else f"steps and items: {sizes}"
        if number % 10 == 0:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                for words in (("collect",), ("report",), ("curves", "--by", "seed")):
                    wrong += f"{words} failed; " if command([*words, "--out", str(out)]) else ""
        wrong += " ".join(leftovers(out))
        with (folder / "sweeps.txt").open("a") as file:
            file.write(f"{wrong or 'ok'}\n".replace("\n", " ").strip() + "\n")
        shutil.rmtree(out)
        number += 1


def leftovers(out: Path) -> list[str]:
    """Files that a sweep should have removed."""
    return [str(path) for path in out.rglob("*") if path.name.startswith((".tmp", "tmp")) or ".tmp" in path.suffixes]


# -------------------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True)
class Look:
    """One process at one moment."""

    minute: float
    subject: str
    pid: int
    rss: float  # MB
    files: int
    threads: int
    children: int


class Observer:
    """Looks at processes every few seconds."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._processes: dict[str, psutil.Process] = {}
        self._start = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def follow(self, subject: str, pid: int) -> None:
        self._processes[subject] = psutil.Process(pid)

    def _watch(self) -> None:
        while True:
            for subject, process in list(self._processes.items()):
                with contextlib.suppress(psutil.Error):
                    self._look(subject, process)
                    if subject == "long sweep":
                        workers = [child for child in process.children() if is_worker(child)]
                        self._look("its worker", workers[0]) if workers else None
            time.sleep(EVERY)

    def _look(self, subject: str, process: psutil.Process) -> None:
        children = len(process.children(recursive=True))
        minute = (time.monotonic() - self._start) / 60
        with process.oneshot():
            rss = process.memory_info().rss / 2**20
            look = Look(minute, subject, process.pid, rss, process.num_fds(), process.num_threads(), children)
        self.looks.append(look)

    def lives(self) -> dict[str, list[list[Look]]]:
        """Subject → the looks at each of its processes that was seen for five minutes or longer."""
        found: dict[str, dict[int, list[Look]]] = {}
        for look in list(self.looks):
            found.setdefault(look.subject, {}).setdefault(look.pid, []).append(look)
        return {
            subject: [life for life in lives.values() if life[-1].minute - life[0].minute >= 5]
            for subject, lives in found.items()
        }


@dataclass(frozen=True)
class Growth:
    """A process in the second fifth of its life and in the last."""

    subject: str
    minutes: float
    rss: tuple[float, float]
    files: tuple[int, int]  # the fewest, for they come and go with each sweep or job
    most_files: tuple[int, int]
    threads: tuple[int, int]

    @classmethod
    def of(cls, life: Sequence[Look]) -> "Growth":
        fifth = max(1, len(life) // 5)
        parts = life[fifth : 2 * fifth], life[-fifth:]

        def both(measure: Callable[[Sequence[Look]], _N]) -> tuple[_N, _N]:
            return measure(parts[0]), measure(parts[1])

        return cls(
            life[0].subject,
            life[-1].minute - life[0].minute,
            rss=both(lambda part: statistics.median(look.rss for look in part)),
            files=both(lambda part: min(look.files for look in part)),
            most_files=both(lambda part: max(look.files for look in part)),
            threads=both(lambda part: min(look.threads for look in part)),
        )

    @property
    def leaks(self) -> bool:
        files = self.files[1] > self.files[0] and self.most_files[1] > self.most_files[0]
        return files or self.threads[1] > self.threads[0] or self.rss[1] > self.rss[0] * GROWTH


def strangers(known: Sequence[int]) -> list[str]:
    """Processes of this soak that belong to none of the known."""
    family = {os.getpid(), *known}
    for pid in known:
        with contextlib.suppress(psutil.Error):
            family |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(MARK) == os.environ[MARK] and process.status() != psutil.STATUS_ZOMBIE
            tracker = any("resource_tracker" in word for word in process.cmdline())
            if ours and process.pid not in family and not (tracker and process.ppid() in family):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


# ----------------------------------------------------------------------------------------------------------------- soak


class Soak:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        os.environ |= {"TMPDIR": str(self.temporary), MARK: str(folder), "MPLBACKEND": "agg"}
        tempfile.tempdir = None
        self.shared = set(os.listdir(SHARED)) if SHARED.is_dir() else set()
        self.lab = Lab(folder, self.rng)
        os.environ |= {name: self.lab.environment[name] for name in ("MLP_CACHE", "OPENBLAS_NUM_THREADS")}
        self.observer = Observer()
        self.trials: dict[str, list[Trial]] = {}
        self.problems: list[str] = []
        self.long_jobs = 0
        self.kills = 0

    def run(self, minutes: float) -> None:
        end = time.monotonic() + 60 * minutes
        self.resident = multiprocessing.get_context("spawn").Process(target=reside, args=(self.folder,))
        self.resident.start()
        assert self.resident.pid is not None
        self.observer.follow("resident", self.resident.pid)
        long = threading.Thread(target=self._long, args=(end,))
        long.start()
        report = time.monotonic()
        faults = [fault for fault in FAULTS if fault not in (network_gone, out_of_memory, workers)]
        while time.monotonic() < end:
            fault = self.rng.choice(faults)
            with contextlib.suppress(Skipped):
                self.trials.setdefault(fault.__name__, []).extend(fault(self.lab, FAULTS[fault][0]))
            self._kill_one()
            if not self.resident.is_alive():
                self.problems.append(f"the resident ended with status {self.resident.exitcode}")
                break
            if time.monotonic() - report > 300:
                report = time.monotonic()
                print(self.line(), flush=True)
        kill_all(self.sweep)
        long.join()
        self.resident.kill()
        self.resident.join()
        time.sleep(30)  # what may outlive it for so long
        self._look_for_remains()

    def _long(self, end: float) -> None:
        for number in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
            out = self.lab.fresh()
            seeds = f"seed=range({number * LONG},{(number + 1) * LONG})"
            self.sweep = self.lab.start(out, seeds, "epochs=20", "hydra.launcher.workers=1")
            self.observer.follow("long sweep", self.sweep.pid)
            status, output = self.lab.end(self.sweep, 10**6)
            if status and time.monotonic() < end:  # after that, it was killed
                self.problems.append(f"the long sweep: status {status}: {output[-1000:]}")
                return
            self.long_jobs += len(list(out.glob("runs/*")))
            if not status:
                self.problems += leftovers(out)
            shutil.rmtree(out, ignore_errors=True)  # a worker may write for a moment more

    def _kill_one(self) -> None:
        with contextlib.suppress(psutil.Error):
            workers = [child for child in psutil.Process(self.resident.pid).children() if is_worker(child)]
            if workers:
                self.rng.choice(workers).kill()
                self.kills += 1

    def _look_for_remains(self) -> None:
        self.problems += [f"outlived the soak: {process}" for process in strangers([])]
        self.problems += [f"left in the temporary directory: {name}" for name in os.listdir(self.temporary)]
        if SHARED.is_dir():
            self.problems += [f"left in {SHARED}: {name}" for name in set(os.listdir(SHARED)) - self.shared]

    @property
    def sweeps(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self.folder / "sweeps.txt").read_text().splitlines()
        return []

    def line(self) -> str:
        looks = {look.subject: look for look in self.observer.looks[-10:]}
        seen = "; ".join(f"{name} {look.rss:.0f} MB {look.files} files" for name, look in sorted(looks.items()))
        trials = [trial for several in self.trials.values() for trial in several]
        minute = max((look.minute for look in looks.values()), default=0)
        return (
            f"{minute:4.0f} min: {len(self.sweeps)} sweeps, {len(trials)} faults, {self.kills} workers killed; {seen}; "
            f"tmp {len(os.listdir(self.temporary))}; strangers {len(strangers(self._known()))}"
        )

    def _known(self) -> list[int]:
        return [pid for pid in (self.resident.pid, self.sweep.pid) if pid is not None]

    def result(self) -> dict[str, Any]:
        trials = {
            name: {
                "tried": len(several), "survived": sum(trial.survived for trial in several),
                "lost": sum(trial.lost for trial in several),
                "failures": [trial.seen for trial in several if not trial.survived][:10],
            }
            for name, several in self.trials.items()
        }  # fmt: skip
        grown = [Growth.of(life) for lives in self.observer.lives().values() for life in lives]
        wrong = Counter(line for line in self.sweeps if line != "ok")
        self.problems += [f"resident, {count} times: {line}" for line, count in wrong.items()]
        self.problems += [f"grows: {growth}" for growth in grown if growth.leaks]
        self.problems += [f"{name}: {entry['failures']}" for name, entry in trials.items() if entry["failures"]]
        return {
            "machine": machine(), "minutes": max(look.minute for look in self.observer.looks),
            "sweeps": len(self.sweeps), "workers_killed": self.kills, "jobs_of_long_sweeps": self.long_jobs,
            "faults": trials, "processes": [vars(growth) for growth in grown], "problems": self.problems,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="(2)")
    parser.add_argument("--seed", type=int, default=0, help="of the random order and moments (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlp-soak-", ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), arguments.seed)
        soak.run(60 * arguments.hours)
        result = soak.result()
    print(soak_table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 1 if result["problems"] else 0


def soak_table(result: dict[str, Any]) -> str:
    """What a person reads."""
    faults = result["faults"].values()
    lines = [
        f"\n{result['minutes']:.0f} minutes: {result['sweeps']} sweeps of the resident, {result['workers_killed']} of "
        f"whose workers were killed; {result['jobs_of_long_sweeps']} jobs of long sweeps; "
        f"{sum(f['tried'] for f in faults)} faults, {sum(f['survived'] for f in faults)} survived",
        f"\n{'process':<12}{'minutes':>8}{'memory, MB':>16}{'files':>12}{'threads':>12}",
    ]
    for entry in result["processes"]:
        rss, files, threads = (f"{a:.0f} → {b:.0f}" for a, b in (entry["rss"], entry["files"], entry["threads"]))
        lines.append(f"{entry['subject']:<12}{entry['minutes']:>8.0f}{rss:>16}{files:>12}{threads:>12}")
    return "\n".join([*lines, "", *(result["problems"] or ["no problem"])])


if __name__ == "__main__":
    sys.exit(main())
