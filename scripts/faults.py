"""Faults, each of them real: docs/reliability.md says what is promised of each, and this finds out whether it is so.

After each fault the same command is run again, and metrics, steps, items and parameters are compared bit for bit with a
run that nothing disturbed. "Lost" are epochs that were complete and had to be trained again; the one in flight is not
counted.

What needs root (mounts, control groups, namespaces) is skipped, visibly, for others. Works in a temporary directory.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from lab import (
    EPOCHS,
    RUNS,
    SWEEP,
    Lab,
    Skipped,
    Trial,
    differences,
    epochs_lost,
    family,
    is_worker,
    kill_all,
    resumes_at,
    rows,
)
from machine import machine

from sweeps.runs import outcomes
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import DamagedRun

# -------------------------------------------------------------------------------------------------------------- killing


def _struck(lab: Lab, tries: int, strike: Callable[["subprocess.Popen[str]"], None], *words: str) -> list[Trial]:
    """Start, strike at a random moment, start again … until it is finished; then compare, and begin another."""
    trials: list[Trial] = []
    while len(trials) < tries:
        out, losses, complaint = lab.fresh(), [], ""
        while len(trials) + len(losses) < tries:
            process = lab.start(out, *words)
            lab.moment(process, out)
            if process.poll() is not None:
                status, output = lab.end(process)
                complaint = f"status {status}: {output[-1000:]}" if status else ""
                break
            members = family(process)
            strike(process)
            lab.end(process, 30)
            complaint = _outlive(members)
            losses.append(sum(epochs_lost(run) for run in run_dirs(out)))
            if complaint:
                break
        last = lab.again(out, *words)
        trials += [Trial(last.survived and not complaint, lost, complaint or last.seen) for lost in losses]
        shutil.rmtree(out, ignore_errors=True)
    return trials


def _outlive(members: Sequence[psutil.Process]) -> str:
    """Nothing of it is left half a minute later."""
    _, alive = psutil.wait_procs(members, timeout=30)
    return f"{len(alive)} processes outlived it" if alive else ""


def kill_run(lab: Lab, tries: int) -> list[Trial]:
    """kill -9 of a run's process"""
    return _struck(lab, tries, lambda process: process.kill(), "seed=0")


def kill_main(lab: Lab, tries: int) -> list[Trial]:
    """kill -9 of a sweep's main process"""
    return _struck(lab, tries, lambda process: process.kill(), SWEEP)


def kill_both(lab: Lab, tries: int) -> list[Trial]:
    """kill -9 of main and workers at once"""
    return _struck(lab, tries, kill_all, SWEEP)


def kill_worker(lab: Lab, tries: int) -> list[Trial]:
    """kill -9 of a worker"""
    trials: list[Trial] = []
    while len(trials) < tries:
        out, killed, written, in_vain = lab.fresh(), 0, 0, 0
        process = lab.start(out, SWEEP)
        while process.poll() is None:
            time.sleep(lab.rng.uniform(0.05, 0.5))
            if rows(out) != written:
                written, in_vain = rows(out), 0
            workers = [child for child in family(process)[1:] if is_worker(child)]
            if workers and len(trials) + killed < tries and in_vain < 5:  # a pool gives up after ten failed starts
                lab.rng.choice(workers).kill()
                killed += 1
                in_vain += 1
        status, output = lab.end(process)
        lost = sum(epochs_lost(run) for run in run_dirs(out))
        last = lab.again(out, SWEEP)
        good = last.survived and status == 0
        trials += [Trial(good, lost, last.seen or output[-1500:] if not good else "")] * killed
        shutil.rmtree(out, ignore_errors=True)
    return trials


