"""Train a run, resuming from its checkpoint, so that it can be stopped and continued at any moment."""

import contextlib
import contextvars
import functools
import hashlib
import json
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from filelock import Timeout

from sweeps.runs import checkpoint, code, metrics, outcomes, provenance, state
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import Busy, DamagedRun, Diverged, InputError, Interrupted
from sweeps.runs.files import appending, read_json
from sweeps.runs.identity import flatten
from sweeps.runs.metrics import Row
from sweeps.runs.program import Program, RunSpec, plain
from sweeps.runs.program import program as as_program
from sweeps.runs.schema import integer
from sweeps.runs.state import check, encode
from sweeps.runs.status import Result, State, Status, now
from sweeps.runs.trackers import Tracking, Untracked, tracking

log = logging.getLogger(__name__)
_journal = logging.getLogger(f"{__name__}.journal")  # goes to the run's own log alone
_journal.propagate = False
_journal.setLevel(logging.INFO)

_current: contextvars.ContextVar["Run | None"] = contextvars.ContextVar("run", default=None)


def current_run() -> "Run | None":
    """The run that this thread trains, if it does."""
    return _current.get()


def run(
    function: Program | Callable[..., Any],
    config: Mapping[str, Any],
    *,
    out: str | Path = "outputs",
    on_epoch: Callable[[Row], None] | None = None,
    wait: bool = True,
) -> Result:
    """Train one configuration in this process: ``sweeps.run(train, {"lr": 0.1})``; see :func:`train`."""
    program = as_program(function)
    return train(program, program.spec(plain(config), out=out), on_epoch=on_epoch, wait=wait)


def train(
    program: Program,
    spec: RunSpec,
    *,
    on_epoch: Callable[[Row], None] | None = None,
    wait: bool = True,
) -> Result:
    """Train a run to ``spec.epochs`` epochs, resuming from its checkpoint, and return its result.

    Idempotent: a finished run is read, an interrupted one continues, and if another process trains the run, this call
    waits for it. SIGINT and SIGTERM (in the main thread) end it as "interrupted"; at most the current epoch is lost. A
    second SIGINT raises KeyboardInterrupt.

    Args:
        on_epoch: called after each epoch that is trained here, once its row is on disk. It may raise
            :class:`Interrupted` to end the run there.
        wait: for another process that trains this run; if False, raise :class:`Busy` instead.

    Raises:
        InputError: the configuration, its data or its output directory cannot be used.
        Pruned: there is more to train, and the checkpoint was removed.
        Exception: anything that stopped the training; the run is then marked "failed" and its log has the traceback.
    """
    run = spec.run
    with contextlib.suppress(DamagedRun):  # reported later, when it can go into the run's log
        finished = _finished(program, run, spec)
        if finished is not None:
            return finished
    try:
        with _Stop() as stop:  # from here on, a directory that exists is a run
            run.make()
            with _log_to(run, program), _locked(run, wait, stop):
                finished = _finished_and_whole(program, run, spec)  # by the lock's previous holder
                if finished is not None:
                    return finished
                checkpoint.refuse_pruned(run)
                return Run(program, spec, stop, on_epoch)._train()
    except Interrupted as why:  # while waiting for the lock: the run is another's
        return Result.of(run.path, State.INTERRUPTED, (), str(why), signal=why.signum)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        if not str(error.filename or spec.out).startswith(str(spec.out)):  # the training function's own
            raise
        if isinstance(error, PermissionError):
            said = f"cannot be written ({error.strerror}: {error.filename})"
        else:
            said = f"must be a directory ({error.filename} is not)"
        raise InputError("out", str(spec.out), said) from error


