"""One process's turn at a run: finish what is missing, so that it can be stopped and continued at any moment."""

import contextlib
import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from filelock import Timeout
from threadpoolctl import threadpool_limits

from mlp import checkpoint, provenance
from mlp.config import RunConfig, flatten
from mlp.data import load
from mlp.files import DamagedRun
from mlp.probe import Probe
from mlp.runs import Epoch, Result, RunDir, State, new_status, now
from mlp.schema import InputError
from mlp.team import cores
from mlp.trackers import Tracking, Untracked, tracking
from mlp.trainer import Diverged, Trainer

log = logging.getLogger(__name__)


def train(
    config: RunConfig | Mapping[str, Any],
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    wait: bool = True,
) -> Result:
    """Bring a run to ``config.epochs`` epochs and return what it has come to.

    Idempotent: what is finished is read, what was interrupted goes on from its checkpoint, and a run that another
    process trains at this moment is waited for. SIGINT and SIGTERM (in the main thread) end it as "interrupted"
    after the current batch; only the epoch in flight is lost. A second SIGINT raises KeyboardInterrupt.

    Args:
        config: checked, or a nested mapping as conf/ composes it.
        on_epoch: called after each epoch that is trained here, once its row is on disk. It may raise
            :class:`Interrupted` to end the run there.
        wait: for another process that trains this run; if False, raise :class:`Busy` instead.

    Raises:
        InputError: the configuration, its data or its output directory cannot be used; nothing was written.
        Exception: whatever stopped the training; the run is then marked "failed" and its log has the traceback.
    """
    if not isinstance(config, RunConfig):
        config = RunConfig.from_mapping(config)
    run = RunDir.of(config.out, config.run_id)
    with contextlib.suppress(DamagedRun):  # which is told once it can go into the run's log
        finished = _finished(run, config)
        if finished is not None:
            return finished
    dataset = load(config.data.name, config.data.options)
    try:
        with _Stop() as stop:  # from here on: a directory that is begun is left as a run
            run.make()
            with _log_to(run), _locked(run, wait, stop):
                finished = _finished_and_whole(run, config)  # by whoever held the lock before
                if finished is not None:
                    return finished
                with (
                    threadpool_limits(1, user_api="blas"),  # the trainer's processes have the cores
                    contextlib.closing(Trainer(config, dataset, config.threads or cores())) as trainer,
                ):
                    probe = Probe(config, dataset) if config.stats else None
                    return _Session(config, run, trainer, probe, stop).run(on_epoch)
    except Interrupted as why:  # while waiting for the lock: the run is another's
        return Result(run.path.name, run.path, "interrupted", (), str(why), signal=why.signum)
    except PermissionError as error:
        raise InputError("out", str(config.out), f"cannot be written ({error.strerror}: {error.filename})") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise InputError("out", str(config.out), f"must be a directory ({error.filename} is not)") from error


class Busy(Exception):
    """Another process trains this run at the moment."""


