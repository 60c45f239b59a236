"""Seconds per epoch under stated conditions: one process, one thread, the nets in turn, several rounds.

Ratios are taken within a round, where conditions are the same; :mod:`sweeps.judge.timing` reads the file.
"""

import contextlib
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from mlp import data
from mlp.composition import compose
from mlp.config import RunConfig
from mlp.trainer import Trainer
from sweeps.judge.timing import path
from sweeps.runs import provenance
from sweeps.runs.errors import InputError
from sweeps.runs.files import write_atomic
from sweeps.runs.schema import integer
from sweeps.runs.status import now


def measure(out: Path, nets: Mapping[str, Sequence[str]], *, rounds: int = 25, steps: int = 30) -> Path:
    """Time networks and write ``<out>/timing.json``; eight of them take about a minute.

    In each round every net trains ``steps`` batches, of which the first fifth is warm-up; an epoch's time is the
    median batch's times the batches of an epoch. Rounds begin with different nets, so that none is always first.

    Args:
        nets: the name of each, and the overrides that compose it.

    Raises:
        InputError: ``rounds`` or ``steps`` is too small, there is no net, or ``out`` cannot be written.
    """
    integer(ge=2)("rounds", rounds)
    integer(ge=5)("steps", steps)
    if not nets:
        raise InputError(
            "timing", "no hypothesis", "the study has none about time; a measure with take: time makes one"
        )
    configs = {name: compose(*overrides) for name, overrides in nets.items()}
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
        conditions = provenance.collect(Path(__file__).parent)
    conditions |= {"date": now(), "cores": os.cpu_count(), "load": load_at_start, "cpu_share": share}
    conditions |= {"rounds": rounds, "steps": steps, "threads": 1}
    measured = {
        name: {"seconds": values, "median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in seconds.items()
    }
    content = {"unit": "seconds per training epoch, evaluation excluded", "conditions": conditions, "nets": measured}
    write_atomic(path(out), json.dumps(content, indent=1).encode() + b"\n")
    return path(out)


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
