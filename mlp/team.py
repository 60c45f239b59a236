"""Worker processes that train one network, each with a share of its units, batches and parameters.

Threads would contend for the GIL after every NumPy call, about 30 µs each time; a BLAS's own threads wait for
one another by spinning, so that a product of a millisecond takes ten as soon as another process takes one of the cores.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sweeps.runs.errors import InputError

_SPINS, _YIELDS = 1000, 4000
"""Attempts (0.1 µs each), then attempts that yield the core to another process (0.5 µs), before blocking.

Members end at nearly the same time, and a wake-up costs 50 µs or more: without the yields, one that is late makes the
other block, which is late then. In a virtual machine they did not get out of that, and a step took up to three times as
long.
"""

_ALONE = 0.5
"""Seconds of blocking after which to check that the other process is alive."""


class Zeros(Protocol):
    """``np.zeros``, or memory that several processes see."""

    def __call__(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]: ...


def share(count: int, size: int, member: int) -> slice:
    """The member's part of ``range(count)``, as large as those of the others to within one."""
    return slice(count * member // size, count * (member + 1) // size)


@final
class Team:
    """This process, member 0, and helpers forked from it, which die with it. ``close`` it when done.

    Shared data must be in memory from ``zeros``, requested before ``begin``; helpers have copies of everything else.
    Helpers touch no file, no network and no lock but the team's own.
    """

    def __init__(self, size: int = 1) -> None:
        # Elsewhere a forked process may not use the system's libraries for linear algebra.
        self.size = size if sys.platform == "linux" else 1
        self._tasks: tuple[Callable[[int], None], ...] = ()
        self._helpers: list[_Helper] = []
        self._number = self.zeros(1, np.intp)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array that all members see. It has no name, so a crash leaves nothing behind."""
        array = np.zeros(shape, dtype)
        return array if self.size == 1 else np.frombuffer(mmap.mmap(-1, array.nbytes), dtype).reshape(shape)

    def begin(self, *tasks: Callable[[int], None]) -> None:
        """Fork the helpers, which know these tasks; a task is called with the number of the member.

        Raises:
            InputError: shared memory is not available, e.g. /dev/shm cannot be written.
        """
        self._tasks = tasks
        try:
            for member in range(1, self.size):
                self._helpers.append(_Helper(member, self._perform))
        except OSError as error:
            self.close()
            said = f"processes that train together need /dev/shm ({error.strerror}); threads=1 does without"
            raise InputError("threads", self.size, said) from None

    def run(self, task: Callable[[int], None]) -> None:
        """Let every member do the task at once; returns when all have.

        Raises:
            ChildProcessError: a helper has died, e.g. out of memory.
        """
        if not self._helpers:
            task(0)
            return
        self._number[0] = self._tasks.index(task)
        for helper in self._helpers:
            helper.begun.release()
        try:
            task(0)
        finally:
            for helper in self._helpers:
                helper.wait()

    def close(self) -> None:
        """End the helpers; the team cannot be used afterwards."""
        for helper in self._helpers:
            helper.kill()
        self._tasks = ()  # methods of what holds the team: in a cycle, its arrays would wait for a full collection

    def _perform(self, member: int) -> None:
        self._tasks[self._number[0]](member)


@final
class _Helper:
    """A forked process; a semaphore each way is all that passes between it and the caller."""

    def __init__(self, member: int, perform: Callable[[int], None]) -> None:
        context = multiprocessing.get_context("fork")
        self.begun, self._done = context.Semaphore(0), context.Semaphore(0)
        parent = os.getpid()
        with warnings.catch_warnings():  # Python's, of locks that other threads may hold: the helper takes none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            try:
                self._serve(member, perform, parent)
            finally:
                os._exit(1)

    def _serve(self, member: int, perform: Callable[[int], None], parent: int) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):  # the caller gets them, too, and handles them
            signal.signal(signum, signal.SIG_IGN)
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # the caller's locks and pipes must not outlive it
        np.seterr(all="ignore")  # the trainer looks for what is not finite
        while True:
            _acquire(self.begun, lambda: None if os.getppid() == parent else os._exit(0))
            perform(member)
            self._done.release()

    def wait(self) -> None:
        _acquire(self._done, self._check)

    def kill(self) -> None:
        """Kill it; it has nothing to clean up."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has died, or was waited for
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _check(self) -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                return
        raise ChildProcessError(f"helper process {self._pid} has died; perhaps it ran out of memory")


def _acquire(semaphore: Any, check: Callable[[], None]) -> None:
    for attempt in range(_SPINS + _YIELDS):
        if semaphore.acquire(False):
            return
        if attempt >= _SPINS:
            os.sched_yield()
    while not semaphore.acquire(True, _ALONE):
        check()