class Interrupted(Exception):
    """A signal, or whoever watches the epochs, asked the training to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"by {signal.Signals(signum).name}")
        self.signum = signum


class _Stop:
    """Turns SIGINT and SIGTERM into a flag that the loop looks at after each batch."""

    def __init__(self) -> None:
        self.signum: int | None = None
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
        if self.signum == signum == signal.SIGINT:  # pressed twice: whoever it is does not want to wait
            raise KeyboardInterrupt
        self.signum = self.signum or signum

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)


class _Session:
    """One process's turn at a run, under its lock."""

    def __init__(self, config: RunConfig, run: RunDir, trainer: Trainer, probe: Probe | None, stop: _Stop) -> None:
        self._config, self._run, self._trainer, self._probe, self._stop = config, run, trainer, probe, stop
        self._started = now()
        self._history: list[Epoch] = []
        self._tracking: Tracking | Untracked = Untracked()

    def run(self, on_epoch: Callable[[Epoch], None] | None) -> Result:
        try:
            self._resume()
            self._train(on_epoch)
        except Interrupted as why:
            return self._end("interrupted", f"{why} in epoch {len(self._history) + 1}", signum=why.signum)
        except Diverged as why:
            return self._end("diverged", str(why))
        except BaseException as error:
            log.info("failed in epoch %d\n%s", len(self._history) + 1, traceback.format_exc())  # the caller says it
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                self._write_status("failed", f"{type(error).__name__}: {error}")
            if isinstance(error, Exception):  # after a second Ctrl-C nobody waits
                self._tracking.end("failed")
            raise
        return self._end("finished")

    def _resume(self) -> None:
        """Go on from the checkpoint, with metrics.csv cut back to it; without one, begin."""
        if self._run.status.exists():  # it must not vouch for files that are about to be replaced
            self._write_status("running")
        self._history = checkpoint.restore(self._run, self._trainer.network, self._trainer.optimizer)
        self._run.clear_temporaries()
        self._run.write_config(self._config.identity)
        self._run.write_metrics(self._history)
        if self._probe:
            self._resume_stats(self._probe)
        session = {"started": self._started, "from_epoch": len(self._history), "threads": self._trainer.members}
        session |= provenance.collect()
        self._run.add_provenance(session)
        self._write_status("running")
        log.info("training from epoch %d to %d", len(self._history) + 1, self._config.epochs)
        config = self._config
        self._tracking = tracking(config.tracker.name, config.out, config.tracker.options)
        self._tracking.begin(config.run_id, flatten(config.identity), self._history)

    def _resume_stats(self, probe: Probe) -> None:
        """stats.csv is cut back like metrics.csv, and has the weights from which training goes on."""
        done = len(self._history)
        try:
            rows = [row for row in self._run.read_stats() if row.epoch <= done]
        except DamagedRun as damage:
            log.warning("%s; beginning it anew", damage)
            rows = []
        if not rows or rows[-1].epoch < done:
            rows += probe.measure(self._trainer.network.theta, done)
        self._run.write_stats(rows)
        missing = done + 1 - len({row.epoch for row in rows})
        if missing:
            log.warning("stats.csv lacks %d of the epochs up to %d: they were trained without stats", missing, done)

    def _train(self, on_epoch: Callable[[Epoch], None] | None) -> None:
        last = self._config.epochs
        for number in range(len(self._history) + 1, last + 1):
            row = self._trainer.epoch(number, self._stop.check)
            if self._probe:  # first, so that a finished run has its stats
                self._run.append_stats(self._probe.measure(self._trainer.network.theta, number))
            self._run.append_metrics(row)
            if number % self._config.checkpoint_every == 0 or number == last:
                self._save_checkpoint([*self._history, row])
            self._history.append(row)  # now it is complete
            if number < last:
                self._write_status("running")
            self._tracking.epoch(row)
            if on_epoch:
                on_epoch(row)

    def _save_checkpoint(self, history: list[Epoch]) -> None:
        checkpoint.save(self._run, self._trainer.network, self._trainer.optimizer, history)

    def _write_status(self, state: State, error: str | None = None) -> None:
        epoch = len(self._history)
        self._run.write_status(
            new_status(state, epoch=epoch, target=self._config.epochs, started=self._started, error=error)
        )

    def _end(self, state: State, error: str | None = None, *, signum: int | None = None) -> Result:
        self._write_status(state, error)
        log.info("%s after epoch %d%s", state, len(self._history), f": {error}" if error else "")
        self._tracking.end(state)
        return Result(
            self._run.path.name,
            self._run.path,
            state,
            tuple(self._history),
            error,
            signal=signum,
            warning=self._tracking.error,
        )


def _finished(run: RunDir, config: RunConfig) -> Result | None:
    result = run.result(config.epochs)
    if result and config.stats and not run.stats.exists():
        log.warning("finished, and not trained again: it gets no stats.csv; with another out=DIR it would")
    return result


def _finished_and_whole(run: RunDir, config: RunConfig) -> Result | None:
    try:
        return _finished(run, config)
    except DamagedRun as damage:
        log.warning("%s; going on from the checkpoint", damage)
        return None


class _RunLog(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk, say: it ends the run, which says so, and needs no traceback from the log."""


@contextlib.contextmanager
def _log_to(run: RunDir) -> Iterator[None]:
    """Whatever this package logs goes to the run's own train.log as well."""
    package = logging.getLogger("mlp")
    handler = _RunLog(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.setLevel(level)
        package.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


@contextlib.contextmanager
def _locked(run: RunDir, wait: bool, stop: _Stop) -> Iterator[None]:
    """Hold the run's lock; while somebody else does, say so and wait, or raise :class:`Busy`."""
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
