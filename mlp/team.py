"""Threads that help with one training run: NumPy lets go of the interpreter in every large call."""

import contextvars
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import final

Task = Callable[[int], None]
"""Does part k of a whole that is divided among the team, k = 1 … helpers; part 0 is the caller's own."""


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
    """Does parts 1, 2, … of a task beside the caller.

    A lock each way is all that passes between threads: tens of microseconds, where a future takes a hundred and a
    training step two or three thousand.
    """

    def __init__(self, helpers: int) -> None:
        self._helpers = [_Helper(number) for number in range(1, helpers + 1)]

    def begin(self, task: Task) -> None:
        """Start every helper's part; ``finish`` must follow before the next."""
        for helper in self._helpers:
            helper.begin(task)

    def finish(self) -> None:
        """Wait for the parts that were begun.

        Raises:
            Exception: what one of them raised.
        """
        errors = [helper.finish() for helper in self._helpers]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads; the team is of no use afterwards."""
        self.begin(_end)


def _end(_part: int) -> None:
    raise SystemExit


@final
class _Helper:
    """One thread, asleep between tasks. A daemon: a process that ends in the middle of a task does not wait for it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._task: Task = _end
        self._error: BaseException | None = None
        self._context = contextvars.Context()
        self._begun, self._done = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._done.acquire()
        threading.Thread(target=self._work, name=f"helper-{number}", daemon=True).start()

    def begin(self, task: Task) -> None:
        self._task, self._error = task, None
        self._context = contextvars.copy_context()  # np.errstate is the caller's
        self._begun.release()

    def finish(self) -> BaseException | None:
        self._done.acquire()
        return self._error

    def _work(self) -> None:
        while True:
            self._begun.acquire()
            try:
                self._context.run(self._task, self._number)
            except SystemExit:
                return
            except BaseException as error:
                self._error = error
            self._done.release()