def workers(lab: Lab, tries: int) -> list[Trial]:
    """kill -9 of workers of a host program's own sweeps, which has other children"""
    out = lab.fresh()
    lab.sweep_here(out)  # undisturbed: what is imported and opened once does not count as left behind
    shutil.rmtree(out)
    before = _open_things()
    child = subprocess.Popen(["sleep", "3600"])
    kills, silent, unreplaced, seen, shared = 0, 0.0, 0.0, [], set()
    try:
        while kills < tries and not seen:
            with ThreadPoolExecutor(1) as thread:
                swept = thread.submit(lab.sweep_here, out)
                last, moved = rows(out), time.monotonic()
                strike, struck, known = moved + lab.rng.uniform(0, 1), float("inf"), set()
                while not swept.done():
                    time.sleep(0.005)
                    now = time.monotonic()
                    if (written := rows(out)) != last:
                        silent, last, moved = max(silent, now - moved), written, now
                    alive = [process for process in psutil.Process().children() if is_worker(process)]
                    if struck < now and not {process.pid for process in alive} <= known:
                        unreplaced, struck = max(unreplaced, now - struck), float("inf")
                    if alive and kills < tries and now > strike:
                        shared |= _shared_memory([psutil.Process(), *alive])
                        with contextlib.suppress(psutil.NoSuchProcess):
                            lab.rng.choice(alive).kill()  # one that trains, or starts, or waits
                        known, struck = known | {process.pid for process in alive}, min(struck, time.monotonic())
                        kills, strike = kills + 1, float("inf")
                    elif strike == float("inf") and moved == now:  # not before something was trained again
                        strike = now + lab.rng.uniform(0, 0.5)
            wrong = [str(swept.exception())] if swept.exception() else differences(out, lab.reference)
            lost = sum(epochs_lost(run) for run in run_dirs(out))
            left = [name for name in ("stop-*", ".seen-*") if list((out / "sweeps").rglob(name))]
            seen = [*wrong, *left, *([f"{lost} epochs lost"] if lost else [])]
            shutil.rmtree(out)
        if child.poll() is not None:
            seen.append(f"the host program's own child ended with {child.returncode}")
    finally:
        child.kill()
        child.wait()
    if (after := _open_things()) != before:
        seen.append(f"descriptors, children, threads: {before} became {after}")
    if files := [path for path in sorted(shared) if os.path.exists(path)]:
        seen.append(f"left behind: {files}")
    said = f"at most {unreplaced:.2f} s to another worker, and {silent:.2f} s without an epoch of any run"
    print(f"  {kills} kills; {said}", flush=True)
    return [Trial(not seen, 0, "; ".join(seen)[:1500])] * kills


def _open_things() -> tuple[int, list[int], int]:
    """Descriptors, children and threads of this process."""
    return len(os.listdir("/dev/fd")), [p.pid for p in psutil.Process().children()], threading.active_count()


def _shared_memory(processes: Sequence[psutil.Process]) -> set[str]:
    """Files of their semaphores and the like; those of other programs on this machine are not to be counted."""
    found: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            found |= {entry.path for entry in process.memory_maps() if entry.path.startswith("/dev/shm/")}
    return found


