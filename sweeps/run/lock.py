"""A lock between processes that has no name, so that nothing of it is left behind, whoever is killed."""

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection


class PipeLock:
    """A byte in a pipe: who has read it holds the lock, and writes it back. Its holder may take it again.

    multiprocessing's own is a named semaphore: once main, workers and their resource tracker are killed together, as by
    Slurm at a time limit, its file stays in /dev/shm until the machine starts again. A holder that is killed takes the
    lock along, as with a semaphore.
    """

    def __init__(self) -> None:
        self.__setstate__(multiprocessing.Pipe(duplex=False))  # these know how to go along to a worker
        os.set_blocking(self._reader.fileno(), False)  # who is told that the byte is there may find it taken
        os.write(self._writer.fileno(), b"1")

    def __getstate__(self) -> "tuple[Connection, Connection]":
        return self._reader, self._writer

    def __setstate__(self, pipe: "tuple[Connection, Connection]") -> None:
        self._reader, self._writer = pipe
        self._holder: int | None = None  # thread of this process
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Whether it is held now; waits up to ``timeout`` seconds, forever if None, and not at all unless ``block``."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._holder != threading.get_ident():
            try:
                os.read(self._reader.fileno(), 1)
                self._holder = threading.get_ident()
            except BlockingIOError:
                left = None if end is None else end - time.monotonic()
                if not block or (left is not None and left <= 0):
                    return False
                self._reader.poll(left)
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = None
            os.write(self._writer.fileno(), b"1")
