"""Seconds per epoch under stated conditions: one process, one thread, the nets in turn, several rounds.

Times of a sweep's own runs come from a busy pool and say little; the claims about time rest on ``timing.json``
alone. Ratios are taken within a round, where both nets met the same machine.
"""

import contextlib
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mlp import data, provenance
from mlp.composition import compose
from mlp.config import RunConfig
from mlp.trainer import Trainer
from sweeps.runs.directory import now
from sweeps.runs.errors import InputError
from sweeps.runs.files import write_atomic
from sweeps.runs.schema import integer

COMMAND = "python -m sweeps timing"

_MODELS = {"360": "mlp1", "512x256": "mlp2"}
# The report's tables 1 and 2, with tanh.
_KINDS = (("relu", "ce"), ("sigmoid", "ce"), ("gelu", "ce"), ("tanh", "ce"), ("relu", "euclidean"), ("relu", "hinge"))

# Below this share of a core something else ran in our place, and the clock measured that too.
_UNDISTURBED = 0.9


@dataclass(frozen=True)
class Timing:
    """What ``timing.json`` holds."""

    seconds: Mapping[str, tuple[float, ...]]
    """Net, e.g. ``"gelu-ce-512x256"`` → seconds per training epoch in each round; all of one length."""
    conditions: Mapping[str, Any]
    """date, cpu, cores, blas, threads, load (averages at the start), cpu_share, rounds, steps, …"""

    @property
    def disturbed(self) -> bool:
        """Whether other processes took part of the core that measured."""
        return bool(self.conditions["cpu_share"] < _UNDISTURBED)

    def describe(self) -> str:
        """The conditions in one line."""
        c = self.conditions
        return (
            f"{c['rounds']} rounds of {c['steps']} steps, one process, one thread, {c['cpu']}, "
            f"{c['date'][:10]}, load average {c['load'][0]:.1f} on {c['cores']} cores at the start, "
            f"{100 * c['cpu_share']:.0f} % of a core obtained"
        )


def path(out: Path) -> Path:
    return out / "timing.json"


def measure(out: Path, *, rounds: int = 10, steps: int = 30) -> Path:
    """Time the twelve nets of the report's tables and write ``<out>/timing.json``; takes about half a minute.

    In each round every net trains ``steps`` batches, of which the first fifth only warms up; an epoch's time is the
    median batch's times the batches of an epoch. Successive rounds begin with another net, lest one always come first.

    Raises:
        InputError: ``rounds`` or ``steps`` is too small to say anything, or ``out`` cannot be written.
    """
    integer(ge=2)("rounds", rounds)
    integer(ge=5)("steps", steps)
    configs = {
        f"{activ}-{loss}-{model}": compose(f"activ={activ}", f"loss={loss}", f"model={group}")
        for model, group in _MODELS.items()
        for activ, loss in _KINDS
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", str(out), f"must be a directory that can be written ({error.strerror})") from None
    load_at_start = os.getloadavg()
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    with threadpool_limits(1, user_api="blas"):
        trainers = {name: _trainer(config) for name, config in configs.items()}
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(rounds):
            names = list(configs)
            first = number * len(names) // rounds
            for name in names[first:] + names[:first]:
                seconds[name].append(_seconds_per_epoch(*trainers[name], number + 1, steps))
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        conditions = provenance.collect()
    conditions |= {"date": now(), "cores": os.cpu_count(), "load": load_at_start, "cpu_share": share}
    conditions |= {"rounds": rounds, "steps": steps, "threads": 1}
    nets = {
        name: {"seconds": values, "median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in seconds.items()
    }
    content = {"unit": "seconds per training epoch, evaluation excluded", "conditions": conditions, "nets": nets}
    write_atomic(path(out), json.dumps(content, indent=1).encode() + b"\n")
    return path(out)


def load(out: Path) -> Timing | None:
    """What :func:`measure` wrote there, or None.

    Raises:
        InputError: the file is not one of ours.
    """
    try:
        content = json.loads(path(out).read_bytes())
        seconds = {name: tuple(map(float, net["seconds"])) for name, net in content["nets"].items()}
        timing = Timing(seconds, content["conditions"])
        timing.describe()  # everything that is read later is there
        if len({len(values) for values in seconds.values()}) != 1:
            raise ValueError("unequal rounds")
        if not all(0 < value < math.inf for values in seconds.values() for value in values):
            raise ValueError("times must be positive")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError("timing", str(path(out)), f"is damaged ({error}); repeat `{COMMAND}`") from None
    return timing


class _Enough(Exception):
    """Ends an epoch early."""


def _trainer(config: RunConfig) -> tuple[Trainer, int]:
    """A trainer and the number of batches in its epoch."""
    dataset = data.load(config.data.name, config.data.options)
    return Trainer(config, dataset), math.ceil(len(dataset.train) / config.bsz)


def _seconds_per_epoch(trainer: Trainer, batches: int, number: int, steps: int) -> float:
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.perf_counter())
        if len(ticks) > min(steps, batches - 1):
            raise _Enough

    with contextlib.suppress(_Enough):
        trainer.epoch(number, tick)
    laps = [after - before for before, after in itertools.pairwise(ticks)]
    return statistics.median(laps[len(laps) // 5 :]) * batches