class Run:
    """A run as its training function sees it.

    Attributes:
        id: the name of its directory.
        path: the directory, for files of the function's own.
        identity: what decides its numbers, as it was planned.
        epoch: how many epochs are complete.
    """

    def __init__(
        self, program: Program, spec: RunSpec, stop: "_Stop", on_epoch: Callable[[Row], None] | None = None
    ) -> None:
        self._program, self._spec, self._stop, self._on_epoch = program, spec, stop, on_epoch
        self._dir = spec.run
        self._started = now()
        self._target = spec.epochs
        self._history: list[Row] = []
        self._names: list[str] = ["epoch"]
        self._row_names: tuple[str, ...] | None = None  # that an epoch of this session logs
        self._tree: Any = None  # of the checkpoint, until the function asks for it
        self._capture: Callable[[], Any] | None = None
        self._every = spec.checkpoint_every
        self._logged: list[dict[str, float]] = []  # in this epoch
        self._logged_steps: list[dict[str, float]] = []  # likewise
        self._logged_items: dict[str, outcomes.Array] = {}  # likewise
        self._keeps_steps = True
        self._in_epoch: int | None = None
        self._clock = time.perf_counter()
        self._facts: dict[str, Any] = {}
        self._recorded = False
        self._returned: Any = None
        self._tracking: Tracking | Untracked = Untracked()

    # -- for the training function ---------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._spec.run_id

    @property
    def path(self) -> Path:
        return self._dir.path

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._spec.identity

    @property
    def epoch(self) -> int:
        return len(self._history)

    def epochs(
        self, n: int | None = None, *, state: Any = None, rng: Sequence[str] = (), every: int | None = None
    ) -> Iterator[int]:
        """The epochs that are left, from the first that is not complete: ``for epoch in run.epochs(10, state=model):``.

        The state is restored when this is called, and saved after each epoch.

        Args:
            n: how many in all; the configuration's budget if there is one.
            state: what training needs to continue; see :mod:`sweeps.runs.state`.
            rng: global generators to be saved and restored too: ``"python"``, ``"numpy"``, ``"torch"``.
            every: epochs between checkpoints.

        Raises:
            InputError: the state cannot be saved, or is of another kind or shape than the checkpoint's.
        """
        with self._stop.held():
            self._target = integer(ge=1, le=10**9)("epochs", self._spec.epochs if n is None else n)
            self._every = self._every if every is None else integer(ge=1)("every", every)
            generators = (rng,) if isinstance(rng, str) else tuple(rng)
            capturing = functools.partial(_capture, state, generators)
            state_is_given = state is not None or bool(generators)
            if state_is_given:  # a part that cannot be saved or restored is an error now
                if state is not None:
                    check(state)
                encode(capturing())
            if self._tree is not None:
                if not state_is_given:
                    raise InputError("state", "None", "is missing: the run goes on from a checkpoint")
                _restore(state, generators, self._tree)
                self._tree = None
            self._capture = capturing if state_is_given else None
        return self._epochs()

    def _epochs(self) -> Iterator[int]:
        self._refuse_logged()
        if not self._recorded:
            self._record()
        for number in range(len(self._history) + 1, self._target + 1):
            self._stop.check()
            self._in_epoch, self._logged, self._logged_steps, self._logged_items = number, [], [], {}
            self._clock = time.perf_counter()
            yield number
            self._complete()

    def log(self, values: Mapping[str, Any] | None = None, /, **metrics_: Any) -> None:
        """Log metrics of this epoch. Repeated values are kept as steps, and the last one is the epoch's.

        Raises:
            InputError: a value is not a number, or a name is not one.
        """
        self._logged.append(metrics.checked({**(values or {}), **metrics_}))
        self._check_in_epoch()

    def log_step(self, values: Mapping[str, Any] | None = None, /, **metrics_: Any) -> None:
        """Metrics of a part of this epoch, such as a hundred batches: kept as steps, and no metrics of the epoch.

        Raises:
            InputError: a value is not a number, or a name is not one.
        """
        self._logged_steps.append(metrics.checked({**(values or {}), **metrics_}))
        self._check_in_epoch()

    def log_items(self, values: Mapping[str, Any] | None = None, /, **arrays: Any) -> None:
        """Log a value for each item of a test set in this epoch: ``run.log_items(correct=predicted == labels)``.

        Those of the last epoch are kept, saved with the checkpoint; booleans take a bit each.

        Raises:
            InputError: an array is not (items,) of booleans or numbers, or a name is none.
        """
        self._logged_items |= outcomes.checked({**(values or {}), **arrays})
        self._check_in_epoch()

    def _check_in_epoch(self) -> None:
        if self._recorded and self._in_epoch is None:
            self._refuse_logged()

    def _refuse_logged(self) -> None:
        logged: tuple[Mapping[str, Any], ...] = (*self._logged, *self._logged_steps, self._logged_items)
        names = ", ".join(dict.fromkeys(name for values in logged for name in values))
        if names:
            raise InputError("metric", names, "is logged outside of the epochs; log it within one")

    def check(self) -> None:
        """Raise :class:`Interrupted` if the run is to end; called often, it keeps a signal from coming in between."""
        self._stop.cooperates = True
        self._stop.check()

    def record(self, **facts: Any) -> None:
        """Add to what provenance.json says of this session."""
        self._facts |= facts

    # -- the session -----------------------------------------------------------------------------------------------

    def _train(self) -> Result:
        token = _current.set(self)
        try:
            self._begin()
            with self._stop.interrupting():
                value = self._program.call(self._spec.config, self)
            self._finish(value)
        except Interrupted as why:
            return self._end(State.INTERRUPTED, f"{why} in epoch {len(self._history) + 1}", signum=why.signum)
        except Diverged as why:
            return self._end(State.DIVERGED, str(why))
        except BaseException as error:
            _journal.info(
                "failed in epoch %d\n%s", len(self._history) + 1, traceback.format_exc()
            )  # the caller says it
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                self._write_status(State.FAILED, f"{type(error).__name__}: {error}")
            if isinstance(error, Exception):  # after a second Ctrl-C the user does not want to wait
                self._tracking.end(State.FAILED)
            raise
        finally:
            _current.reset(token)
        return self._end(State.FINISHED)

    def _begin(self) -> None:
        """Go on from the checkpoint, with metrics.csv cut back to it; without one, start from scratch."""
        run = self._dir
        steps = self._steps_so_far()  # by the status, which now is replaced
        if run.status.exists():  # it must not vouch for files that are about to be replaced
            self._write_status(State.RUNNING)
        self._history = checkpoint.restore(run, self._keep_tree)
        self._names = metrics.columns(self._history)
        run.clear_temporaries()
        run.write_config(self._spec.identity)
        run.write_metrics(self._history, self._names)
        self._keeps_steps = steps is not None or not self._history
        if self._keeps_steps and (run.steps.exists() or steps is None):
            run.write_steps([row for row in steps or () if row[0] <= len(self._history)])
        self._write_status(State.RUNNING)

    def _steps_so_far(self) -> list[tuple[int, int, str, float]] | None:
        """None if they are damaged: then those of the epochs that are left would pass for all."""
        status = None
        with contextlib.suppress(DamagedRun):  # which has been told
            status = self._dir.read_status()
        try:
            return self._dir.read_steps(status)
        except DamagedRun as damage:
            log.warning("%s; without its steps, which only training it from scratch brings back", damage)
            self._dir.give_up_steps()
            return None

    def _keep_tree(self, tree: Any) -> None:
        self._tree = tree

    def _record(self) -> None:
        """Before the first epoch of this session."""
        self._recorded = True
        with self._stop.held():
            session = (
                {"started": self._started, "from_epoch": len(self._history)}
                | self._facts
                | provenance.collect(code.folder_of(self._program))
            )
            sources = code.fingerprint(self._program)
            total = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
            session |= {"program": self._program.source, "source_sha256": total, "code": sources}
            self._dir.add_provenance(session)
            self._write_status(State.RUNNING)
            _journal.info("training from epoch %d to %d", len(self._history) + 1, self._target)
            name, options = self._spec.tracker
            self._tracking = tracking(name, self._spec.out, options)
            self._tracking.begin(self._spec.run_id, flatten(self._spec.identity), self._history)

    def _complete(self) -> None:
        """Close the current epoch: its steps, its row, the checkpoint, the status, and the tracker."""
        with self._stop.held():
            number = self._in_epoch
            assert number is not None
            row = Row(epoch=number)
            for values in self._logged:
                row.update(values)
            row.setdefault("seconds", time.perf_counter() - self._clock)
            self._check_names(row)
            self._in_epoch = None
            steps = self._steps(number)
            self._logged, self._logged_steps = [], []
            if steps and self._keeps_steps:
                self._dir.append_steps(steps)
            if set(row) <= set(self._names):
                self._dir.append_metrics(row, self._names)
            else:  # a name that no earlier epoch has: the status must not vouch for a table that is replaced
                self._dir.forget_metrics()
                self._write_status(State.RUNNING)
                self._names = metrics.columns([*self._history, row])
                self._dir.write_metrics([*self._history, row], self._names)
            is_last = number == self._target
            is_saved = number % self._every == 0 or is_last
            try:
                if is_saved and self._logged_items:  # first, so that a finished run has them
                    outcomes.save(self._dir, number, self._logged_items, durable=is_last)
                if is_saved and self._capture:
                    checkpoint.save(self._dir, self._capture(), [*self._history, row])
            except BaseException:  # the status must not vouch for a table that has this row
                self._dir.forget_metrics()
                raise
            self._logged_items = {}
            self._history.append(row)  # now it is complete
            if not is_last:
                self._write_status(State.RUNNING)
            self._tracking.epoch(row)
            if self._on_epoch:
                self._on_epoch(row)

    def _check_names(self, row: Row) -> None:
        names = tuple(row)
        if self._row_names is not None and set(names) != set(self._row_names):
            odd = ", ".join(sorted(set(names) ^ set(self._row_names)))
            raise InputError(
                "metric",
                odd,
                f"is logged in some epochs only, not in epoch {row.epoch} as in the one before; log all in each",
            )
        self._row_names = names

    def _steps(self, number: int) -> list[tuple[int, int, str, float]]:
        """The steps logged in this epoch, and the names that were logged more than once."""
        counts: dict[str, int] = {}
        for values in self._logged:
            for name in values:
                counts[name] = counts.get(name, 0) + 1
        often = ({name: value for name, value in values.items() if counts[name] > 1} for values in self._logged)
        seen: dict[str, int] = {}
        rows = []
        for values in (*self._logged_steps, *often):
            for name, value in values.items():
                seen[name] = seen.get(name, 0) + 1
                rows.append((number, seen[name], name, value))
        return rows

    def _finish(self, value: Any) -> None:
        """What is left when the function has returned: an epoch that it broke off at, or a run without epochs."""
        self._returned = in_json(value)
        if not self._recorded and self._history:
            raise InputError(
                "state", "None", "is missing: the run goes on from a checkpoint, and run.epochs is not called"
            )
        if not self._recorded:
            returned = result_of(value)
            self._record()
            self._target = self._in_epoch = 1
            if returned:
                self._logged.append(returned)
        last = self._history[-1] if self._history else Row()
        if self._in_epoch is not None and not self._logged and set(last) > {"epoch", "seconds"}:
            self._in_epoch = None  # stopped before it logged anything: it was not trained
        if self._in_epoch is not None:
            self._every = 1
            self._complete()

    def _write_status(self, state: State, error: str | None = None) -> None:
        program = self._program
        epoch = len(self._history)
        self._dir.write_status(
            Status.new(
                state, epoch=epoch, target=max(self._asked, epoch), started=self._started,
                error=error, program=program.source, metric=program.metric, maximize=program.maximize,
                own_target=program.budget is None, returned=self._returned,
            )
        )  # fmt: skip

    @property
    def _asked(self) -> int:
        """Epochs that this session was to come to."""
        return max(self._target, self._spec.epochs)

    def _end(self, state: State, error: str | None = None, *, signum: int | None = None) -> Result:
        self._write_status(state, error)
        _journal.info("%s after epoch %d%s", state, len(self._history), f": {error}" if error else "")
        self._tracking.end(state)
        return Result.of(
            self._dir.path, state, self._history[: self._asked], error, metric=self._program.metric,
            maximize=self._program.maximize, signal=signum, warning=self._tracking.error,
            returned=self._returned if len(self._history) <= self._asked else None,
        )  # fmt: skip


