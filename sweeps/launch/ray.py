"""The Ray executor: plain tasks on a running cluster."""

import contextlib
import importlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sweeps.launch.job import Job, Unfit, check_workers, execute_elsewhere, report_worker, token_file
from sweeps.runs import extras
from sweeps.runs.errors import InputError
from sweeps.runs.schema import fields, integer, number, optional, text
from sweeps.runs.status import Result, State

_CONNECT = 10  # seconds for a head to answer
_REFRESH = 1.0  # seconds that a count of the nodes is good for

_OPTIONS = {
    "address": text(),
    "wait": number(gt=0),
    "threads": integer(ge=1, le=1024),
    "num_cpus": number(gt=0),
    "memory": optional(integer(ge=1)),
}


@dataclass(frozen=True)
class Options:
    """See conf/hydra/launcher/ray.yaml."""

    address: str
    wait: float
    threads: int
    num_cpus: float
    memory: int | None

    @classmethod
    def of(cls, **values: object) -> "Options":
        """Check the launcher's options.

        Raises:
            InputError: names the option.
        """
        return cls(**fields(_OPTIONS, "hydra.launcher.", values))


class Ray:
    """Tasks on the nodes of a Ray cluster, which may come and go."""

    def __init__(self, options: Options) -> None:
        # Ray's own output would disturb the display, so it is switched off where possible; an error becomes a result.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a FutureWarning
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # else a dead node's log, log_to_driver or not
        self._ray = extras.load("ray", extra="ray", field="hydra/launcher", value="ray")
        self._options = options
        self._connect()
        self._errors = self._ray.exceptions
        # max_retries=0: the sweep retries, shows and counts.
        self._task = self._ray.remote(
            num_cpus=options.num_cpus, memory=options.memory, max_retries=0, scheduling_strategy="SPREAD"
        )(execute_elsewhere)
        self._refs: dict[Future[Result], Any] = {}
        self._kept = contextlib.ExitStack()  # the file that nodes which join later must see, too
        self._proof = ("", "")
        self._slots, self._counted = 1, 0.0

    def _connect(self) -> None:
        address = self._options.address
        with _overheard() as said:
            try:
                if address == "auto":
                    services = importlib.import_module("ray._private.services")
                    address = services.canonicalize_bootstrap_address(address)
                _probe(address or "")
                self._ray.init(
                    address=self._options.address,
                    logging_level=logging.CRITICAL,
                    log_to_driver=False,
                    namespace="mlp-sweeps",
                )
            except Exception as error:  # of many kinds: ConnectionError, ValueError, RuntimeError, AuthenticationError
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                said.seek(0)
                if b"InvalidAuthToken" in said.read():
                    reason = "it needs a token, or another one; see RAY_AUTH_MODE in docs/clusters.md"
                raise InputError(
                    "hydra.launcher.address", self._options.address, f"no Ray cluster there: {reason}"
                ) from None

    def _fitting_nodes(self) -> list[Any]:
        """Nodes that can run a job, as far as their CPUs go."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return [node for node in nodes if node["Resources"].get("CPU", 0) >= self._options.num_cpus]

    @property
    def slots(self) -> int:
        if time.monotonic() - self._counted > _REFRESH:
            cpus = (node["Resources"]["CPU"] for node in self._fitting_nodes())
            self._slots = max(1, sum(int(count // self._options.num_cpus) for count in cpus))
            self._counted = time.monotonic()
        return self._slots

    def describe(self) -> str:
        return f"{self.slots} slots of {len(self._fitting_nodes())} Ray nodes"

    def check(self, out: Path) -> None:
        deadline = time.monotonic() + self._options.wait
        if not self._fitting_nodes():
            print(
                f"waiting for a node with {self._options.num_cpus:g} CPUs, up to {self._options.wait:g} s", flush=True
            )
        while not self._fitting_nodes():
            if time.monotonic() > deadline:
                raise InputError(
                    "hydra.launcher.num_cpus", f"{self._options.num_cpus:g}", "no node of the cluster has this many"
                )
            time.sleep(0.5)
        path, token = self._kept.enter_context(token_file(out))
        self._proof = str(path), token
        answers = [self._on(node, str(path)) for node in self._fitting_nodes()]
        try:
            workers = self._ray.get(answers, timeout=self._options.wait)
        except self._errors.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise InputError("hydra/launcher", "ray", f"a node cannot run the mlp-sweeps package ({last})") from None
        check_workers(out, token, workers)
        print(f"on {self.describe()}", flush=True)

    def _on(self, node: Any, path: str) -> Any:
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=affinity)(report_worker).remote(path)

    def submit(self, job: Job) -> Future[Result]:
        ref = self._task.remote(job, self._proof)
        outer: Future[Result] = Future()
        self._refs[outer] = ref
        ref.future().add_done_callback(lambda done: self._deliver(job, done, outer))
        return outer

    def _deliver(self, job: Job, done: Future[Any], outer: Future[Result]) -> None:
        del self._refs[outer]
        errors = self._errors
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)
        try:
            answer = done.result()
            if isinstance(answer, Unfit):
                answer = Result(job.run_id, job.run.path, State.LOST, error=answer.reason)
            outer.set_result(answer)
        except errors.TaskCancelledError:
            outer.set_result(Result(job.run_id, job.run.path, State.INTERRUPTED, error="called back"))
        except (*lost, errors.RaySystemError, errors.LocalRayletDiedError) as error:
            outer.set_result(
                Result(job.run_id, job.run.path, State.LOST, error=f"worker lost ({type(error).__name__})")
            )
        except Exception as error:
            outer.set_exception(error)

    def news(self) -> list[str]:
        """Nothing: a node's death is reported as its jobs'."""
        return []

    def interrupt(self) -> None:
        """Cancel what has not begun; running jobs get a SIGINT."""
        for ref in list(self._refs.values()):
            with contextlib.suppress(self._errors.RayError, ValueError):
                self._ray.cancel(ref, force=False)

    def close(self) -> None:
        """Leave the cluster; Ray ends our running jobs."""
        self._kept.close()
        self._ray.shutdown()


@contextlib.contextmanager
def _overheard() -> Iterator[IO[bytes]]:
    """What Ray's core (not Python) writes to stderr meanwhile; an error's reason may be only there."""
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113: no settings
_SETTINGS = 4  # the type, byte 3, of the frame that a server begins with


def _probe(address: str) -> None:
    """Check that a server speaks gRPC, as Ray does; Ray itself takes minutes or forever to find that none does.

    Raises:
        OSError: it does not.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # Ray will say what is wrong with it
    with socket.create_connection((host, int(port)), timeout=_CONNECT) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        try:
            connection.sendall(_PREFACE)
            frame = connection.recv(9, socket.MSG_WAITALL)
        except TimeoutError:
            frame = b""
        if len(frame) < 9 or frame[3] != _SETTINGS:
            raise ConnectionError("what listens there does not speak gRPC")
