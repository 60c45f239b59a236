"""How long a sweep takes: work counted in multiply-adds, speed learnt from the epochs that were timed."""

import statistics
import time
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from threadpoolctl import threadpool_limits

from mlp import data
from mlp.config import RunConfig
from mlp.runs import Epoch

_PASSES = 3  # forward, and two products backward, each of a multiply and an add for every weight and image


def epoch_work(config: RunConfig) -> float:
    """Multiply-adds of one epoch: proportional to its time, near enough to compare networks."""
    dataset = data.load(config.data.name, config.data.options)
    widths = (dataset.features, *config.hidden, dataset.classes)
    weights = sum(a * b for a, b in pairwise(widths))
    return float(weights * (_PASSES * len(dataset.train) + len(dataset.test)))


def speed(timed: Iterable[tuple[float, Epoch | None]]) -> float:
    """Multiply-adds a second of one worker: the median of timed epochs, or without any, measured by a product.

    Args:
        timed: pairs of an epoch's work and its row.
    """
    seen = [work / (row.seconds + row.eval_seconds) for work, row in timed if row and row.seconds > 0]
    return statistics.median(seen) if seen else _product_speed()


def _product_speed() -> float:
    a, b = np.ones((200, 784), np.float32), np.ones((784, 360), np.float32)
    laps = []
    with threadpool_limits(1, user_api="blas"):  # as a worker has, and several would wait for one another
        for _ in range(10):
            start = time.perf_counter()
            np.matmul(a, b)
            laps.append(time.perf_counter() - start)
    return 0.7 * 200 * 784 * 360 / min(laps)  # a step is not only products


def parallel_seconds(jobs: list[float], slots: int) -> float:
    """Time for jobs of these lengths (seconds) on ``slots`` workers, each taking the next in order as it gets free."""
    ends = [0.0] * max(1, min(slots, len(jobs)))
    for job in jobs:
        ends[ends.index(min(ends))] += job
    return max(ends)


def words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
