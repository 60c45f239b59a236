"""Experiment trackers, by name in :data:`TRACKERS`: they record a run, and cannot affect it.

A tracker is built as ``build(out, clock, **options)`` and imports its library only then. It finds a run that it has
seen before by the run's id, and leaves out the epochs that it has already: a run that continues continues its record.

:class:`Tracking` is how a training run calls one: on a separate thread, where an error or a hanging server costs the
record and nothing else.
"""

import importlib.util
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from sweeps.runs import extras
from sweeps.runs.errors import InputError
from sweeps.runs.files import folder, inside, listed, lock, refuse, refuse_database
from sweeps.runs.metrics import Row
from sweeps.runs.schema import Entry, entry, fields, one_of, optional, text
from sweeps.runs.status import State

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Seconds since 1970: now, or when an old run was last updated."""


class Tracker(Protocol):
    """A tracker's calls; each may take long and raise anything."""

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None:
        """A session begins, with the epochs that are done already. ``params``: the run's identity, flat."""

    def epoch(self, row: Row) -> None:
        """One more is done."""

    def end(self, state: State) -> None:
        """The session is over; everything must be out when this returns."""


class Untracked:
    """No-op tracker."""

    error = None

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None: ...

    def epoch(self, row: Row) -> None: ...

    def end(self, state: State) -> None: ...