def result_of(value: Any) -> dict[str, float]:
    """What a function without epochs returned, as metrics: a number is ``result``, a mapping's numbers have names.

    Raises:
        InputError: a mapping holds something that is not a number, and that JSON cannot hold either.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        others = [name for name, item in value.items() if isinstance(item, (str, list, tuple, Mapping, NoneType))]
        kept = in_json(value) is not None
        return metrics.checked({str(name): item for name, item in value.items() if not (kept and name in others)})
    try:
        return {"result": metrics.number("result", value)}
    except InputError:
        if isinstance(value, (str, bytes, tuple, list)) or not hasattr(value, "__float__"):
            return {}
        raise


_LARGEST_RETURNED = 2**16  # characters of JSON


def in_json(value: Any) -> Any:
    """A value in JSON's types, NumPy's among them; None for what those cannot hold, or that is too large."""
    try:
        content = json.dumps(value, default=lambda item: item.tolist())
    except (TypeError, ValueError, AttributeError, RecursionError, RuntimeError):
        return None
    return json.loads(content) if len(content) <= _LARGEST_RETURNED else None


def _capture(state_: Any, rng: tuple[str, ...]) -> Any:
    tree = state.capture(state_) if state_ is not None else {}
    return {"state": tree, _GENERATORS: state.capture_generators(rng)} if rng else tree


def _restore(state_: Any, rng: tuple[str, ...], tree: Any) -> None:
    saved: Mapping[str, Any] = {}
    if isinstance(tree, Mapping) and set(tree) == {"state", _GENERATORS}:
        saved, tree = tree[_GENERATORS], tree["state"]
    if missing := [name for name in rng if name not in saved]:
        raise InputError("rng", ", ".join(missing), "is not in the checkpoint that the run goes on from")
    if state_ is not None:
        state.restore(state_, tree)
    elif not isinstance(tree, Mapping) or tree:
        raise InputError("state", "None", "is missing: the run goes on from a checkpoint that has more than generators")
    state.restore_generators(saved)


_GENERATORS = "global generators"
"""Beside the state in a checkpoint; no key that a state is likely to have."""


class _Stop:
    """SIGINT and SIGTERM while a run trains: noted if the function checks for them, raised otherwise."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.cooperates = False
        self._may_raise = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: object) -> None:
        if self.signum == signum == signal.SIGINT:  # pressed twice: do not wait
            raise KeyboardInterrupt
        self.signum = self.signum or signum
        if self._may_raise and not self.cooperates:
            raise Interrupted(self.signum)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """While the training function runs, a signal ends it at once, unless it checks for signals itself."""
        self.check()
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While files are written, a signal waits."""
        before, self._may_raise = self._may_raise, False
        try:
            yield
        finally:
            self._may_raise = before
        if before and not self.cooperates:
            self.check()

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)


def _finished(program: Program, run: RunDir, spec: RunSpec) -> Result | None:
    status = run.read_status()
    belongs_to(program, run, status)
    result = run.result(spec.epochs, status)
    if result is None:
        return None
    if lacking := program.lacks(spec):
        log.warning("%s", lacking)
    if program.metric is not None:
        result = Result.of(
            run.path, result.state, result.history, result.error, metric=program.metric, maximize=program.maximize,
            reused=True, returned=result.returned,
        )  # fmt: skip
    return result


def belongs_to(program: Program, run: RunDir, status: Status | None) -> None:
    """Raise InputError if the run is another function's, which has the same name."""
    if status is None or status.program is None:
        return
    theirs, ours = _place(status.program), _place(program.source)
    if theirs != ours and "__main__" not in (theirs[0], ours[0]):  # which is a notebook's, say
        raise InputError(
            "program",
            program.source,
            f"would share a run with {status.program}, {run.path}; give one of them a name=, or another out; "
            f"if it is the same function, moved: origin={status.program!r}",
        )


