"""Measure what the README says about speed, side by side in one run, as ratios.

    python scripts/bench.py training   a training step against the machine's matrix multiply and other libraries
    python scripts/bench.py shared     a training step of ours on all cores against one, and separate runs at once
    python scripts/bench.py accuracy   seconds of training to 97 % and 98 % on the test set, by ours and the others
    python scripts/bench.py overhead   a job of nearly no work: our launcher against Hydra's basic one
    python scripts/bench.py sweeps     experiment=report, shortened: ours, Hydra's joblib launcher, scikit-learn
    python scripts/bench.py workers    experiment=report, shortened, on two workers against one
    python scripts/bench.py scale      planning, launching, collecting and drawing 10 to 10,000 runs

Machines are noisy: each measurement is interleaved over rounds, and medians are printed with their range.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from machine import machine
from numpy.typing import NDArray
from peers import BATCH, PEERS, SHORT, SKLEARN, fit_sklearn, initial_weights, save_mnist, serve

from sweeps.runs import command
from sweeps.runs.provenance import cores
from sweeps.runs.schema import one_of

NETWORKS = ((784, 360, 10), (784, 512, 256, 10), (784, 32, 10))
ACTIVATIONS = ("relu", "sigmoid", "tanh", "gelu")
GOALS = (97, 98)  # percent of the test set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (training, shared, accuracy, overhead, sweeps, workers, scale):
        summary = (measure.__doc__ or "").splitlines()[0].replace("%", "%%")  # which argparse would fill in
        sub = commands.add_parser(measure.__name__, help=summary)
        sub.set_defaults(measure=measure)
        if measure is scale:
            sub.add_argument("--sizes", type=_integers, default=[10, 100, 1000, 10_000])
            continue
        sub.add_argument("--rounds", type=int, default={training: 5, shared: 7, accuracy: 3}.get(measure, 1))
        if measure in (training, accuracy):
            names = ", ".join(f"{short} ({name})" for short, name in SHORT.items())
            sub.add_argument("--peers", default=",".join(PEERS), help=f"beside ours: {names}")
            sub.add_argument("--threads", type=_integers, default=sorted({1, cores()}))
        if measure in (training, shared):
            sub.add_argument("--steps", type=int, default=300, help="in each lap (300, an epoch)")
        if measure is training:
            sub.add_argument("--out", type=Path, metavar="DIR", help="also write performance.json and performance.svg")
        if measure is sweeps:
            sub.add_argument("--epochs", type=int, default=3, help="of each run (3)")
        if measure is overhead:
            sub.add_argument("--jobs", type=int, default=200)
            sub.add_argument("--many", type=int, default=2000, help="jobs of the second measurement of ours (0: none)")
    arguments = vars(parser.parse_args())
    measure = arguments.pop("measure")
    sys.exit(command.run(lambda: _begin(measure, arguments)))


def _begin(measure: Callable[..., None], arguments: dict[str, Any]) -> None:
    if "peers" in arguments:
        words = [SHORT.get(word, word) for word in arguments["peers"].split(",")]
        arguments["peers"] = list(dict.fromkeys(one_of(*PEERS)("--peers", word) for word in ["ours", *words]))
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    measure(**arguments)


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def training(rounds: int, steps: int, peers: Sequence[str], threads: Sequence[int], out: Path | None) -> None:
    """A training step against the machine's matrix multiply, and against other libraries (extra: bench)."""
    measured = [_measure(rounds, steps, peers, count) for count in threads]
    if out:
        out.mkdir(parents=True, exist_ok=True)
        record = {"conditions": machine() | {"rounds": rounds, "steps": steps}, "measured": measured}
        (out / "performance.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _chart(measured, out / "performance.svg")


def _measure(rounds: int, steps: int, names: Sequence[str], threads: int) -> dict[str, Any]:
    """Every network and activation by every peer, interleaved."""
    with _running(names, threads) as running:
        cases = [_case(sizes, activ, running, rounds, steps) for sizes in NETWORKS for activ in ACTIVATIONS]
    return {"threads": threads, "libraries": {n: p.description for n, p in running.items()}, "cases": cases}


@contextlib.contextmanager
def _running(names: Sequence[str], threads: int) -> Iterator[dict[str, "_Process"]]:
    """The peers that are installed, on as many processors as threads."""
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(everything)[-threads:]))  # inherited; some libraries know no other limit
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    try:
        with contextlib.ExitStack() as stack:
            processes = {name: stack.enter_context(_Process(name, threads)) for name in names}
            missing = [name for name, process in processes.items() if process.missing]
            for name in missing:
                print(f"{name} is left out: {processes[name].missing}; pip install 'mlp-sweeps[bench]'")
            running = {name: process for name, process in processes.items() if name not in missing}
            print(f"\n{threads} thread{'s' * (threads > 1)}")
            for name, process in running.items():
                print(f"  {name:<18}{process.description}")
            yield running
    finally:
        os.sched_setaffinity(0, everything)