def time_limit(lab: Lab, tries: int) -> list[Trial]:
    """SIGTERM to all processes, SIGKILL later (Slurm's time limit)"""

    def strike(process: "subprocess.Popen[str]") -> None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)  # Slurm's KillWait is 30
        kill_all(process)

    return _struck(lab, (tries + 1) // 2, strike, "seed=0") + _struck(lab, (tries + 1) // 2, strike, SWEEP)


# ---------------------------------------------------------------------------------------------------------------- disks


@contextlib.contextmanager
def _tmpfs(lab: Lab, kilobytes: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        raise Skipped("mounting needs root")
    folder = lab.fresh()
    folder.mkdir()
    _system("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _system("umount", "--lazy", str(folder))


def _system(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"{' '.join(command[:3])}: {done.stderr.strip()}")


def disk_full(lab: Lab, tries: int) -> list[Trial]:
    """the disk is full"""
    trials = []
    for i in range(tries):
        with _tmpfs(lab, 2048) as folder:
            out, filler = folder / "out", folder / "filler"
            words = ("seed=0",) if i % 2 else (SWEEP,)
            spare = lab.rng.randrange(0, 160) * 1024
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, max(0, filler.stat().st_size - spare))
            status, output = lab.end(lab.start(out, *words))
            filler.unlink()
            last = lab.again(out, *words)
            silent = status != 0 and "No space left" not in output
            good = last.survived and not silent and "Traceback" not in output
            trials.append(
                Trial(good, last.lost, "" if good else f"{status}, {spare} spare: {last.seen} {output[-1500:]}")
            )
    return trials


def read_only(lab: Lab, tries: int) -> list[Trial]:
    """the results tree is read-only"""
    trials = []
    for i in range(tries):
        with _tmpfs(lab, 8192) as folder:
            out = folder / "out"
            words = ("seed=0",) if i % 2 else (SWEEP,)
            process = lab.start(out, *words)
            lab.moment(process, out)
            process.kill()
            lab.end(process)
            time.sleep(1)  # workers see that main is gone
            for _ in range(100):
                with contextlib.suppress(Skipped):  # busy as long as one has a file open
                    _system("mount", "-o", "remount,ro", str(folder))
                    break
                time.sleep(0.2)
            status, output = lab.end(lab.start(out, *words))
            _system("mount", "-o", "remount,rw", str(folder))
            last = lab.again(out, *words)
            finished = status == 0  # before it was read-only
            told = finished or (status in (1, 2) and "Read-only file system" in output)
            good = last.survived and told and "Traceback" not in output
            trials.append(Trial(good, last.lost, "" if good else f"{status}: {last.seen} {output[-1500:]}"))
    return trials


FILES = (
    "config.yaml",
    "metrics.csv",
    "status.json",
    "provenance.json",
    "steps.csv",
    "items.npz",
    "checkpoint.npz",
    "both checkpoints",
    "train.log",
)


def damage(lab: Lab, tries: int) -> list[Trial]:
    """a file of a run is damaged at rest (bit flipped, cut, emptied, zeroed, gone)"""
    trials = []
    half = lab.fresh()
    lab.end(lab.start(half, "seed=0", f"epochs={EPOCHS // 2}"))
    (model,) = run_dirs(half)
    for i in range(tries):
        file, kind = FILES[i % len(FILES)], ("flip", "cut", "empty", "zeros", "gone")[i // len(FILES) % 5]
        out = lab.fresh()
        run = RunDir.of(out, model.path.name)
        shutil.copytree(half, out)
        before = resumes_at(run)
        paths = [run.checkpoint, run.checkpoint_before] if file.startswith("both") else [run.path / file]
        for path in paths:
            original = path.read_bytes()
            changed = bytearray(original)
            position = lab.rng.randrange(len(original))
            if kind == "flip":
                changed[position] ^= 1 << lab.rng.randrange(8)
            elif kind in ("cut", "empty"):
                del changed[position if kind == "cut" else 0 :]
            path.write_bytes(bytes(len(original)) if kind == "zeros" else changed)
            if kind == "gone":
                path.unlink()
        wrong = _misread(run, model)
        status, output = lab.end(lab.start(out, "seed=0"))
        sessions = json.loads(run.provenance.read_bytes())["sessions"]
        lost = before - sessions[-1]["from_epoch"]
        last = lab.again(out, "seed=0", but=[file] if file == "steps.csv" else [])  # which no checkpoint has
        wrong += _misread(run, RunDir.of(lab.reference, run.path.name))
        unread = kind == "gone" or file in ("train.log", "items.npz")  # by training, which writes new items
        named = unread or all(f"/{path.name}: " in output for path in paths)
        good = status == 0 and last.survived and named and not wrong
        seen = f"{kind} of {file}: {status}: {wrong} {last.seen} {output[-1500:]}"
        trials.append(Trial(good, lost, "" if good else seen))
        shutil.rmtree(out)
    return trials


def _misread(run: RunDir, whole: RunDir) -> list[str]:
    """What a reader takes for the run's steps or items, and is not."""
    wrong = []
    for read in (_steps, _items):
        with contextlib.suppress(DamagedRun):
            if read(run) not in (read(whole), None):
                wrong.append(f"{read.__name__} are misread")
    return wrong


def _steps(run: RunDir) -> Any:
    return run.read_steps(run.read_status())


def _items(run: RunDir) -> Any:
    found = outcomes.load(run)
    return found and (found.epoch, {name: array.tolist() for name, array in found.arrays.items()})


# --------------------------------------------------------------------------------------------------- memory, processes


@contextlib.contextmanager
def _cgroup(controller: str, limits: dict[str, tuple[str, int]]) -> Iterator[list[str]]:
    """A control group with limits, and the words that start a command in it; ``limits`` by version, 1 and 2."""
    if os.geteuid() != 0:
        raise Skipped("control groups need root")
    name = f"mlp-faults-{os.getpid()}"
    one, two = Path("/sys/fs/cgroup", controller, name), Path("/sys/fs/cgroup", name)
    folder, version = (one, "1") if one.parent.is_dir() else (two, "2")
    try:
        folder.mkdir()
        key, value = limits[version]
        (folder / key).write_text(str(value))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise Skipped(f"no control group for {controller}: {error.strerror}") from None
    try:
        yield ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.2)


def out_of_memory(lab: Lab, tries: int) -> list[Trial]:
    """the kernel kills a worker that is out of memory"""
    words = (
        "model.hidden=[16],[5000,5000]",  # about 1 GB where twice 50 MB is enough for the other
        "epochs=2",
        "bsz=320",
        "hydra.launcher.retries=1",
        "hydra.launcher.workers=1",
    )
    reference = lab.fresh()
    assert lab.end(lab.start(reference, *words))[0] == 0
    trials = []
    for _ in range(tries):
        out = lab.fresh()
        limit = 420 * 2**20
        with _cgroup("memory", {"1": ("memory.limit_in_bytes", limit), "2": ("memory.max", limit)}) as inside:
            status, output = lab.end(lab.start(out, *words, before=inside))
        lost = sum(epochs_lost(run) for run in run_dirs(out))
        done = lab.end(lab.start(out, *words))
        wrong = differences(out, reference)
        good = status == 1 and "killed by SIGKILL (out of memory?)" in output and done[0] == 0 and not wrong
        trials.append(Trial(good, lost, "" if good else f"{status}, {done[0]}: {wrong} {output[-1500:]}"))
        shutil.rmtree(out)
    shutil.rmtree(reference)
    return trials


def no_memory(lab: Lab, tries: int) -> list[Trial]:
    """memory is refused (RLIMIT_AS)"""
    words = ("model.hidden=[3000,3000]", "epochs=2", "bsz=320")
    reference = lab.fresh()
    assert lab.end(lab.start(reference, *words))[0] == 0
    trials = []
    for _ in range(tries):
        out = lab.fresh()
        limit = lab.rng.randrange(500, 1000) * 1024
        inside = ["sh", "-c", f'ulimit -v {limit} && exec "$@"', "sh"]
        status, output = lab.end(lab.start(out, *words, before=inside))
        lost = sum(epochs_lost(run) for run in run_dirs(out))
        done = lab.end(lab.start(out, *words))
        wrong = differences(out, reference)
        good = done[0] == 0 and not wrong and (status == 0 or "MemoryError" in output)
        trials.append(Trial(good, lost, "" if good else f"{limit} kB: {status}, {done[0]}: {wrong} {output[-1500:]}"))
        shutil.rmtree(out)
    shutil.rmtree(reference)
    return trials


def no_processes(lab: Lab, tries: int) -> list[Trial]:
    """the process table is full"""
    trials = []
    for _ in range(tries):
        out, limit = lab.fresh(), lab.rng.randrange(1, 12)
        with _cgroup("pids", {"1": ("pids.max", limit), "2": ("pids.max", limit)}) as inside:
            status, output = lab.end(lab.start(out, SWEEP, before=inside), 120)
        last = lab.again(out, SWEEP)
        good = (
            last.survived and status >= 0
        )  # tracebacks of Python's own threads that could not start are what there is
        trials.append(Trial(good, last.lost, "" if good else f"limit {limit}: {status}: {last.seen} {output[-1500:]}"))
        shutil.rmtree(out)
    return trials


# ------------------------------------------------------------------------------------------------ clocks and companions


def clock_back(lab: Lab, tries: int) -> list[Trial]:
    """the clock is set back 400 days between sessions (libfaketime)"""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        raise Skipped("needs libfaketime (apt-get install libfaketime)")
    back = {"LD_PRELOAD": str(found[0]), "FAKETIME": "-400d"}
    trials = []
    for i in range(tries):
        out = lab.fresh()
        words = ("seed=0",) if i % 2 else (SWEEP,)
        process = lab.start(out, *words)
        lab.moment(process, out)
        kill_all(process)
        lab.end(process)
        lost = sum(epochs_lost(run) for run in run_dirs(out))
        status, output = lab.end(lab.start(out, *words, **back))
        last = lab.again(out, *words)
        good = last.survived and status == 0
        trials.append(Trial(good, lost, "" if good else f"{status}: {last.seen} {output[-1500:]}"))
        shutil.rmtree(out)
    return trials


def _together(lab: Lab, tries: int, count: int) -> list[Trial]:
    trials = []
    for i in range(tries):
        out = lab.fresh()
        words = ("seed=0",) if i % 2 else (SWEEP,)
        processes = [lab.start(out, *words) for _ in range(count)]
        ended = [lab.end(process) for process in processes]
        runs = list(run_dirs(out))
        sessions = [len(json.loads(run.provenance.read_bytes())["sessions"]) for run in runs]
        last = lab.again(out, *words)
        once = sessions == [1] * (1 if i % 2 else RUNS)  # each trained once, by either process
        good = last.survived and once and not any(status for status, _ in ended)
        trials.append(Trial(good, last.lost, "" if good else f"{sessions} {ended} {last.seen}"))
        shutil.rmtree(out)
    return trials


def two_at_once(lab: Lab, tries: int) -> list[Trial]:
    """two processes on one run, two on one sweep"""
    return _together(lab, tries, 2)


def eight_at_once(lab: Lab, tries: int) -> list[Trial]:
    """eight processes on one run, eight on one sweep"""
    return _together(lab, tries, 8)


def dead_host(lab: Lab, tries: int) -> list[Trial]:
    """a lock and a "running" of a host that is dead"""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise Skipped("a host name of its own needs root, and unshare")
    trials = []
    for _ in range(tries):
        out = lab.fresh()
        elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname dead.example && exec "$@"', "sh"]
        process = lab.start(out, "seed=0", before=elsewhere)
        while process.poll() is None and not rows(out):
            time.sleep(0.01)
        time.sleep(lab.rng.uniform(0.1, 0.4))
        kill_all(process)
        lab.end(process)
        (run,) = run_dirs(out)
        host = json.loads(run.status.read_bytes())["host"]
        assert host == "dead.example", host
        assert (run.path / ".lock").exists()
        last = lab.again(out, "seed=0")
        trials.append(last)
        shutil.rmtree(out)
    return trials


# -------------------------------------------------------------------------------------------------------------- network


def network_gone(lab: Lab, tries: int) -> list[Trial]:
    """the network is gone under one of two Dask workers"""
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise Skipped("network namespaces need root, and ip")
    return [_cut(lab) for _ in range(tries)]


def _cut(lab: Lab) -> Trial:
    """Scheduler, main and a worker in one namespace, a worker in another, and a cable between them that is cut."""
    near, far = (f"faults-{os.getpid()}-{side}" for side in ("near", "far"))
    words = ("hydra/launcher=dask", "hydra.launcher.wait=120", f"seed=range(0,{RUNS})")
    environment = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    out, file = lab.fresh(), lab.folder / f"scheduler{lab.rng.random()}.json"
    processes: list[subprocess.Popen[bytes]] = []

    def inside(namespace: str, module: str, *arguments: str) -> None:
        command = [
            "ip",
            "netns",
            "exec",
            namespace,
            sys.executable,
            "-m",
            f"distributed.cli.{module}",
            *arguments,
            "--no-dashboard",
        ]
        processes.append(
            subprocess.Popen(
                command, cwd=lab.folder, env=lab.environment | environment, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    try:
        for namespace in (near, far):
            _system("ip", "netns", "add", namespace)
            _system("ip", "-n", namespace, "link", "set", "lo", "up")
        _system("ip", "-n", near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far)
        for namespace, address in ((near, "10.213.7.1/30"), (far, "10.213.7.2/30")):
            _system("ip", "-n", namespace, "addr", "add", address, "dev", "cable")
            _system("ip", "-n", namespace, "link", "set", "cable", "up")
        inside(near, "dask_scheduler", "--host", "10.213.7.1", "--port", "0", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        inside(near, "dask_worker", address, "--nthreads", "1")
        inside(far, "dask_worker", address, "--nthreads", "1")
        time.sleep(3)
        arguments = [
            word for word in lab.command(out, f"hydra.launcher.address={address}", *words) if "workers=" not in word
        ]
        main = subprocess.Popen(
            ["ip", "netns", "exec", near, *arguments, "bsz=1"], cwd=lab.folder, env=lab.environment | environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        while main.poll() is None and len(list(out.glob("runs/*/status.json"))) < 2:
            time.sleep(0.05)
        time.sleep(lab.rng.uniform(0, 1))
        _system("ip", "-n", near, "link", "set", "cable", "down")
        status, output = lab.end(main)
    finally:
        for process in processes:
            kill_all(process)
            process.wait()
        for namespace in (near, far):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
    lost = sum(epochs_lost(run) for run in run_dirs(out))
    reference = lab.folder / "reference-network"
    if not reference.exists():
        assert lab.end(lab.start(reference, SWEEP, "bsz=1"))[0] == 0
    wrong = differences(out, reference)
    good = status == 0 and not wrong and len(list(run_dirs(out))) == RUNS
    shutil.rmtree(out, ignore_errors=True)
    return Trial(good, lost, "" if good else f"{status}: {wrong} {output[-1500:]}")


# fault: how often in the short form and in the long one
FAULTS: dict[Callable[[Lab, int], list[Trial]], tuple[int, int]] = {
    kill_run: (2, 50),
    kill_worker: (2, 50),
    workers: (4, 200),
    kill_main: (1, 50),
    kill_both: (1, 50),
    time_limit: (2, 20),
    disk_full: (2, 20),
    read_only: (1, 10),
    damage: (9, 90),
    out_of_memory: (1, 3),
    no_memory: (1, 5),
    no_processes: (1, 10),
    clock_back: (1, 6),
    two_at_once: (1, 10),
    eight_at_once: (1, 4),
    dead_host: (1, 10),
    network_gone: (0, 3),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few of each, in a minute or two")
    parser.add_argument("--only", metavar="NAMES", help=f"of {','.join(fault.__name__ for fault in FAULTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [fault.__name__ for fault in FAULTS]
    if unknown := set(names) - {fault.__name__ for fault in FAULTS}:
        parser.error(f"--only: no such fault: {', '.join(sorted(unknown))}")
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores; {here['platform']}; {here['date']}\n")
    print(f"{'fault':<78}{'tried':>6}{'survived':>9}{'lost':>6}{'s':>6}")
    results = []
    with tempfile.TemporaryDirectory(prefix="mlp-faults-") as folder:
        lab = Lab(Path(folder), random.Random(arguments.seed))
        for fault, (few, many) in FAULTS.items():
            tries = few if arguments.short else many
            if fault.__name__ in names and tries:
                results.append(_tried(fault, lab, tries))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": here, "faults": results}, indent=1, ensure_ascii=False) + "\n")
    return 1 if any(result["survived"] < result["tried"] for result in results) else 0


def _tried(fault: Callable[[Lab, int], list[Trial]], lab: Lab, tries: int) -> dict[str, Any]:
    """The fault so many times: one line, and what the JSON file says of it."""
    title = (fault.__doc__ or "").strip()
    start = time.monotonic()
    result: dict[str, Any] = {"name": fault.__name__, "fault": title}
    try:
        trials = fault(lab, tries)
    except Skipped as reason:
        print(f"{title:<78}skipped: {reason}", flush=True)
        return result | {"tried": 0, "survived": 0, "lost": 0, "skipped": str(reason)}
    survived, lost = sum(trial.survived for trial in trials), sum(trial.lost for trial in trials)
    print(f"{title:<78}{len(trials):>6}{survived:>9}{lost:>6}{time.monotonic() - start:>6.0f}", flush=True)
    failures = [asdict(trial) for trial in trials if not trial.survived]
    for failure in failures[:3]:
        print(f"  {failure['seen']}")
    return result | {"tried": len(trials), "survived": survived, "lost": lost, "failures": failures[:10]}


if __name__ == "__main__":
    sys.exit(main())