def _place(source: str) -> tuple[str, str]:
    """The module, without its packages (``python -m pkg.app`` is app), and the function."""
    module, _, name = source.rpartition(":")
    return module.rpartition(".")[2], name


def _finished_and_whole(program: Program, run: RunDir, spec: RunSpec) -> Result | None:
    try:
        return _finished(program, run, spec)
    except DamagedRun as damage:
        log.warning("%s; continuing from the checkpoint", damage)
        return None


class _RunLog(logging.FileHandler):
    def _open(self) -> Any:
        return appending(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk, say: it ends the run, which says so, and needs no traceback from the log."""


@contextlib.contextmanager
def _log_to(run: RunDir, program: Program) -> Iterator[None]:
    """Log messages of this package and the program go to the run's train.log as well."""
    handler = _RunLog(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    own = program.function.__module__.partition(".")[0]
    loggers = [
        _journal,
        *(logging.getLogger(name) for name in ("sweeps.runs", own) if name not in ("__main__", "sweeps")),
    ]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


@contextlib.contextmanager
def _locked(run: RunDir, wait: bool, stop: _Stop) -> Iterator[None]:
    """Hold the run's lock; while another process does, say so and wait, or raise :class:`Busy`."""
    lock = run.lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise Busy(run.path.name) from None
        status = None
        with contextlib.suppress(DamagedRun):
            status = run.read_status()
        log.warning("waiting for pid %s on %s, which trains this run", *((status.pid, status.host) if status else "??"))
        while not lock.is_locked:
            stop.check()
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0.5, poll_interval=0.1)
    try:
        yield
    finally:
        lock.release()


def recorded_code(run: RunDir) -> Mapping[str, str] | None:
    """Module → SHA-256 as of the session that last trained the run; None where that is not recorded."""
    try:
        found = read_json(run.provenance)["sessions"][-1].get("code")
        return found if isinstance(found, dict) else None
    except (OSError, DamagedRun, TypeError, LookupError, AttributeError):
        return None
