"""A lock between processes that dies with its holder and has no name: nothing is left behind by who is killed."""

import fcntl
import os
import tempfile
import threading
import time
from multiprocessing.connection import Connection

_LOOK = 0.001  # seconds between attempts; what it guards takes less


class MortalLock:
    """A record lock of the kernel's on a file without a name. Its holder may take it again.

    multiprocessing's own is a named semaphore. A killed holder takes that along, so that the others wait for ever; and
    once main, workers and their resource tracker are killed together, as by Slurm at a time limit, its file stays in
    /dev/shm until the machine starts again.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):  # works on a full disk, too
            handle = os.memfd_create("lock")
        else:
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        self.__setstate__(Connection(handle))  # which knows how to go along to a worker, and closes it

    def __getstate__(self) -> Connection:
        return self._file

    def __setstate__(self, file: Connection) -> None:
        self._file = file
        self._threads = threading.RLock()  # the kernel tells only processes apart
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Whether it is held now; waits up to ``timeout`` seconds, forever if None, and not at all unless ``block``."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        if not self._threads.acquire(block, -1 if timeout is None or not block else timeout):
            return False
        while not self._depth:
            try:
                fcntl.lockf(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # another process has it; which of the two, POSIX leaves open
                if not block or time.monotonic() >= end:
                    self._threads.release()
                    return False
                time.sleep(_LOOK)
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.lockf(self._file.fileno(), fcntl.LOCK_UN)
        self._threads.release()
