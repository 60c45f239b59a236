"""The Dask executor: joins a scheduler, or starts one with workers in a batch system's jobs by ``dask-jobqueue``."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.launch.job import Job, Unfit, WorkerInfo, check_workers, execute_elsewhere, report_worker, token_file
from sweeps.runs import extras
from sweeps.runs.errors import InputError
from sweeps.runs.schema import fields, integer, list_of, number, one_of, optional, text
from sweeps.runs.status import Result, State

_load = partial(extras.load, extra="dask", field="hydra/launcher", value="dask")

_CLUSTERS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
_CONNECT = 10  # seconds for a scheduler to answer
_REFRESH = 1.0  # seconds between looks at the workers
_ANSWER = 5.0  # seconds for the scheduler to answer; it answers in milliseconds, unless its machine hangs
_SILENT = 15.0  # seconds without a heartbeat (there are two per second) before a message
_SCHEDULER = "the scheduler"
_DEAF = 60.0  # seconds without one, after which the worker's nanny replaces it
_REPLACE = 30.0  # seconds without a worker after which a batch job has ended; a nanny restarts one in less

_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?[^/\s:]+:\d{1,5}|(tcp|tls)://\[[0-9a-fA-F:]+\]:\d{1,5}")


def _address(field: str, value: object) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise InputError(field, value, "must be a scheduler's address like tcp://host:8786")
    return value


_LINES = optional(list_of(text(), allowed="must be a list of lines", at_most=100))
_OPTIONS = {
    "address": optional(_address),
    "cluster": optional(one_of(*_CLUSTERS)),
    "wait": number(gt=0),
    "threads": integer(ge=1, le=1024),
    "jobs": integer(ge=1),
    "cores": integer(ge=1),
    "processes": optional(integer(ge=1)),
    "memory": text(),
    "walltime": optional(text()),
    "queue": optional(text()),
    "account": optional(text()),
    "directives": _LINES,
    "prologue": _LINES,
    "interface": optional(text()),
    "logs": text(),
}


@dataclass(frozen=True)
class Options:
    """See conf/hydra/launcher/dask.yaml."""

    address: str | None
    cluster: str | None
    wait: float
    threads: int
    jobs: int
    cores: int
    processes: int | None
    memory: str
    walltime: str | None
    queue: str | None
    account: str | None
    directives: list[str] | None
    prologue: list[str] | None
    interface: str | None
    logs: str

    @classmethod
    def of(cls, **values: object) -> "Options":
        """Check the launcher's options.

        Raises:
            InputError: names the option.
        """
        options = cls(**fields(_OPTIONS, "hydra.launcher.", values))
        if (options.address is None) == (options.cluster is None):
            raise InputError(
                "hydra.launcher.address",
                options.address,
                "give a scheduler's address (tcp://host:8786), or hydra.launcher.cluster to start one, and not both",
            )
        if options.workers_per_job * options.threads > options.cores:
            raise InputError(
                "hydra.launcher.cores",
                options.cores,
                f"must be ≥ processes × threads, {options.workers_per_job} × {options.threads}",
            )
        return options

    @property
    def workers_per_job(self) -> int:
        return self.processes or max(1, self.cores // self.threads)

    @property
    def expected_slots(self) -> int | None:
        """The number of workers in the end; unknown for a scheduler that is joined."""
        return self.jobs * self.workers_per_job if self.cluster else None


class Dask:
    """Workers of a Dask cluster, which may come and go."""

    # Dask handles the death of a worker first: it gives the job to another worker, which continues from the
    # checkpoint. Only when distributed.scheduler.allowed-failures (3, unless the scheduler was told otherwise) workers
    # died of it is it "lost". To make that 0 would blame, with the job that ran, those that waited behind it.

    def __init__(self, options: Options) -> None:
        self._distributed = _load("distributed")
        for name in ("distributed", "dask_jobqueue", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters becomes a result or an error
        self._options = options
        self._cluster = _start_cluster(options) if options.cluster else None
        try:
            self._client = self._connect(self._cluster or options.address)
        except BaseException:
            self._close_cluster()
            raise
        self._futures: dict[Any, list[str] | None] = {}  # Dask forgets a task without a future; its workers
        self._kept = contextlib.ExitStack()  # the file that workers which join later must see, too
        self._proof = ("", "")
        self._inhabited = time.monotonic()  # when there was a worker
        self._last_seen: dict[str, float] = {}  # batch job → when it had a worker
        self._unfit: set[str] = set()  # workers that see another tree, or have other sources
        self._news: deque[str] = deque()
        self._looked = 0.0
        self._watch = _Watch(self._client)

    def _connect(self, where: Any) -> Any:
        try:
            if self._cluster is None:
                with ThreadPoolExecutor(1) as thread:  # in a notebook this thread has an event loop
                    thread.submit(asyncio.run, _probe(where)).result()
            return self._distributed.Client(where, timeout=_CONNECT, set_as_default=False, name="mlp-sweeps")
        except Exception as error:  # of many kinds: OSError, TypeError without TLS configuration, WebSocketError
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise InputError("hydra.launcher.address", str(where), f"no scheduler there: {reason[0]}") from None

    @property
    def slots(self) -> int:
        now = time.monotonic()
        workers = self._fit()
        if now - self._looked > _REFRESH and self._client.status == "running":
            self._looked = now
            self._news += self._watch.news(self._trains)
            if workers or not self._watch.answered(now):
                self._inhabited = now
            with contextlib.suppress(OSError):
                self._replace_ended()
            self._call_back(workers)
            if now - self._inhabited > self._options.wait:
                raise self._no_worker()
        return max(1, sum(workers.values()))

    def _fit(self) -> dict[str, int]:
        """Workers that may train, and their threads."""
        return {worker: n for worker, n in self._watch.threads.items() if worker not in self._unfit}

    def _call_back(self, workers: Iterable[str]) -> None:
        """Tasks for workers that have all gone would wait forever."""
        stranded = [done for done, chosen in list(self._futures.items()) if chosen and not {*chosen} & {*workers}]
        if stranded and workers:
            _within(_ANSWER, self._client.cancel, stranded)

    def _trains(self, worker: str) -> bool:
        """Whether it has a job of ours."""
        keys = _within(_ANSWER, self._client.processing).get(worker, ())
        return not {future.key for future in list(self._futures)}.isdisjoint(keys)

    def news(self) -> list[str]:
        """Lines about workers and a scheduler that are silent, or must not train."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def describe(self) -> str:
        return f"{self.slots} Dask worker{'s' if self.slots > 1 else ''} of {self._client.scheduler.address}"

    def check(self, out: Path) -> None:
        wait, address = self._options.wait, self._client.scheduler.address
        if not _within(_CONNECT, self._client.nthreads):
            print(f"waiting for the first worker of {address}, up to {wait:g} s", flush=True)
            try:
                self._client.wait_for_workers(1, timeout=wait)
            except TimeoutError:
                raise self._no_worker() from None
            self._inhabited = time.monotonic()
        path, token = self._kept.enter_context(token_file(out))
        self._proof = str(path), token
        try:
            answers = _within(wait, self._client.run, report_worker, str(path), on_error="return")
        except TimeoutError:
            silent = ", ".join(self._watch.silent()) or "one of the workers"
            raise InputError("hydra/launcher", silent, f"does not answer within {wait:g} s") from None
        for worker, answer in answers.items():
            if isinstance(answer, Exception) and not isinstance(answer, OSError):  # OSError: it has gone meanwhile
                raise InputError(
                    "hydra/launcher", worker, f"cannot run the mlp-sweeps package ({type(answer).__name__}: {answer})"
                )
        check_workers(out, token, [answer for answer in answers.values() if isinstance(answer, WorkerInfo)])
        for worker, threads in _within(_CONNECT, self._client.nthreads).items():
            if threads > 1:
                raise InputError(
                    "hydra.launcher.address",
                    address,
                    f"{worker} has {threads} threads; a process trains one run: dask worker --nworkers N --nthreads 1",
                )
        _within(_CONNECT, self._watch.look)
        print(f"on {self.describe()}", flush=True)

    def _no_worker(self) -> InputError:
        hint = f"; see {self._options.logs}" if self._cluster else ""
        address = self._client.scheduler.address
        return InputError("hydra.launcher.wait", f"{self._options.wait:g}", f"no worker came to {address}{hint}")

    def submit(self, job: Job) -> Future[Result]:
        if self._client.status != "running":
            raise InputError(
                "hydra.launcher.address", self._options.address, "the scheduler has gone; start again to continue"
            )
        outer: Future[Result] = Future()
        self._send(job, outer)
        return outer

    def _send(self, job: Job, outer: Future[Result]) -> None:
        chosen = list(self._fit()) if self._unfit else None
        # pure=False: the same job may be submitted again, and Dask would return the first one's result.
        inner = self._client.submit(
            _run, job, self._proof, pure=False, key=f"{job.run_id}-{time.monotonic_ns()}", workers=chosen
        )
        self._futures[inner] = chosen
        inner.add_done_callback(lambda done: self._deliver(job, done, outer))

    def _deliver(self, job: Job, done: Any, outer: Future[Result]) -> None:
        self._futures.pop(done, None)
        try:
            answer = done.result()
            if isinstance(answer, Unfit):
                self._turn_away(answer, job, outer)
            else:
                outer.set_result(answer)
        except self._distributed.KilledWorker as error:
            outer.set_result(
                Result(job.run_id, job.run.path, State.LOST, error=f"{error.allowed_failures + 1} workers died of it")
            )
        except self._distributed.CancelledError:
            outer.set_result(Result(job.run_id, job.run.path, State.LOST, error="cancelled, or the scheduler has gone"))
        except Exception as error:
            outer.set_exception(error)

    def _turn_away(self, unfit: Unfit, job: Job, outer: Future[Result]) -> None:
        """Give the job to another worker, and no more to this one."""
        if unfit.worker not in self._unfit:
            self._unfit.add(unfit.worker)
            self._news.append(f"{unfit.worker} gets no jobs: {unfit.reason}")
        if self._fit():
            self._send(job, outer)
        else:
            outer.set_result(Result(job.run_id, job.run.path, State.FAILED, error=unfit.reason))

    def interrupt(self) -> None:
        """Cancel the jobs that no worker has; they may wait for long."""
        with contextlib.suppress(OSError):
            begun = {key for keys in _within(_ANSWER, self._client.processing).values() for key in keys}
            waiting = [future for future in list(self._futures) if future.key not in begun]
            _within(_ANSWER, self._client.cancel, waiting)

    def close(self) -> None:
        """Leave a scheduler that was joined, cancelling our jobs; end one that was started."""
        self._watch.close()
        self._kept.close()
        with contextlib.suppress(OSError):
            _within(_ANSWER, self._client.cancel, list(self._futures))
        with contextlib.suppress(OSError):
            _within(_ANSWER, self._client.close, _ANSWER)
        self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            _end(self._cluster)

    def _replace_ended(self) -> None:
        """Batch jobs end, at the latest by their walltime, and dask-jobqueue submits no others unless told to."""
        if self._cluster is None:
            return
        now = time.monotonic()
        for (
            worker
        ) in self._cluster.observed:  # "SLURMCluster-0", or "SLURMCluster-0-1" where jobs have several processes
            job = worker if self._options.workers_per_job == 1 else worker.rpartition("-")[0]
            self._last_seen[job] = now
        for job in _refused(self._cluster):
            self._last_seen.setdefault(job, now)
        ended = [job for job, seen in self._last_seen.items() if now - seen > _REPLACE]
        if ended:
            for job in ended:
                del self._last_seen[job]
            self._cluster.sync(self._cluster.scale_down, ended)
            self._cluster.scale(jobs=self._options.jobs)


