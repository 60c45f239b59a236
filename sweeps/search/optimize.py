"""Optuna's samplers as a strategy; the study is a SQLite file, which is all that a killed search needs to continue."""

import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from sweeps.runs import extras
from sweeps.runs.errors import InputError
from sweeps.runs.files import refuse_database
from sweeps.search.objective import Objective
from sweeps.search.record import Trial, TrialState
from sweeps.search.source import Request, TrialResult
from sweeps.search.space import Axis, Choice, Params, Space

SAMPLERS = ("tpe", "cmaes", "random", "grid")
_STUDY = "search"  # its name within its file
_HOSTILE = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What Optuna can raise on values that it would not have written."""

_load = partial(extras.load, extra="search", field="hydra/sweeper", value="optuna")


@final
class Optimizer:
    """A :class:`sweeps.search.source.Strategy`: asks a study's sampler, and tells it the results.

    ``total`` trials are to finish or diverge, including those of earlier sessions. Trials that a session left open are
    repeated first; so are, once in each session, trials that failed.

    Args:
        path: of the study's file, created if needed.
        sampler: one of ``SAMPLERS``.
        seed: of the sampler; the k-th trial draws from [seed, k], so that a continued search draws as an unbroken one.
        startup: trials at random before TPE has a model.

    Raises:
        InputError: Optuna is missing, or cannot read the file, or not search such a space.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        objectives: Sequence[Objective],
        *,
        sampler: str,
        seed: int,
        startup: int,
        total: int,
    ) -> None:
        self._optuna = _load("optuna")
        self._space, self._sampler, self._seed, self._startup = space, sampler, seed, startup
        check(sampler, objectives)
        self._grid = space.grid() if sampler == "grid" else iter(())
        self._total = min(total, space.size or total) if sampler == "grid" else total
        self._distributions = {axis.key: self._distribution(axis) for axis in space.axes}
        self._states = self._optuna.trial.TrialState
        refuse_database(path)
        with self._quiet(path):
            self._storage = self._optuna.storages.RDBStorage(_url(path))
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=_STUDY,
                directions=[objective.direction for objective in objectives],
                load_if_exists=True,
            )
            self._again = deque(self._in_flight())
            self._retry_failed()
        self._path = path
        self._seen = {self._point(trial.system_attrs.get("fixed_params", trial.params)) for trial in self._begun()}
        self._open: set[int] = set()
        self._failed = 0

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    def _begun(self) -> list[Any]:
        """Without those that were killed while they were drawn."""
        failed = self._states.FAIL
        return [trial for trial in self._trials() if trial.state != failed or trial.user_attrs.get("runs")]

    def _in_flight(self) -> Iterator[Request]:
        for trial in self._trials():
            if trial.state == self._states.RUNNING:
                if trial.params.keys() == self._distributions.keys():
                    yield Request(trial.number, dict(trial.params))
                else:  # killed while it was drawn: it was never started
                    self._study.tell(trial.number, state=self._states.FAIL)

    def _retry_failed(self) -> None:
        """A trial that failed gets a successor of the same parameters, which is asked for first."""
        trials = self._begun()
        followed = {trial.user_attrs.get("retries") for trial in trials}
        for trial in trials:
            if trial.state == self._states.FAIL and trial.number not in followed:
                self._study.enqueue_trial(trial.params, user_attrs={"retries": trial.number})

    @property
    def done(self) -> int:
        """Trials that finished or diverged."""
        return sum(trial.state in (self._states.COMPLETE, self._states.PRUNED) for trial in self._trials())

    @property
    def remaining(self) -> int:
        return max(0, self._total - self.done - len(self._open) - self._failed)

    def ask(self) -> Request | None:
        if self.remaining == 0:
            return None
        if self._again:
            request = self._again.popleft()
        else:
            with self._quiet(self._path):
                trials = self._trials()
                if not any(trial.state == self._states.WAITING for trial in trials) and not self._enqueue_next():
                    return None
                self._study.sampler = self._new_sampler(len(self._begun()))
                trial = self._study.ask(self._distributions)
                request = Request(trial.number, dict(trial.params))
        self._open.add(request.number)
        return request

    def _enqueue_next(self) -> bool:
        """With the sampler ``grid``, the grid's next point; False if there is none."""
        if self._sampler != "grid":
            return True
        for params in self._grid:
            if self._point(params) not in self._seen:
                self._study.enqueue_trial(dict(params))
                return True
        return False

    def _point(self, params: Params) -> tuple[Any, ...]:
        return tuple(params.get(axis.key) for axis in self._space.axes)

    def tell(self, request: Request, measured: TrialResult) -> None:
        """A trial that diverged is "pruned" to Optuna: worse than any that finished. Failures teach it nothing."""
        states = {
            "finished": self._states.COMPLETE,
            "diverged": self._states.PRUNED,
            "failed": self._states.FAIL,
        }
        with self._quiet(self._path):
            study = self._storage.get_study_id_from_name(_STUDY)
            trial = self._storage.get_trial_id_from_study_id_trial_number(study, request.number)
            for name, value in (("runs", [list(run) for run in measured.runs]), ("error", measured.error)):
                self._storage.set_trial_user_attr(trial, name, value)
            self._study.tell(request.number, measured.values, state=states[measured.state])
        self._open.discard(request.number)
        self._failed += measured.state == "failed"

    def trials(self) -> tuple[Trial, ...]:
        """The current trials, without those that were repeated."""
        states: Mapping[Any, TrialState] = {
            self._states.COMPLETE: "finished",
            self._states.PRUNED: "diverged",
            self._states.FAIL: "failed",
            self._states.RUNNING: "running",
        }
        trials = self._begun()
        followed = {trial.user_attrs.get("retries") for trial in trials}
        return tuple(
            Trial(
                trial.number,
                {axis.key: trial.params[axis.key] for axis in self._space.axes},
                states[trial.state],
                tuple(trial.values) if trial.state == self._states.COMPLETE else None,
                runs=tuple((run, epochs) for run, epochs in trial.user_attrs.get("runs", ())),
                error=trial.user_attrs.get("error"),
            )
            for trial in trials
            if trial.state in states
            and trial.number not in followed
            and trial.params.keys() == self._distributions.keys()
        )

    def _distribution(self, axis: Axis) -> Any:
        distributions = self._optuna.distributions
        if isinstance(axis, Choice):
            return distributions.CategoricalDistribution(axis.texts)
        if axis.whole:
            return distributions.IntDistribution(int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.log)
        step = None if axis.log else axis.step
        return distributions.FloatDistribution(axis.low, axis.high, step=step, log=axis.log)

    def _new_sampler(self, number: int) -> Any:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        samplers = self._optuna.samplers
        if self._sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self._startup)
        if self._sampler == "cmaes":
            _load("cmaes")
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    @contextmanager
    def _quiet(self, path: Path) -> Iterator[None]:
        """Silence Optuna except for exceptions."""
        self._optuna.logging.set_verbosity(self._optuna.logging.CRITICAL)
        database_error = _load("sqlalchemy").exc.SQLAlchemyError
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except InputError:
            raise
        except (database_error, self._optuna.exceptions.OptunaError, *_HOSTILE) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                "hydra.sweeper.name",
                path.parent.name,
                f"{path} cannot be used ({reason}); set aside; the search starts again with the existing runs",
            ) from None


def check(sampler: str, objectives: Sequence[Objective]) -> None:
    """Raise InputError if a sampler does not support the search."""
    if sampler == "cmaes":
        if len(objectives) > 1:
            raise InputError("hydra.sweeper.sampler", sampler, "has one objective; tpe takes several")
        _load("cmaes")
    _load("optuna")


def _url(path: Path) -> str:
    url = _load("sqlalchemy").URL.create("sqlite", database=str(path.absolute()))
    return str(url.render_as_string(hide_password=False))
