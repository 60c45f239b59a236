"""Measure what the README says about speed, side by side in one run, as ratios.

    python scripts/bench.py step       a training step against the machine's matrix multiply; GeLU against ReLU
    python scripts/bench.py overhead   a job of nearly no work: our launcher against Hydra's basic one
    python scripts/bench.py workers    experiment=report, shortened, on two workers against one
    python scripts/bench.py plan       planning 10,000 points of which all are finished

Machines are noisy: each measurement is interleaved over rounds, and medians are printed with their range.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
from threadpoolctl import threadpool_info

from mlp.data import load
from mlp.provenance import collect
from mlp.train import compose
from mlp.trainer import Trainer

BATCH = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (step, overhead, workers, plan):
        sub = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").splitlines()[0])
        sub.set_defaults(measure=measure)
        sub.add_argument("--rounds", type=int, default=7 if measure is step else 1)
        if measure is overhead:
            sub.add_argument("--jobs", type=int, default=200)
            sub.add_argument("--many", type=int, default=2000, help="jobs of the second measurement of ours (0: none)")
    arguments = vars(parser.parse_args())
    measure = arguments.pop("measure")
    facts = collect()
    blas = "; ".join(f"{pool['internal_api']} {pool['version']} {pool['architecture']}" for pool in facts["blas"])
    print(f"{facts['cpu']}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.python_version()}, "
          f"NumPy {np.__version__}, {blas}; {time.strftime('%Y-%m-%d')}")  # fmt: skip
    measure(**arguments)


def step(rounds: int) -> None:
    """A training step against the machine's matrix multiply."""
    assert max(pool["num_threads"] for pool in threadpool_info()) == 1
    nets = {"784–360–10": "mlp1", "784–512–256–10": "mlp2"}
    trainers = {
        (name, activ): _stepper(f"model={model}", f"activ={activ}")
        for name, model in nets.items()
        for activ in ("relu", "sigmoid", "tanh", "gelu")
    }
    square = np.ones((1024, 1024), np.float32)
    out = np.empty_like(square)
    peaks: list[float] = []
    times: dict[tuple[str, str], list[float]] = {key: [] for key in trainers}
    for _ in range(rounds):
        peaks.append(2 * 1024**3 / _best(lambda: np.matmul(square, square, out=out), 8))
        for key, (run, _) in trainers.items():
            times[key].append(_best(run, 40))
    peak = statistics.median(peaks)
    print(f"sgemm peak {peak / 1e9:.1f} GFLOP/s (1024 × 1024, one thread)\n")
    print(f"{'network':<16}{'activ':<9}{'step µs':>9}{'range':>16}{'of peak':>9}{'× relu':>8}")
    for (name, activ), seconds in times.items():
        middle, (_, flops) = statistics.median(seconds), trainers[name, activ]
        ratio = statistics.median(a / b for a, b in zip(seconds, times[name, "relu"], strict=True))
        spread = f"{min(seconds) * 1e6:.0f}–{max(seconds) * 1e6:.0f}"
        print(f"{name:<16}{activ:<9}{middle * 1e6:>9.0f}{spread:>16}{flops / middle / peak:>9.2f}{ratio:>8.2f}")


def _stepper(*overrides: str) -> tuple[Callable[[], object], float]:
    """One training step as the trainer does it, and its floating-point operations."""
    config = compose(*overrides, "threads=1")
    trainer = Trainer(config, load(config.data.name, config.data.options))
    order = np.random.default_rng(0).permutation(60_000)
    starts = iter(range(10**9))

    def run() -> None:
        start = (next(starts) * BATCH) % len(order)
        trainer.step(order[start : start + BATCH])

    weights = [linear.weight.size for linear in trainer.network.linears]
    return run, 2.0 * BATCH * (3 * sum(weights) - weights[0])  # the first layer has no input gradient


def _best(run: Callable[[], object], laps: int) -> float:
    """Median of ``laps`` calls, in seconds, after a few to warm up."""
    for _ in range(3):
        run()
    seconds = []
    for _ in range(laps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


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


def workers(rounds: int) -> None:
    """experiment=report with five epochs a run, on two workers and on one."""
    ratios = []
    for _ in range(rounds):
        one, two = (_timed("experiment=report", "epochs=5", f"hydra.launcher.workers={count}") for count in (1, 2))
        ratios.append(one / two)
        print(f"1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} ×")
    print(f"median {statistics.median(ratios):.2f} ×")


def plan(rounds: int) -> None:
    """Planning 10,000 points of which all are finished (copies of one run under the names that they should have)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*_tiny(folder), "epochs=1", f"out={folder}/out"]
        _run(*words, "seed=0")
        (model,) = Path(folder, "out", "runs").iterdir()
        small = [word for word in words if not word.startswith("out=")]
        base = compose(*small)
        from dataclasses import replace

        for seed in range(1, 10_000):
            target = model.with_name(replace(base, seed=seed).run_id)
            target.mkdir()
            for name in ("status.json", "metrics.csv", "config.yaml", "provenance.json"):
                (target / name).write_bytes((model / name).read_bytes())
        for _ in range(rounds):
            start = time.perf_counter()
            _run(*words, "seed=range(0,10000)")
            print(f"10,000 finished points: {time.perf_counter() - start:.1f} s from start to summary")


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
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    command: Sequence[str] = [sys.executable, "-m", "mlp.train", "--multirun", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    main()