class _Watch:
    """Watches the workers from its own thread: if the scheduler hangs, signals must still be noticed.

    Attributes:
        threads: worker → how many it has, as last told.
    """

    def __init__(self, client: Any) -> None:
        self.threads: dict[str, int] = {}
        self._client = client
        self._answered = time.monotonic()  # when the scheduler last did
        self._heard: dict[str, tuple[object, float]] = {}  # worker → its last heartbeat, by whose clock, when we saw it
        self._said: set[str] = set()
        self._deaf: set[str] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._look_on, name="dask-watch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look_on(self) -> None:
        while not self._closed.wait(_REFRESH):
            with contextlib.suppress(Exception):  # the client is closed, or the scheduler gone: submit() says so
                self.look()

    def look(self) -> None:
        """Ask the scheduler; may take forever."""
        workers = self._client.sync(self._client.scheduler.identity)["workers"]
        now = time.monotonic()
        for worker, known in workers.items():
            if self._heard.get(worker, (None, 0.0))[0] != known["last_seen"]:
                self._heard[worker] = known["last_seen"], now
        self._heard = {worker: heard for worker, heard in self._heard.items() if worker in workers}
        self.threads = {worker: known["nthreads"] for worker, known in workers.items()}
        self._answered = now

    def answered(self, now: float) -> bool:
        """Whether the scheduler answers."""
        return now - self._answered < _SILENT

    def silent(self, seconds: float = _SILENT) -> dict[str, float]:
        """Workers that have been silent for this long, and since when."""
        if not self.answered(time.monotonic()):
            return {}
        return {worker: when for worker, (_, when) in self._heard.items() if self._answered - when > seconds}

    def news(self, trains: Callable[[str], bool]) -> list[str]:
        """Lines since the last call; a worker that stays silent is replaced, if it has a nanny."""
        lines, now = [], time.monotonic()
        silent = self.silent()
        if not self.answered(now):
            silent[_SCHEDULER] = self._answered
        for who, when in silent.items():
            if who not in self._said:
                lines.append(f"{who} has not been heard of since {_clock(when)}")
        back = (self._said - silent.keys()) & {*self.threads, _SCHEDULER}
        lines += [f"{who} is heard of again" for who in back]
        self._said = set(silent)
        for worker in self.silent(_DEAF).keys() - self._deaf:
            with contextlib.suppress(Exception):
                if trains(worker):
                    self._deaf.add(worker)
                    _begin(self._client.restart_workers, [worker], timeout=_DEAF, raise_for_error=False)
                    lines.append(f"{worker} is to be replaced by its nanny, and its job tried elsewhere")
        return lines


