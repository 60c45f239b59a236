"""The network's training as a program of :mod:`sweeps`: configuration in, a run's epochs out."""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mlp import stats
from mlp.activations import Floats
from mlp.config import RunConfig
from mlp.data import Dataset, load
from mlp.epochs import Epoch
from mlp.network import Network
from mlp.optim import Optimizer
from mlp.probe import Probe
from mlp.trainer import Trainer
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.metrics import Row
from sweeps.runs.program import Program, RunSpec
from sweeps.runs.provenance import cores
from sweeps.runs.session import Run
from sweeps.runs.session import train as train_run
from sweeps.runs.status import Result

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parent
# In a wheel the configs are in the package, in a checkout beside it.
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir())


def studies() -> Path:
    """Where the studies of networks are; called through the entry point group ``sweeps.studies``."""
    return CONF / "study"


def train_network(config: RunConfig, run: Run) -> None:
    """Train the epochs that are left."""
    run.check()  # from here on, signals take effect after a batch
    dataset = load(config.data.name, config.data.options)
    if dataset.checksums != run.identity["data"]["checksums"]:
        path = config.data.options.get("path")
        raise InputError("data.path", path, "has changed since the run was planned; repeat the command")
    with (
        threadpool_limits(1, user_api="blas"),  # the trainer's processes have the cores
        contextlib.closing(Trainer(config, dataset, config.threads or cores())) as trainer,
    ):
        run.record(threads=trainer.members)
        epochs = run.epochs(config.epochs, state=state(trainer.network, trainer.optimizer))
        probe = Probe(config, dataset) if config.stats else None
        if probe:
            _resume_stats(probe, RunDir(run.path), trainer.network.theta, run.epoch)
        for number in epochs:
            row = trainer.epoch(number, run.check)
            if probe:  # first, so that a finished run has its stats
                stats.append(RunDir(run.path), probe.measure(trainer.network.theta, number))
            for window in trainer.windows:
                run.log_step(window._asdict())
            run.log_items(test_correct=trainer.test_correct)
            run.log({name: value for name, value in row._asdict().items() if name != "epoch"})


def _resume_stats(probe: Probe, run: RunDir, theta: Floats, done: int) -> None:
    """stats.csv is cut back like metrics.csv, and includes the weights from which training continues."""
    try:
        rows = [row for row in stats.read(run) if row.epoch <= done]
    except DamagedRun as damage:
        log.warning("%s; starting it again", damage)
        rows = []
    if not rows or rows[-1].epoch < done:
        rows += probe.measure(theta, done)
    stats.write(run, rows)
    missing = done + 1 - len({row.epoch for row in rows})
    if missing:
        log.warning("stats.csv lacks %d of the epochs up to %d: they were trained without stats", missing, done)


def parameters(network: Network) -> dict[str, np.ndarray]:
    """``{"W1": …, "b1": …, "W2": …}``: views of the network's parameters, (fan_in, fan_out) and (fan_out,)."""
    named = {}
    for i, linear in enumerate(network.linears, start=1):
        named[f"W{i}"], named[f"b{i}"] = linear.weight, linear.bias
    return named


def state(network: Network, optimizer: Optimizer) -> dict[str, np.ndarray]:
    """The state of training: parameters, and ``optim.<name>`` flat, in the order W1, b1, W2, …"""
    return parameters(network) | {f"optim.{name}": value for name, value in optimizer.state.items()}


def spec_of(values: RunConfig | Mapping[str, Any]) -> RunSpec:
    """The run of a configuration, checked, including its data; paths become absolute."""
    config = values if isinstance(values, RunConfig) else RunConfig.from_mapping(values)
    plain: Mapping[str, Any] = {}
    if not isinstance(values, RunConfig):
        plain = _with_absolute_paths(values)
        config = RunConfig.from_mapping(plain)
    _dataset(config)
    return RunSpec(
        config.run_id, config.identity, config.epochs, config.out, config, plain,
        (config.tracker.name, config.tracker.options), config.checkpoint_every,
    )  # fmt: skip


