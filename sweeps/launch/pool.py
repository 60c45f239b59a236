"""The local executor: worker processes that share nothing, supervised by one thread.

Each worker is a new interpreter with its own socket, so a worker that is killed at any moment breaks only its own
connection. It is not a child of :mod:`multiprocessing`, which would also start a resource tracker,
import the main program in each worker, and show the workers to the host program as its children.
"""

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from sweeps.launch.job import Job, epochs_done, execute
from sweeps.launch.sending import dumps
from sweeps.runs.provenance import cores
from sweeps.runs.schema import integer, optional
from sweeps.runs.status import Result, State

_GRACE = 15.0  # seconds past its own timeout after which a job that does not react is killed with its worker

_ATTEMPTS = 10  # to start a worker, in a row, after which the waiting jobs fail
_TICK = 0.1  # seconds between looks at processes and deadlines; connections are noticed at once
_STALL = 10  # seconds without progress inside a message, after which the worker counts as broken
_CLOSING = 3.0  # seconds for running jobs to react to SIGTERM when the pool closes

# What a worker's interpreter runs. Its standard input is the connection, since that one descriptor is always passed
# on; it moves away from there, so that no program a job starts reads from it.
_BOOTSTRAP = (
    "import fcntl, os, sys; from multiprocessing.connection import Connection; "
    "main = Connection(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)); "
    "null = open(os.devnull); os.dup2(null.fileno(), 0); null.close(); "
    "sys.path[:] = main.recv(); main.recv()(main)"
)