def _clock(when: float) -> str:
    """A time of the monotonic clock, as time of day."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() - (time.monotonic() - when)))


def _begin(call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Call it in a thread that the process does not wait for."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call(*arguments, **options))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def _within(seconds: float, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a call that may wait forever; TimeoutError, an OSError, if it takes too long."""
    return _begin(call, *arguments, **options).result(seconds)


async def _probe(address: str) -> None:
    """Check that a scheduler answers: a client would wait forever for another service that says nothing.

    Raises:
        Exception: no scheduler answers there.
    """
    comm = _load("distributed.comm")
    arguments = _load("distributed.security").Security().get_connection_args("client")
    try:
        answered = await asyncio.wait_for(comm.connect(address, timeout=_CONNECT, **arguments), 2 * _CONNECT)
    except TimeoutError:
        raise TimeoutError(f"what listens there does not answer as a scheduler within {2 * _CONNECT:g} s") from None
    answered.abort()


def _start_cluster(options: Options) -> Any:
    """A scheduler in this process, and the jobs of its workers submitted."""
    jobqueue = _load("dask_jobqueue")
    assert options.cluster
    kind = getattr(jobqueue, _CLUSTERS[options.cluster])
    submit = kind.job_cls.submit_command.split()[0]
    if shutil.which(submit) is None:
        raise InputError(
            "hydra.launcher.cluster", options.cluster, f"needs {submit}, which is not on PATH; is this a login node?"
        )
    account = "project" if options.cluster in ("sge", "lsf") else "account"
    given: Mapping[str, Any] = {"walltime": options.walltime, "queue": options.queue, account: options.account}
    blas = [f"export {library}_NUM_THREADS={options.threads}" for library in ("OPENBLAS", "MKL", "OMP")]
    cluster = None
    try:
        cluster = kind(
            cores=options.cores,
            processes=options.workers_per_job,
            memory=options.memory,
            job_name="mlp-sweeps",
            job_extra_directives=options.directives or [],
            job_script_prologue=[*blas, *(options.prologue or [])],
            worker_extra_args=["--nthreads", "1"],  # one run at a time, for any number of BLAS cores
            log_directory=os.path.abspath(options.logs),
            interface=options.interface,
            scheduler_options={"dashboard_address": ":0"},
            **{key: value for key, value in given.items() if value is not None},  # else dask-jobqueue's configuration
        )
        cluster.scale(jobs=options.jobs)
        cluster.sync(_submitted, cluster)
    except (OSError, RuntimeError, ValueError) as error:
        if cluster is not None:
            _end(cluster)
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        raise InputError("hydra.launcher.cluster", options.cluster, f"cannot start: {lines[-1]}") from None
    return cluster


async def _submitted(cluster: Any) -> None:
    """Wait until the jobs are in the queue; raises what the batch system says against one."""
    await cluster
    for job in list(cluster.workers.values()):
        await job  # the cluster hides errors; a job that was refused is tried once more here


def _refused(cluster: Any) -> list[str]:
    """Jobs that the batch system has not taken, marked so that the cluster agrees to close without them."""
    status = _load("distributed").Status
    refused = [name for name, job in cluster.workers.items() if job.job_id is None]
    for name in refused:
        cluster.workers[name].status = status.failed
    return refused


def _end(cluster: Any) -> None:
    """Cancel the jobs, end the scheduler."""
    _refused(cluster)
    cluster.close()


_alone = threading.Lock()  # BLAS threads and logs are a process's, so it trains one run even if it has more threads


def _run(job: Job, proof: tuple[str, str]) -> Result | Unfit:
    """On a worker. The job ends after its epoch if the task was cancelled, or the main process has died."""
    from distributed import Status, get_worker

    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]

    def unwanted() -> bool:
        return task.state == "cancelled" or worker.status in (Status.closing, Status.closed)

    with _alone:
        return execute_elsewhere(job, proof, unwanted, worker.address)