def _with_absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for group, option in ((None, "out"), ("data", "path"), ("tracker", "dir")):
        holder = plain if group is None else plain.get(group)
        path = holder.get(option) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(path, str) and path not in ("", "???") and "\0" not in path:
            holder[option] = str(Path.cwd() / path)
    return plain


def _dataset(config: RunConfig) -> Dataset:
    return load(config.data.name, config.data.options)


def describe(row: Row) -> str:
    """An epoch's metrics on one line."""
    return (
        f"train {row.train_loss:.4f} {row.train_acc:.2f} %  "
        f"valid {row.valid_loss:.4f} {row.valid_acc:.2f} %  {row.seconds:.2f} s"
    )


def brief(row: Row) -> str:
    """The metric that judges a run: with a validation set, not the test accuracy."""
    held_out = (row.valid_loss, row.valid_acc) != (row.test_loss, row.test_acc)
    return f"valid {row.valid_acc:.2f} %" if held_out else f"test {row.test_acc:.2f} %"


_PASSES = 3  # forward, and two products backward, each of a multiply and an add for every weight and image


def cost(config: RunConfig) -> float:
    """Multiply-adds of one epoch: roughly proportional to its time."""
    dataset = _dataset(config)
    widths = (dataset.features, *config.hidden, dataset.classes)
    weights = sum(a * b for a, b in pairwise(widths))
    return float(weights * (_PASSES * len(dataset.train) + len(dataset.test)))


@lru_cache(maxsize=1)
def speed() -> float:
    """Multiply-adds a second of one worker, by a product of the usual size."""
    a, b = np.ones((200, 784), np.float32), np.ones((784, 360), np.float32)
    laps = []
    with threadpool_limits(1, user_api="blas"):  # as in a worker
        for _ in range(10):
            start = time.perf_counter()
            np.matmul(a, b)
            laps.append(time.perf_counter() - start)
    return 0.7 * 200 * 784 * 360 / min(laps)  # a step is more than its products


def advise(metric: str, config: RunConfig) -> str | None:
    """Why a metric must not select networks: it is measured on the test set."""
    if metric.startswith("test_"):
        return "is measured on the test set, which would then overrate the winner; use valid_…"
    dataset = _dataset(config)
    if "valid" in metric and dataset.valid is dataset.test:
        return "is the test set's here, without a validation set; data.holdout=5000 splits one off the training set"
    return None


def sized(spec: RunSpec, threads: int) -> RunSpec:
    """The same run with this number of threads, unless the configuration sets it."""
    if spec.config.threads is not None:
        return spec
    return replace(spec, config=replace(spec.config, threads=threads), values={**spec.values, "threads": threads})


def lacks(spec: RunSpec) -> str | None:
    """A finished run has no stats.csv if it was trained without ``stats=true``."""
    if spec.config.stats and not (spec.run.path / "stats.csv").exists():
        return "finished, and not trained again, so it has no stats.csv; use another out=DIR"
    return None


program = Program(
    train_network,
    "mlp",
    budget="epochs",
    metric="valid_acc",
    prepare=spec_of,
    describe=describe,
    brief=brief,
    shown=("test_acc", "test %", "best %"),
    cost=cost,
    speed=speed,
    advise=advise,
    sized=sized,
    lacks=lacks,
    config=(str(CONF), "config"),
    metrics=Epoch._fields[1:],
    origin="mlp.train:train",
    registries=tuple(
        f"mlp.{place}"
        for place in ("activations:ACTIVATIONS", "losses:LOSSES", "optim:OPTIMIZERS", "datasets:DATASETS")
    ),
)


def train(
    config: RunConfig | Mapping[str, Any], *, on_epoch: Callable[[Row], None] | None = None, wait: bool = True
) -> Result:
    """Train a run to ``config.epochs`` epochs and return its result; see :func:`sweeps.runs.session.train`.

    Args:
        config: checked, or a nested mapping as conf/ composes it.
    """
    return train_run(program, spec_of(config), on_epoch=on_epoch, wait=wait)