class MLflow:
    """A run of an MLflow experiment, found again by its tag ``mlp.run_id``."""

    _TAG = "mlp.run_id"
    _STATUS: Mapping[State, str] = {State.FINISHED: "FINISHED", State.INTERRUPTED: "KILLED"}  # FAILED otherwise
    _ENVIRONMENT: Mapping[str, str] = {  # unless the user's says otherwise; by default MLflow keeps trying for minutes,
        "HTTP_REQUEST_TIMEOUT": "10",
        "HTTP_REQUEST_MAX_RETRIES": "1",
        "DISABLE_TELEMETRY": "true",  # sends telemetry,
        "SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # prints two lines when a run ends
    }
    _ROWS = 100  # of metrics in one request, which may hold 1000 values

    def __init__(self, out: Path, clock: Clock, *, uri: str | None, experiment: str) -> None:
        for key, value in self._ENVIRONMENT.items():
            os.environ.setdefault(f"MLFLOW_{key}", value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        for library, level in (("mlflow", logging.WARNING), ("urllib3", logging.ERROR)):  # they tell of each table, try
            logging.getLogger(library).setLevel(level)
        self._clock, self._metric, self._param = clock, Metric, Param
        own = f"sqlite:///{out.resolve()}/mlflow.db"
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        artifacts = (out.resolve() / "mlartifacts").as_uri() if uri == own else None
        is_file = uri.startswith("sqlite:")
        if uri == own:
            refuse_database(out / "mlflow.db")
            inside(out, "mlartifacts")
        with lock(out / ".mlflow.lock") if is_file else nullcontext():  # else all workers would make its tables
            self._client = MlflowClient(uri)
            self._experiment = self._experiment_id(experiment, artifacts)
        self._run = ""
        self._logged: set[int] = set()

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except Exception:  # another worker was faster; MLflow's error has no specific type
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None:
        client, times = self._client, _times(history, self._clock())
        known = client.search_runs([self._experiment], f"tags.`{self._TAG}` = '{run_id}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            for name in list(known[0].data.metrics)[:1]:
                self._logged = {point.step for point in client.get_metric_history(self._run, name)}
        else:
            start = times[0] - history[0].total_seconds if history else self._clock()
            run = client.create_run(
                self._experiment, start_time=int(1000 * start), run_name=run_id, tags={self._TAG: run_id}
            )
            self._run = run.info.run_id
        client.log_batch(self._run, params=[self._param(key, str(value)) for key, value in params.items()])
        rows = [pair for pair in zip(history, times, strict=True) if pair[0].epoch not in self._logged]
        for start_row in range(0, len(rows), self._ROWS):
            self._log(rows[start_row : start_row + self._ROWS])

    def epoch(self, row: Row) -> None:
        if row.epoch not in self._logged:
            self._log([(row, self._clock())])

    def end(self, state: State) -> None:
        self._client.set_tag(self._run, "mlp.state", state)
        self._client.set_terminated(self._run, self._STATUS.get(state, "FAILED"), int(1000 * self._clock()))

    def _log(self, rows: Iterable[tuple[Row, float]]) -> None:
        values = [
            self._metric(name, value, int(1000 * when), row.epoch)
            for row, when in rows
            for name, value in row.metrics.items()
        ]
        self._client.log_batch(self._run, metrics=values)


class TensorBoard:
    """Event files in ``dir``/<run_id>: a scalar for each metric, and the configuration for the HParams tab.

    Each session writes a new file, since a killed one may have left its last record torn.
    """

    def __init__(self, out: Path, clock: Clock, *, dir: str | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._clock, self._event, self._summary = clock, Event, Summary
        self._root = Path(dir) if dir else inside(out, "tensorboard")
        self._writer: Any = None
        self._folder = self._root
        self._logged: set[int] = set()
        self._state: bytes | None = None
        self._last = 0

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import summary_v2

        self._folder = self._root / run_id
        times = _times(history, self._clock())
        if self._folder.exists():
            refuse(*(Path(entry.path) for entry in listed(self._root, run_id)))
            known = EventAccumulator(str(self._folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
            for name in known.Tags()["scalars"][:1]:
                self._logged = {point.step for point in known.Scalars(name)}
            if "state" in known.Tags()["tensors"]:
                self._state = known.Tensors("state")[-1].tensor_proto.string_val[0]
        else:
            plain = {key: value if isinstance(value, int | float) else str(value) for key, value in params.items()}
            self._write(summary_v2.hparams_pb(plain, run_id, self._clock()), 0, self._clock())
        for row, when in zip(history, times, strict=True):
            self._row(row, when)

    def epoch(self, row: Row) -> None:
        self._row(row, self._clock())

    def end(self, state: State) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        if self._state != state.encode() or self._writer:
            value = self._summary.Value(
                tag="state", tensor=make_tensor_proto([state.encode()]), metadata=create_summary_metadata("state", "")
            )
            self._write(self._summary(value=[value]), self._last, self._clock())
        if self._writer:
            self._writer.close()

    def _row(self, row: Row, when: float) -> None:
        self._last = row.epoch
        if row.epoch not in self._logged:
            values = [self._summary.Value(tag=name, simple_value=value) for name, value in row.metrics.items()]
            self._write(self._summary(value=values), row.epoch, when)

    def _write(self, summary: Any, step: int, when: float) -> None:
        if self._writer is None:  # a session without news leaves no file
            self._writer = self._open()
            self._writer.write(self._event(wall_time=when, file_version="brain.Event:2").SerializeToString())
        self._writer.write(self._event(wall_time=when, step=step, summary=summary).SerializeToString())
        self._writer.flush()

    def _open(self) -> Any:
        """A new event file, written record by record; TensorBoard's own writer loses its errors in a thread."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder(self._root, self._folder.name)
        second, part = divmod(time.time_ns(), 10**9)  # files are read in the order of their names
        name = f"events.out.tfevents.{second}.{part:09}.{socket.gethostname()}.{os.getpid()}"
        return RecordWriter(open(self._folder / name, "xb"))


class WandB:
    """A Weights & Biases run whose id is the run's.

    Online, a session continues where the server's record ends. Offline nothing can be read back: each session leaves a
    directory that holds the run from its first epoch on.
    """

    def __init__(self, out: Path, clock: Clock, *, project: str, mode: str, dir: str | None) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else even offline it reports its errors to its makers
        import wandb

        self._wandb: Any = wandb
        self._where = {"project": project, "dir": str(Path(dir) if dir else inside(out, "wandb").parent)}
        quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_stats": True}
        self._settings = wandb.Settings(mode=mode, init_timeout=10, **quiet)
        self._run: Any = None

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None:
        Path(self._where["dir"]).mkdir(parents=True, exist_ok=True)  # else wandb takes the system's temporary directory
        self._run = self._wandb.init(
            id=run_id, name=run_id, resume="allow", config=dict(params), settings=self._settings, **self._where
        )
        for row in history:
            self.epoch(row)

    def epoch(self, row: Row) -> None:
        if row.epoch >= self._run.starting_step:
            self._run.log(row.metrics, step=row.epoch)

    def end(self, state: State) -> None:
        self._run.summary["state"] = state
        self._run.finish(exit_code=0 if state in ("finished", "diverged") else 1)


TRACKERS: dict[str, Entry[Tracker]] = {
    "none": entry(lambda out, clock: Untracked()),
    "mlflow": entry(MLflow, uri=optional(text()), experiment=text()),
    "tensorboard": entry(TensorBoard, dir=optional(text())),
    "wandb": entry(WandB, project=text(), mode=one_of("offline", "online"), dir=optional(text())),
}


_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "mlflow": {"uri": None, "experiment": "sweeps"},
    "tensorboard": {"dir": None},
    "wandb": {"project": "sweeps", "mode": "offline", "dir": None},
}


def choice(value: object) -> tuple[str, Mapping[str, Any]]:
    """A tracker's name and options from ``"mlflow"`` or ``{"name": "mlflow", "uri": …}``; the rest by default.

    Raises:
        InputError: no such tracker or option, or it is not installed.
    """
    given = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = one_of(*TRACKERS)("tracker", given.pop("name", None))
    options = fields(TRACKERS[name].options, "tracker.", {**_DEFAULTS[name], **given})
    require(name)
    return name, options


def require(name: str) -> None:
    """Look for the tracker's package, without importing it: each comes in the extra of its name.

    Raises:
        InputError: it is not installed.
    """
    if name != "none":
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a directory of that name, as wandb makes one, is not a package
            raise InputError("tracker", name, f"is not installed; {extras.install(name)}")


_HEAD_START = 5.0  # seconds that training waits for it to start
_PATIENCE = 10.0  # seconds that the end of a session waits for one that does not answer
_TICK = 0.1


class Tracking:
    """A tracker on its own thread: its first error, or silence, is one warning, and then it is not used any more."""

    def __init__(self, name: str, build: Callable[[], Tracker]) -> None:
        self.error: str | None = None
        """The warning, if there was one."""
        self._name, self._build = name, build
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_begun, self._is_done = threading.Event(), threading.Event()
        self._answers = 0
        try:
            threading.Thread(target=self._work, name=f"tracker {name}", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._has_begun.set()
            self._is_done.set()
            self._give_up(str(error))

    def begin(self, run_id: str, params: Mapping[str, Any], history: Sequence[Row]) -> None:
        rows = tuple(history)  # the caller's list grows
        self._calls.put(lambda tracker: tracker.begin(run_id, params, rows))
        self._calls.put(lambda tracker: self._has_begun.set())
        self._has_begun.wait(_HEAD_START)  # importing a library beside the first epoch would show in its seconds

    def epoch(self, row: Row) -> None:
        self._calls.put(lambda tracker: tracker.epoch(row))

    def end(self, state: State) -> None:
        """Wait for the remaining calls, while the tracker makes progress."""
        self._calls.put(lambda tracker: tracker.end(state))
        self._calls.put(None)
        answers, quiet = self._answers, 0.0  # seconds, counted here: a process that was stopped has not waited
        while not self._is_done.wait(_TICK):
            quiet = quiet + _TICK if self._answers == answers else 0.0
            answers = self._answers
            if quiet > _PATIENCE:
                self._give_up(f"no answer for {_PATIENCE:g} s")
                break

    def _work(self) -> None:
        try:
            tracker = self._build()
            while (call := self._calls.get()) is not None:
                call(tracker)
                self._answers += 1
        except BaseException as error:  # anything, even sys.exit
            reason = str(error).strip().splitlines()[:1]
            self._give_up(": ".join([type(error).__name__, *reason]))
        finally:
            self._has_begun.set()
            self._is_done.set()

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self.error is None:
                reason = reason if len(reason) <= 200 else reason[:199] + "…"
                self.error = f"tracker {self._name}: {reason}; the run goes on without it"
                log.warning("%s", self.error)


def tracking(name: str, out: Path, options: Mapping[str, Any]) -> Tracking | Untracked:
    """The interface for a training run; from here on no tracker can raise."""
    if name == "none":
        return Untracked()
    return Tracking(name, partial(TRACKERS[name].build, out, time.time, **options))


def _times(history: Sequence[Row], end: float) -> list[float]:
    """When each epoch was over, if the last was at ``end``; sessions that were apart are moved together."""
    seconds = [row.total_seconds for row in history]
    return [end - left for left in list(accumulate(reversed(seconds), initial=0.0))[-2::-1]]