def _case(
    sizes: tuple[int, ...], activ: str, processes: dict[str, "_Process"], rounds: int, steps: int
) -> dict[str, Any]:
    request = (initial_weights(sizes), activ)
    able = {name: process for name, process in processes.items() if process.ask(request) is None}
    order = np.random.default_rng(0).permutation(60_000)
    batches = order[: steps * BATCH].reshape(steps, BATCH)
    measured = {name: process.ask(batches)[1:] for name, process in able.items()}  # compiles, too
    laps: dict[str, list[float]] = {name: [] for name in able}
    peaks = []
    for _ in range(rounds):
        peaks.append(processes["ours"].ask("gemm"))
        for name, process in able.items():
            time.sleep(0.2)  # the threads of the last BLAS keep spinning for a while
            laps[name].append(_lap([process], batches))
    weights = [a * b for a, b in pairwise(sizes)]
    flops = 2.0 * BATCH * (3 * sum(weights) - weights[0])  # the first layer has no input gradient
    case: dict[str, Any] = {"network": "–".join(map(str, sizes)), "activ": activ, "peers": {}}
    case["gemm_gflops"] = statistics.median(peaks) / 1e9
    print(f"\n{case['network']} {activ}   matrix multiply {case['gemm_gflops']:.0f} GFLOP/s")
    for name, seconds in laps.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds, laps["ours"], strict=True))
        case["peers"][name] = peer = {
            "step_us": statistics.median(seconds) * 1e6,
            "range_us": (min(seconds) * 1e6, max(seconds) * 1e6),
            "of_gemm": statistics.median(flops / s / p for s, p in zip(seconds, peaks, strict=True)),
            "times_ours": statistics.median(ratios),
            "times_ours_range": (ratios[0], ratios[-1]),
            "first_loss": measured[name][0],
            "first_accuracy": measured[name][1] if math.isfinite(measured[name][1]) else None,
        }
        print(
            f"  {name:<18}{peer['step_us']:>8.0f} µs ({min(seconds) * 1e6:.0f}–{max(seconds) * 1e6:.0f})"
            f"{peer['of_gemm']:>7.2f} of it{peer['times_ours']:>8.2f} × ours ({ratios[0]:.2f}–{ratios[-1]:.2f})"
            f"   loss {measured[name][0]:.5f}, {measured[name][1]:.2f} %",
            flush=True,
        )
    return case


