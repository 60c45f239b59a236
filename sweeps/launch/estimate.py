"""How long a sweep takes: each epoch's cost as the program counts it, speed learnt from the epochs that were timed."""

import statistics
from collections.abc import Iterable

from sweeps.runs.metrics import Row
from sweeps.runs.program import Program


def speed(program: Program, timed: Iterable[tuple[float, Row | None]]) -> float | None:
    """Cost a second of one worker: the median of timed epochs, or without any, as the program measures it, if it does.

    Args:
        timed: pairs of an epoch's cost and its row.
    """
    seen = [cost / row.total_seconds for cost, row in timed if row and row.get("seconds", 0) > 0]
    if seen:
        return statistics.median(seen)
    return program.speed() if program.speed else None


def parallel_seconds(jobs: list[float], slots: int) -> float:
    """Time for jobs of these lengths (seconds) on ``slots`` workers, each taking the next in order as it gets free."""
    ends = [0.0] * max(1, min(slots, len(jobs)))
    for job in jobs:
        ends[ends.index(min(ends))] += job
    return max(ends)


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
