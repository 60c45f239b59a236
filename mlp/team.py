"""Threads that share the large pieces of a training step: the products and the update.

A BLAS has threads of its own, but they wait for one another by spinning: as soon as another process takes one of the
cores, a product of a millisecond takes ten. Ours sleep between tasks. What is smaller stays on one thread: it costs
more to wake another, and to wait for the interpreter, than is saved.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np

from mlp.activations import Floats

_WORTH_SHARING = 5_000_000
"""Multiply-adds for each thread below which waking it does not pay."""

_LEAD = 2_000_000
"""Multiply-adds that the caller's thread does while another is being woken (30 µs)."""


def cores() -> int:
    """Processors that this process may use: its affinity, and a container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        pass
    return available


@final
class Team:
    """A number of threads, the caller's own among them. ``close`` it when done.

    For a given number of threads work is always divided in the same way: same results, bit for bit.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._helpers = [_Helper(f"helper-{number}") for number in range(1, threads)]

    def matmul(self, a: Floats, b: Floats, out: Floats) -> Floats:
        """``np.matmul(a, b, out)`` of matrices (m, k) and (k, n), the rows of the result divided among the threads."""
        row = out.shape[1] * a.shape[1]
        parts = min(self.threads, len(out), len(out) * row // _WORTH_SHARING)
        if parts < 2:
            return np.matmul(a, b, out=out)
        self._share(lambda part: np.matmul(a[part], b, out=out[part]), len(out), parts, lead=_LEAD // row)
        return out

    def elementwise(self, task: Callable[[slice], object], length: int) -> None:
        """``task(part)`` for parts that make up ``range(length)``, one a thread."""
        self._share(task, length, min(self.threads, length * 50 // _WORTH_SHARING), lead=0)

    def close(self) -> None:
        """End the threads; the team is of no use afterwards."""
        for helper in self._helpers:
            helper.close()

    def _share(self, task: Callable[[slice], object], length: int, parts: int, lead: int) -> None:
        if parts < 2:
            task(slice(0, length))
            return
        lead = min(lead, length // (2 * parts))
        cuts = [0, *(lead + (length - lead) * part // parts for part in range(1, parts + 1))]
        helpers = self._helpers[: parts - 1]
        for helper, start, stop in zip(helpers, cuts[1:], cuts[2:], strict=False):
            helper.begin(task, slice(start, stop))
        try:
            task(slice(0, cuts[1]))
        finally:
            errors = [helper.finish() for helper in helpers]
        for error in errors:
            if error:
                raise error


@final
class _Helper:
    """A thread, asleep between tasks. A daemon: a process that ends in the middle of one does not wait for it.

    A lock each way is all that passes between the threads; a future or a queue takes several times as long.
    """

    def __init__(self, name: str) -> None:
        self._task: Callable[[slice], object] | None = None
        self._part = slice(0)
        self._error: Exception | None = None
        self._begun, self._done = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._done.acquire()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def begin(self, task: Callable[[slice], object], part: slice) -> None:
        self._task, self._part, self._error = task, part, None
        self._begun.release()

    def finish(self) -> Exception | None:
        self._done.acquire()
        return self._error

    def close(self) -> None:
        self._task = None
        self._begun.release()

    def _run(self) -> None:
        np.seterr(all="ignore")  # of this thread; the trainer looks for what is not finite
        while True:
            self._begun.acquire()
            if self._task is None:
                return
            try:
                self._task(self._part)
            except Exception as error:  # MemoryError, for one
                self._error = error
            self._done.release()