def shared(rounds: int, steps: int) -> None:
    """A training step of ours on all cores against one, by turns; and what as many separate runs at once would gain.

    Two cores at work may each be slower than one alone, which no way of sharing a step can make up for.
    """
    batches = np.random.default_rng(0).permutation(60_000)[: steps * BATCH].reshape(steps, BATCH)
    many = cores()
    with contextlib.ExitStack() as stack:
        separate = [stack.enter_context(_Process("ours", 1)) for _ in range(many)]
        together = stack.enter_context(_Process("ours", many))
        for sizes in NETWORKS:
            for activ in ACTIVATIONS:
                for process in (*separate, together):
                    process.ask((initial_weights(sizes), activ))
                laps: list[list[float]] = []  # of one process, of all at once, of one run on all cores
                for _ in range(rounds + 1):  # the first is not counted
                    parts = [separate[:1], separate, [together]]
                    laps.append([_lap(part, batches) for part in parts])
                one, each, both = (1e6 * statistics.median(lap[k] for lap in laps[1:]) for k in range(3))
                gains = sorted(lap[0] / lap[2] for lap in laps[1:])
                limit = statistics.median(many * lap[0] / lap[1] for lap in laps[1:])
                print(
                    f"{'–'.join(map(str, sizes)):<16}{activ:<9}{one:>6.0f} µs on one core{both:>6.0f} on {many}"
                    f"{statistics.median(gains):>7.2f} times as fast ({gains[0]:.2f}–{gains[-1]:.2f})"
                    f"   {many} runs at once{each:>6.0f} µs, {limit:.2f}",
                    flush=True,
                )


def _lap(processes: Sequence["_Process"], batches: NDArray[np.intp]) -> float:
    """Mean seconds of a step of processes that work at the same time."""
    for request in (batches[: len(batches) // 4], batches):  # first to be awake, with their own data in the caches
        for process in processes:
            process.send(request)
        seconds = [process.receive()[0] for process in processes]
    return statistics.mean(seconds) / len(batches)


def accuracy(rounds: int, peers: Sequence[str], threads: Sequence[int], epochs: int = 40) -> None:
    """Seconds of training to 97 % and 98 % on the test set, by ours and the others.

    784–360–10, relu, batch 200, lr 0.1, momentum 0.9, no weight decay. Accuracy is looked at after each epoch, outside
    the clock; every round has another order of images. An epoch in which a library compiles counts as long as the next.
    """
    for count in threads:
        with _running(peers, count) as running:
            found = [_to_goals(seed, running, epochs) for seed in range(rounds)]
        print(f"  {'median of seconds, epochs to':<30}{''.join(f'{goal:>16} %' for goal in GOALS)}")
        for name in running:
            print(f"  {name:<30}", end="")
            for goal in GOALS:
                reached = [part[name][goal] for part in found if goal in part[name]]
                cell = "{:.2f}, {:g}".format(*map(statistics.median, zip(*reached, strict=True))) if reached else "–"
                print(f"{cell:>18}", end="")
            print(flush=True)


def _to_goals(seed: int, running: dict[str, "_Process"], epochs: int) -> dict[str, dict[int, tuple[float, int]]]:
    """Peer → goal → (seconds, epochs), by turns; a goal that is not reached is not there."""
    weights = initial_weights(NETWORKS[0])
    for process in running.values():
        process.ask((weights, "relu", 0.1, 0.0))
    laps: dict[str, list[float]] = {name: [] for name in running}
    found: dict[str, dict[int, tuple[float, int]]] = {name: {} for name in running}
    for number in range(1, epochs + 1):
        batches = np.random.default_rng([seed, number]).permutation(60_000).reshape(-1, BATCH)
        for name, process in running.items():
            if len(found[name]) < len(GOALS):
                time.sleep(0.2)  # as in _case
                laps[name].append(process.ask(batches)[0])
                score = process.ask("test")
                for goal in GOALS:
                    if score >= goal and goal not in found[name]:
                        found[name][goal] = sum(laps[name][1:], laps[name][min(1, number - 1)]), number
    return found


class _Process:
    """A peer in a separate process, which sleeps while others are measured."""

    def __init__(self, name: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, threads, theirs), daemon=True)
        self._process.start()
        answer = self._pipe.recv()
        self.missing = answer if isinstance(answer, ImportError) else None
        self.description = str(answer)

    def ask(self, request: object) -> Any:
        self.send(request)
        return self.receive()

    def send(self, request: object) -> None:
        self._pipe.send(request)

    def receive(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, Exception) and not isinstance(answer, NotImplementedError):
            raise answer
        return answer

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(None)
        self._process.join()


def _chart(measured: Sequence[dict[str, Any]], path: Path) -> None:
    """Steps a second relative to ours, a panel for each network, a row for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "performance"
    import matplotlib.pyplot as plt

    networks = list(dict.fromkeys(case["network"] for case in measured[0]["cases"]))
    names = list(measured[0]["libraries"])
    figure, axes = plt.subplots(
        len(measured), len(networks), figsize=(3.6 * len(networks), 2.6 * len(measured)), sharey=True, squeeze=False
    )
    for row, part in zip(axes, measured, strict=True):
        for axis, network in zip(row, networks, strict=True):
            cases = [case for case in part["cases"] if case["network"] == network]
            for i, name in enumerate(names):
                at = [k + (i - len(names) / 2 + 0.5) * 0.8 / len(names) for k in range(len(cases))]
                heights = [1 / c["peers"][name]["times_ours"] if name in c["peers"] else 0 for c in cases]
                axis.bar(at, heights, 0.8 / len(names), label=name, color=f"C{i}")
            axis.set_xticks(range(len(cases)), [case["activ"] for case in cases])
            axis.axhline(1, color="0.3", linewidth=0.8)
            axis.set_title(f"{network}, {part['threads']} thread{'s' * (part['threads'] > 1)}", fontsize=9)
    for row in axes:
        row[0].set_ylabel("speed / ours")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(path, metadata={"Date": None})


def overhead(rounds: int, jobs: int, many: int) -> None:
    """A job of nearly no work, by our launcher and by Hydra's basic one."""
    basic = ("hydra/launcher=basic", "hydra/sweeper=basic")
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_sweep(f"seed=range(0,{jobs})"))
        theirs.append(_sweep(f"seed=range(0,{jobs})", *basic))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    for name, seconds in (("pool", ours), ("basic", theirs)):
        print(f"{name:<6} {jobs:>5} jobs: {statistics.median(seconds) / jobs * 1e3:6.1f} ms a job")
    print(f"ratio  {ratio:.3f}")
    if many:
        print(f"pool   {many:>5} jobs: {_sweep(f'seed=range(0,{many})') / many * 1e3:6.1f} ms a job")