def workers_for(workers: int | None, threads: int) -> int:
    """As many workers with this number of threads as the cores allow, unless a number is given.

    Raises:
        InputError: one of them is not a whole number ≥ 1.
    """
    threads = integer(ge=1)("hydra.launcher.threads", threads)
    asked = optional(integer(ge=1, le=1024))("hydra.launcher.workers", workers)
    return int(asked or max(1, cores() // threads))


class Pool:
    """``workers`` processes that call ``function`` with one job at a time; one that dies is replaced.

    The supervising thread alone starts workers, talks to them and waits for their end. Other threads add a job to the
    queue or set a flag, and wake it.

    Args:
        threads: of each worker, for OpenMP and the libraries that ask for its setting, unless the user has set it.
        function: is pickled by reference, so a worker must be able to import it.
    """

    def __init__(
        self, *, workers: int, threads: int | None = None, function: Callable[[Job], Result] = execute
    ) -> None:  # fmt: skip
        self.slots = workers
        self._threads = threads
        self._greeting = [pickle.dumps(item) for item in (sys.path, _work, (os.getpid(), function))]
        self._queue: deque[tuple[Job, bytes, Future[Result]]] = deque()
        self._workers: list[_Worker] = []
        self._failed_starts = 0  # in a row
        self._next_start = 0.0
        self._interrupted = self._closed = False
        self._bell, self._rope = socket.socketpair()
        self._rope.setblocking(False)
        self._supervisor = threading.Thread(target=self._supervise, name="pool", daemon=True)
        self._supervisor.start()

    def describe(self) -> str:
        return f"{self.slots} local worker{'s' if self.slots > 1 else ''}"

    def check(self, out: Path) -> None:
        """Nothing to check: the workers are on this machine."""

    def submit(self, job: Job) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()  # it cannot be cancelled
        self._queue.append((job, dumps(job), future))  # its values may be of classes of __main__
        self._wake()
        if self._closed:  # the supervisor may not have noticed
            self._finish_queue(_not_begun)
        return future

    def news(self) -> list[str]:
        """Nothing: a worker's death is reported as its job's."""
        return []

    def interrupt(self) -> None:
        """Ask the workers to end their runs at once; idle ones just end. No more jobs are started."""
        self._interrupted = True
        for worker in tuple(self._workers):
            worker.process.terminate()
        self._wake()

    def close(self) -> None:
        """End all workers; running ones have a moment to react to SIGTERM."""
        self._closed = True
        self._wake()
        self._supervisor.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake up anyway; closed: it has ended
            self._rope.send(b"!")

    def _supervise(self) -> None:
        # The terminal's Ctrl-C is the main process's to handle. Workers inherit this mask, so that it does not reach
        # even one that is just starting.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while not self._closed:
                self._start_missing()
                self._hand_out()
                self._listen()
        finally:
            self._end()

    def _start_missing(self) -> None:
        """As many as there are jobs for."""
        busy = sum(worker.future is not None for worker in self._workers)
        wanted = min(self.slots, busy + len(self._queue))
        while len(self._workers) < wanted and time.monotonic() >= self._next_start:
            if self._interrupted or (self._failed_starts and not self._queue):
                return
            try:
                self._workers.append(_Worker.start(self._greeting, self._threads))
            except OSError as error:  # out of processes, memory or descriptors
                self._note_failed_start(error.strerror or str(error))

    def _note_failed_start(self, why: str) -> None:
        self._failed_starts += 1
        self._next_start = time.monotonic() + min(1.0, 0.1 * self._failed_starts)
        if self._failed_starts >= _ATTEMPTS and not any(worker.ready for worker in self._workers):
            self._finish_queue(partial(_no_worker, why))

    def _hand_out(self) -> None:
        if self._interrupted:
            self._finish_queue(_not_begun)
        for worker in tuple(self._workers):
            if self._queue and worker.ready and not worker.future:
                job, data, future = self._queue.popleft()
                try:
                    worker.connection.send_bytes(data)
                except OSError:  # it has died, and never saw the job
                    self._queue.appendleft((job, data, future))
                    self._remove(worker)
                else:
                    worker.job, worker.future = job, future
                    worker.deadline = float("inf") if job.timeout is None else time.monotonic() + job.timeout + _GRACE

    def _listen(self) -> None:
        """Wait for the workers, the bell or the next tick, and handle what has happened."""
        ready = set(wait([self._bell, *(worker.connection for worker in self._workers)], _TICK))
        if self._bell in ready:
            self._bell.recv(4096)
        for worker in tuple(self._workers):
            if worker.connection in ready:
                self._hear(worker)
            elif worker.process.poll() is not None and not worker.connection.poll():
                self._remove(worker)  # a process that it forked, or the host program, still holds the connection
            elif time.monotonic() > worker.deadline:
                worker.process.kill()
                self._remove(worker, State.FAILED, "TimeoutError: did not react, so its worker was killed")

    def _hear(self, worker: "_Worker") -> None:
        try:
            result = worker.connection.recv()
        except Exception:  # it has died, perhaps inside the message
            self._remove(worker)
            return
        if worker.ready:
            worker.answer(result)
        else:
            worker.ready, self._failed_starts = True, 0

    def _remove(self, worker: "_Worker", state: State = State.LOST, error: str = "") -> None:
        """Wait for the end of a dying worker; its job is lost unless a result says otherwise."""
        self._workers.remove(worker)
        status = worker.end(patience=1.0)
        worker.finish(state, error or _cause(status))
        if not worker.ready:
            self._note_failed_start(_cause(status))

    def _finish_queue(self, result: Callable[[Job], Result]) -> None:
        with contextlib.suppress(IndexError):
            while True:
                job, _, future = self._queue.popleft()
                future.set_result(result(job))

    def _end(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.process.terminate()
            worker.connection.close()
        end = time.monotonic() + _CLOSING
        for worker in self._workers:
            worker.end(patience=max(0.0, end - time.monotonic()))
            worker.finish(State.LOST, "the pool was closed")
        self._workers.clear()
        self._finish_queue(_not_begun)
        self._bell.close()
        self._rope.close()


@dataclass(eq=False)
class _Worker:
    """A worker as the supervisor sees it."""

    process: "subprocess.Popen[bytes]"
    connection: Connection
    ready: bool = False  # for its first job
    job: Job | None = None  # that it has
    future: Future[Result] | None = None
    deadline: float = float("inf")

    @classmethod
    def start(cls, greeting: list[bytes], threads: int | None) -> "_Worker":
        # The last argument is for lists of processes.
        flags = [*subprocess._args_from_interpreter_flags(), "-P"]  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-c", _BOOTSTRAP, "sweeps-worker"]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(True)  # the host program may have another default
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # one stopped inside a message holds up no other
                ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALL, 0))
            environment = ({"OMP_NUM_THREADS": str(threads)} if threads else {}) | os.environ
            worker = cls(subprocess.Popen(command, stdin=theirs.fileno(), env=environment), Connection(ours.detach()))
        with contextlib.suppress(OSError):  # it has died already, as its connection will tell
            for item in greeting:
                worker.connection.send_bytes(item)
        return worker

    def answer(self, result: Result | str) -> None:
        """Set its job's result, if it has a job; text is an exception's."""
        if isinstance(result, str) and self.job:
            result = _ended(self.job, State.FAILED, result)
        future, self.future, self.job, self.deadline = self.future, None, None, float("inf")
        if future and isinstance(result, Result):
            future.set_result(result)

    def finish(self, state: State, error: str) -> None:
        """Its job, if it has one, ended with the worker."""
        if self.job:
            self.answer(_ended(self.job, state, error))

    def end(self, patience: float) -> int:
        """Its exit status; it is killed if it has not ended in time."""
        self.connection.close()
        for seconds in (patience, 1.0):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(seconds)
            self.process.kill()
        return -signal.SIGKILL  # the kernel still holds it, e.g. for a dead file server


def _ended(job: Job, state: State, error: str) -> Result:
    return Result(job.run_id, job.run.path, state, epoch=epochs_done(job.run), error=error)


def _cause(status: int) -> str:
    """Why a worker died, by its exit status."""
    if status >= 0:
        return f"worker ended with status {status}"
    name = {item.value: item.name for item in signal.Signals}.get(-status, f"signal {-status}")
    return f"worker killed by {name}" + " (out of memory?)" * (name == "SIGKILL")


def _no_worker(why: str, job: Job) -> Result:
    return _ended(job, State.FAILED, f"no worker could start in {_ATTEMPTS} attempts: {why}")


def _not_begun(job: Job) -> Result:
    return _ended(job, State.INTERRUPTED, "before it began")


def _work(main: Connection) -> None:
    """A worker's main loop: run jobs until the main process closes the connection."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the host program may ignore it
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})
    with contextlib.suppress(EOFError, ConnectionError):
        parent, function = main.recv()
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
        main.send(None)  # ready
        while True:
            data = main.recv_bytes()
            try:
                result = function(pickle.loads(data))
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            main.send(result)


def _follow(parent: int) -> None:
    """End with the main process, even if that was killed: at the next batch, or soon after."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    os._exit(1)