def sweeps(rounds: int, epochs: int) -> None:
    """experiment=report with a few epochs a run, on two workers: ours against what else one might take.

    That is Hydra's joblib launcher over a plain NumPy script (plain_mlp.py), and, for the points that it can express,
    scikit-learn's MLPClassifier under joblib. All look at the test set after each epoch.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run("experiment=report", "epochs=1", f"out={folder}/first")  # says which points, and fills the cache
        points = [_point(path) for path in sorted(folder.glob("first/runs/*/config.yaml"))]
        expressed = [point for point in points if point["activ"] in SKLEARN and point["loss"] == "ce"]
        save_mnist(folder / "mnist.npz")
        for chosen, other in ((points, _by_joblib_launcher), (expressed, _by_sklearn)):
            seconds: dict[Callable[..., None], list[float]] = {_by_us: [], other: []}
            for lap in range(rounds):
                for way, laps in seconds.items():
                    start = time.perf_counter()
                    way(chosen, epochs, folder / f"{way.__name__}-{len(chosen)}-{lap}")
                    laps.append(time.perf_counter() - start)
            print(f"{len(chosen)} points, {epochs} epochs each")
            for way, laps in seconds.items():
                ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds[_by_us], laps, strict=True))
                rate = 60 * len(chosen) / statistics.median(laps)
                print(
                    f"  {way.__doc__:<50}{statistics.median(laps):>8.1f} s{rate:>8.1f} a minute{ratio:>7.2f} × ours",
                    flush=True,
                )


def _point(config: Path) -> dict[str, Any]:
    """What a run was decided by, as far as the report varies it."""
    record = yaml.safe_load(config.read_text(encoding="utf-8"))
    hidden, names = record["model"]["hidden"], {key: record[key]["name"] for key in ("activ", "loss")}
    return {"hidden": hidden, **names, **{key: record["optim"][key] for key in ("lr", "wd", "mo")}}


def _by_us(points: list[dict[str, Any]], epochs: int, folder: Path) -> None:
    """ours"""
    import mlp
    from sweeps import sweep

    grids = [{("model.hidden" if key == "hidden" else key): [value] for key, value in p.items()} for p in points]
    sweep(mlp.program, *grids, out=folder, epochs=epochs, workers=2, quiet=True)


def _by_joblib_launcher(points: list[dict[str, Any]], epochs: int, folder: Path) -> None:
    """Hydra's joblib launcher, plain NumPy"""
    folder.mkdir()
    (folder / "points.json").write_text(json.dumps(points), encoding="utf-8")
    words = [f"data={folder.parent}/mnist.npz", f"points={folder}/points.json", f"epochs={epochs}"]
    words += [f"point=range(0,{len(points)})", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    script = Path(__file__).with_name("plain_mlp.py")
    command = [sys.executable, str(script), "--multirun", *words, f"hydra.sweep.dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _by_sklearn(points: list[dict[str, Any]], epochs: int, folder: Path) -> None:
    """scikit-learn under joblib"""
    import joblib

    joblib.Parallel(n_jobs=2)(joblib.delayed(fit_sklearn)(point, epochs) for point in points)


def workers(rounds: int) -> None:
    """experiment=report with five epochs a run, on two workers and on one."""
    ratios = []
    for _ in range(rounds):
        one, two = (_timed("experiment=report", "epochs=5", f"hydra.launcher.workers={count}") for count in (1, 2))
        ratios.append(one / two)
        print(f"1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} ×")
    print(f"median {statistics.median(ratios):.2f} ×")


def scale(sizes: Sequence[int]) -> None:
    """Seconds and memory of planning, launching, collecting and drawing as the number of runs grows."""
    print(f"memory of a worker that trains 784–512–256–10: {_worker_memory()}\n")
    print(f"{'runs':>7}{'launch, nearly no work each':>30}{'the same again':>18}", end="")
    print("".join(f"{name:>22}" for name in ("collect", "collect again", "tables", "figures", "report")))
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            words = [*_tiny(folder), "epochs=1", f"out={folder}/out", f"seed=range(0,{size})"]
            sweep = [sys.executable, "-m", "mlp.train", "--multirun", *words]
            cells = [f"{_cost(sweep):>30}", f"{_cost(sweep):>18}"]
            made = str(Path(__file__).parent.parent / "tests" / "synthetic.py")
            _cost([sys.executable, made, f"{folder}/made", str(size), "100"])
            for command in ("collect", "collect", "tables", "figures", "report"):
                cost = _cost([sys.executable, "-m", "sweeps", command, "--out", f"{folder}/made"])
                cells.append(f"{cost:>22}")
            print(f"{size:>7}{''.join(cells)}", flush=True)


def _cost(command: Sequence[str]) -> str:
    """Seconds from start to end, and the process's largest memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)}: status {process.returncode}")
    return f"{time.perf_counter() - start:.1f} s, {usage.ru_maxrss / 1024:.0f} MB"


def _worker_memory() -> str:
    """Largest resident and proportional sizes seen of a pool's worker (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["model=mlp2", "epochs=3", "seed=0,1", "hydra.launcher.workers=2", f"out={folder}"]
        process = subprocess.Popen([sys.executable, "-m", "mlp.train", "--multirun", *words], stdout=subprocess.DEVNULL)
        resident = proportional = 0
        while process.poll() is None:
            for worker in psutil.Process(process.pid).children():
                with contextlib.suppress(psutil.Error):
                    sizes = worker.memory_full_info()
                    resident, proportional = max(resident, sizes.rss), max(proportional, sizes.pss)
            time.sleep(0.1)
    return f"{resident >> 20} MB resident, {proportional >> 20} MB with shared pages divided"


def _sweep(*words: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _timed(*_tiny(folder), "epochs=1", *words)


def _tiny(folder: str) -> list[str]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = (y[:, None] + rng.normal(size=(600, 20))).astype(np.float32)
    np.savez(f"{folder}/tiny.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    return ["data=npz", f"data.path={folder}/tiny.npz", "model.hidden=[8]"]


def _timed(*words: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _run(*words, f"out={folder}")
        return time.perf_counter() - start


def _run(*words: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "mlp.train", "--multirun", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
