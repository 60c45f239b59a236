"""The sweeper ``grid`` and the launchers for Hydra (found through hydra_plugins)."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sweeps.launch import display, estimate
from sweeps.launch.application import Task, application, described, run_by_other, sweep_dir
from sweeps.launch.detach import Leave, Slurm, say
from sweeps.launch.display import Display
from sweeps.launch.grid import Grids, condition
from sweeps.launch.job import Job, epochs_done
from sweeps.launch.launch import Executor, JobSource, Policy, Sweep
from sweeps.launch.manifest import Manifest, sweep_name
from sweeps.launch.plan import Planner, split
from sweeps.launch.planned import Planned
from sweeps.launch.sending import Sent, pack
from sweeps.runs import code, notes
from sweeps.runs.checkpoint import refuse_pruned
from sweeps.runs.command import counted, fail, printed, started_with, use_streams
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError, SweepsError
from sweeps.runs.files import folder, write_atomic
from sweeps.runs.program import Program
from sweeps.runs.schema import fields, flag, integer, list_of, number, one_of, optional, text
from sweeps.runs.session import recorded_code
from sweeps.runs.status import Result, State
from sweeps.runs.trackers import choice

_POLICY = {
    "retries": integer(ge=0),
    "timeout": optional(number(gt=0)),
    "on_error": one_of("continue", "stop"),
}


def _mapping(field: str, value: object) -> Any:
    if not isinstance(value, Mapping | None):
        raise InputError(field, value, "must be a mapping of keys")
    return value


DECLARED = {
    "out": text(),
    "budget": optional(text()),
    "ignore": lambda field, value: (
        value and list_of(text(), allowed="must be a list of keys", at_most=1000)(field, value)
    ),
    "added": _mapping,
    "renamed": _mapping,
    "tracker": lambda _field, value: value,  # checked by choice()
    "code": one_of("warn", "refuse", "ignore", "retrain"),
}


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    jobs: list[Job]
    results: list[Result]
    manifest: Manifest | None
    """None if there was nothing to run."""
    status: int
    """0 all finished (or diverged), 1 any failed, 128 + n on signal n."""


class LaunchingSweeper(Sweeper):
    """A sweeper with the launcher that the user chose, for the program whose command line this is.

    Args:
        program: for an application that does not use this package: ``out``, ``budget``, ``ignore``, ``added``,
            ``renamed``, ``tracker`` and ``code``; see conf/hydra/sweeper/grid.yaml.
    """

    program: Program
    retrain = "hydra.sweeper.code=retrain"
    """The override that retrains."""

    def __init__(self, program: Mapping[str, Any]) -> None:
        self._given = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in program.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.program = program_of(task_function, hydra_context, self._given)
        use_streams(lasting=True)
        with reported(self.program):
            self.check_options()
            self._refuse_chdir()
            self.launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        if isinstance(self.launcher, SweepLauncher):
            self.launcher.program = self.program

    def _refuse_chdir(self) -> None:
        assert self.config is not None
        asked = any(text.startswith("hydra.job.chdir=") for text in self.config.hydra.overrides.hydra)
        if asked and self.config.hydra.job.chdir and not isinstance(self.program.function, Task):
            raise InputError(
                "hydra.job.chdir",
                True,
                "is for single runs; those of a sweep stay where it was started (run.path is theirs)",
            )

    def check_options(self) -> None:
        """Raise InputError if an option cannot be used."""
        options = fields(DECLARED, "hydra.sweeper.", self._given)
        self._out, self._tracker, self._code = options["out"], options["tracker"], options["code"]

    def planner(self) -> Planner:
        assert self.hydra_context is not None
        assert self.config is not None
        tracker = None if self._tracker is None else choice(self._tracker)
        loader = self.hydra_context.config_loader
        return Planner(loader, self.config, self.program, Path(os.path.abspath(self._out)), tracker)


def reconcile(
    program: Program,
    what: str,
    ended: list[Result],
    left: list[Job],
    jobs: Sequence[Job],
    retrain: str = "hydra.sweeper.code=retrain",
) -> tuple[list[Result], list[Job]]:
    """Handle finished runs of changed code: warn, refuse, ignore or retrain.

    Args:
        retrain: the override that retrains.

    Raises:
        InputError: refuse; or more epochs of a run whose checkpoint was removed.
    """
    for job in left:
        refuse_pruned(job.run)
    if what == "ignore":
        return ended, left
    by_id = {job.run_id: job for job in jobs}
    stale = {}
    for result in ended:
        recorded = recorded_code(by_id[result.run_id].run)
        modules = code.changed(recorded, program) if recorded else []
        if modules:
            stale[result.run_id] = modules
    if not stale:
        return ended, left
    modules = sorted({module for names in stale.values() for module in names})
    shown = ", ".join(modules[:4]) + (", …" if len(modules) > 4 else "")
    said = f"{len(stale)} of {len(ended)} finished runs were made by other code ({shown})"
    if what == "refuse":
        raise InputError("hydra.sweeper.code", "refuse", f"{said}; use warn, ignore or retrain")
    if what == "warn":
        print(f"warning: {said}; {retrain} trains them again, ignore says nothing")
        return ended, left
    print(f"{said}; they are set aside and trained again")
    for run_id in stale:
        _set_aside(by_id[run_id])
    again = [by_id[run_id] for run_id in stale]
    return [result for result in ended if result.run_id not in stale], left + again


def program_of(function: TaskFunction, context: HydraContext, declared: Mapping[str, Any]) -> Program:
    """The program that a task function belongs to, or an unmodified application's."""
    found = getattr(function, "program", None)
    return found if isinstance(found, Program) else application(function, context, declared)


def _set_aside(job: Job) -> None:
    """Move a run to OUT/replaced, under a name with the time; nothing is deleted."""
    old = folder(job.spec.out, "replaced") / f"{job.run_id}-{time.strftime('%Y%m%dT%H%M%S')}"
    with job.run.lock().acquire(timeout=0):
        job.run.move(old)
    notes.carry(RunDir(old), job.run)


class GridSweeper(LaunchingSweeper):
    """Runs the union of grids; see :mod:`sweeps.launch.grid` for their syntax."""

    def __init__(
        self, grids: Any, where: str | None, name: str | None, dry_run: bool, params: Any = None,
        max_batch_size: int | None = None, **program: Any,
    ) -> None:  # fmt: skip
        super().__init__(program)
        self._grids = OmegaConf.to_container(grids, resolve=True) if OmegaConf.is_config(grids) else grids
        self._params = OmegaConf.to_container(params, resolve=True) if OmegaConf.is_config(params) else params
        self._where, self._name, self._dry_run = where, name, dry_run

    def check_options(self) -> None:
        super().check_options()
        self._where = condition("hydra.sweeper.where", self._where)
        self._name = sweep_name("hydra.sweeper.name", self._name)
        self._dry_run = flag()("hydra.sweeper.dry_run", self._dry_run)

    def sweep(self, arguments: list[str]) -> None:
        """:meth:`run`; exits with 1 if a run failed, 128 + n on signal n. Hydra asks for no more."""
        with reported(self.program):
            swept = self.run(arguments, started_with())
        if swept.status:
            print(f"to continue: {printed(started_with())}")
            sys.exit(swept.status)

    def run(self, arguments: list[str], command: list[str]) -> SweepResult:
        """Plan, show the plan, run what is left, summarise.

        Args:
            arguments: the overrides, with their values to sweep over.
            command: the command that repeats this, for the manifest.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        grids = Grids(OverridesParser.create(config_loader=self.hydra_context.config_loader), self._grids, self._params)
        conditions = [self._where] if self._where else []
        jobs = self.planner().plan(
            (overrides, [*conditions, *([where] if where else [])]) for overrides, where in grids.points(arguments)
        )
        if not jobs:
            print("nothing to run: no point fulfils the conditions")
            return SweepResult([], [], None, 0)
        name = self._name or self._default_name(arguments, jobs)
        return self.run_jobs(jobs, name, command, dry_run=self._dry_run)

    def run_jobs(self, jobs: list[Job], name: str, command: Sequence[str], *, dry_run: bool = False) -> SweepResult:
        ended, left = reconcile(self.program, self._code, *split(jobs, self.program), jobs, self.retrain)
        manifest = Manifest(jobs[0].spec.out, name)
        slots = getattr(self.launcher, "slots", 1)
        print(describe(manifest.name, self.program, jobs, ended, left, slots))
        if dry_run:
            for job in jobs:
                print(plan_line(job, ended))
            return SweepResult(jobs, ended, None, 0)
        manifest.add(jobs, command)
        self._write_config(manifest)
        status = 0
        if left and isinstance(self.launcher, SweepLauncher):
            plan = self.launcher.plan(left)
            plan.write(manifest.folder, jobs)
            if self.launcher.leave:
                self.launcher.leave(manifest)
                return SweepResult(jobs, ended, manifest, 0)
            results, status = self.launcher.run(plan, plan.jobs, manifest, reused=len(ended))
            ended += results
        elif left:
            results, status = self._run_by_other(left)
            ended += results
        display.summary(jobs, ended, self.program)
        print(closing(ended, manifest))
        return SweepResult(jobs, ended, manifest, status)

    def _write_config(self, manifest: Manifest) -> None:
        """An application's multirun.yaml, where Hydra's basic sweeper puts it, or in our folder of the sweep."""
        if isinstance(self.program.function, Task):
            assert self.config is not None
            place = Path(sweep_dir(self.config) or manifest.folder)
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / "multirun.yaml", OmegaConf.to_yaml(self.config).encode())

    def _run_by_other(self, left: list[Job]) -> tuple[list[Result], int]:
        assert self.launcher is not None
        if isinstance(self.program.function, Task):
            results = run_by_other(self.launcher, self.program, left)
            return results, 0 if all(result.state.is_result for result in results) else 1
        returns = self.launcher.launch([list(job.overrides) for job in left], 0)
        failed = any(job.status == JobStatus.FAILED for job in returns)
        more, unfinished = split(left)
        more = [replace(result, reused=False) for result in more]  # read from disk, but trained just now
        return more, 1 if failed or unfinished else 0

    def _default_name(self, arguments: Sequence[str], jobs: list[Job]) -> str:
        """The experiment's name, or the keys that vary and a digest of the runs."""
        assert self.config is not None
        experiment = self.config.hydra.runtime.choices.get("experiment")
        if experiment not in (None, "null"):
            return str(experiment).replace("/", "-")
        return self.name_of([word.split("=")[0] for word in arguments if "," in word or "(" in word], jobs)

    @staticmethod
    def name_of(keys: Sequence[str], jobs: list[Job]) -> str:
        """The keys that vary and a digest of the runs."""
        said = "-".join(dict.fromkeys(key.lstrip("+") for key in keys))[:40] or "sweep"
        digest = hashlib.sha256("\n".join(sorted(job.run_id for job in jobs)).encode()).hexdigest()
        return "".join(c if c.isalnum() else "-" for c in said) + "-" + digest[:6]


class SweepLauncher(Launcher):
    """A launcher over the scheduler.

    Args:
        executor: makes the executor, once there is something to run.
        slots: jobs that will run at once; None if only the cluster knows.
        threads: of each worker.
        policy: ``retries``, ``timeout`` and ``on_error``; see :class:`Policy`.
        leave: detaches a planned sweep instead of running it.
    """

    program: Program

    def __init__(
        self, executor: Callable[[], Executor], slots: int | None, threads: int, policy: Mapping[str, Any],
        leave: Leave | None = None,
    ) -> None:  # fmt: skip
        self._executor = executor
        self.leave = leave
        self.slots = slots
        self.threads = threads
        self._policy = Policy(**fields(_POLICY, "hydra.launcher.", policy))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config
        self.program = program_of(task_function, hydra_context, {})

    def plan(self, jobs: Sequence[Job]) -> Planned:
        """The jobs and their program, ready to be sent anywhere.

        Raises:
            InputError: the program cannot be sent; names the obstacle.
        """
        return Planned(pack(self.program), [self.sized(job) for job in jobs], self.threads, self._policy)

    def run(
        self, plan: Planned, jobs: Sequence[Job], manifest: Manifest, *, reused: int,
        halt: Callable[[], str | None] | None = None, wait: bool = True,
    ) -> tuple[list[Result], int]:  # fmt: skip
        """Train those jobs of a plan; returns how each ended, and the exit status.

        Args:
            halt: a reason to stop now, if any; by default a stop of the sweep.
            wait: see :class:`Sweep`.
        """
        return self._train(plan.program, list(jobs), None, manifest, halt, wait, reused=reused)

    def sized(self, job: Job) -> Job:
        """The job for workers with this number of threads."""
        return replace(job, spec=self.program.sized(job.spec, self.threads))

    def follow(
        self, first: Job, source: JobSource, manifest: Manifest, shared: frozenset[str]
    ) -> tuple[list[Result], int]:
        """Train a source's first job and those that follow, until none does; ``shared`` as for :class:`Display`."""
        sent = pack(self.program)
        return self._train(sent, [first], source, manifest, reused=0, expected=source.expected, shared=shared)

    def _train(
        self, sent: Sent, jobs: list[Job], source: JobSource | None, manifest: Manifest,
        halt: Callable[[], str | None] | None = None, wait: bool = True, **shown: Any,
    ) -> tuple[list[Result], int]:  # fmt: skip
        executor = self._executor()
        try:
            executor.check(jobs[0].spec.out)
            screen = Display(jobs, self.program, slots=executor.slots, **shown)
            sweep = Sweep(executor, self._policy, screen, manifest.stop_file, sent, halt or manifest.halt, wait)
            results = sweep.run(jobs, source)
        finally:
            executor.close()
        if sweep.signum:
            return results, 128 + sweep.signum
        bad = any(result.state in (State.FAILED, State.INTERRUPTED) for result in results)
        return results, 1 if bad else 0

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For other sweepers: one return for each job, with the metric that judges the program."""
        with reported(self.program):
            if self.leave:
                raise InputError(
                    "hydra/launcher", "detached", "leaves no results for this sweeper; use hydra/sweeper=grid"
                )
            planner = Planner(
                self._context.config_loader, self._config, self.program, Path(os.path.abspath("outputs")),
                number_from=initial_job_idx,
            )  # fmt: skip
            jobs = [job for overrides in job_overrides for job in planner.plan([(tuple(overrides), ())])]
            unique = {job.run_id: job for job in jobs}
            results, left = reconcile(self.program, "warn", *split(unique.values(), self.program), jobs)
            if left:
                manifest = Manifest(left[0].spec.out, str(self._config.hydra.job.name))
                plan = self.plan(left)
                more, status = self.run(plan, plan.jobs, manifest, reused=len(results))
                results += more
                if status > 128:
                    sys.exit(status)
        by_id = {result.run_id: result for result in results}
        return [job_return(job, by_id[job.run_id]) for job in jobs]


def pool(workers: int | None, threads: int, detach: bool = False, **policy: Any) -> SweepLauncher:
    """The launcher of local processes, or of detached sweeps."""
    from sweeps.launch.pool import Pool, workers_for

    slots = workers_for(workers, threads)
    leave = partial(say, workers=slots) if flag()("hydra.launcher.detach", detach) else None
    return SweepLauncher(lambda: Pool(workers=slots, threads=threads), slots, threads, policy, leave)


def slurm(threads: int, retries: int, timeout: float | None, on_error: str, **options: Any) -> SweepLauncher:
    """The launcher that submits an array of workers to Slurm, and returns."""
    policy = {"retries": retries, "timeout": timeout, "on_error": on_error}
    checked = Slurm.of(threads=threads, **options)
    return SweepLauncher(_no_executor, checked.slots, checked.threads, policy, checked.leave)


def _no_executor() -> Executor:
    raise AssertionError("its workers are commands of their own")


def dask(threads: int, retries: int, timeout: float | None, on_error: str, **options: Any) -> SweepLauncher:
    """The launcher of a Dask cluster's workers."""
    from sweeps.launch.dask import Dask, Options

    policy = {"retries": retries, "timeout": timeout, "on_error": on_error}
    checked = Options.of(threads=threads, **options)
    return SweepLauncher(lambda: Dask(checked), checked.expected_slots, checked.threads, policy)


def ray(threads: int, retries: int, timeout: float | None, on_error: str, **options: Any) -> SweepLauncher:
    """The launcher of a Ray cluster's nodes."""
    from sweeps.launch.ray import Options, Ray

    policy = {"retries": retries, "timeout": timeout, "on_error": on_error}
    checked = Options.of(threads=threads, **options)
    return SweepLauncher(lambda: Ray(checked), None, checked.threads, policy)


@contextlib.contextmanager
def reported(program: Program) -> Iterator[None]:
    """Our errors on one screen, also in an application that handles errors itself."""
    try:
        yield
    except OSError as error:
        if not isinstance(program.function, Task) or error.filename is None:
            raise
        sys.exit(fail(f"out: {error.filename}: {error.strerror}", 2))
    except (SweepsError, HydraException) as error:
        blamed = error if isinstance(error, SweepsError) else error.__cause__  # where Hydra made the launcher
        if not isinstance(program.function, Task) or not isinstance(blamed, SweepsError):
            raise  # the program's own command line says it, or Hydra
        sys.exit(fail(str(blamed), 2 if isinstance(blamed, InputError) else 1))


def job_return(job: Job, result: Result) -> JobReturn:
    """The value for Hydra's other sweepers, to be minimized: the program's return value or its metric."""
    if isinstance(job.spec.config, bytes):
        ret = described(job.spec.config)
    else:
        ret = JobReturn(cfg=OmegaConf.create(dict(job.spec.values)), task_name="train")
    ret.overrides = list(job.overrides)
    if result.state.is_result:
        ret.status, ret.return_value = JobStatus.COMPLETED, _value(result)
    else:
        ret.status = JobStatus.FAILED
        ret._return_value = RuntimeError(f"{job.run_id}: {result.error}")
    return ret


def _value(result: Result) -> Any:
    row = result.last
    if result.state != State.FINISHED or row is None:
        return float("inf")
    if result.returned is not None:
        return result.returned
    for name in ("result", "valid_loss"):
        if name in row:
            return row[name]
    values = {name: value for name, value in row.metrics.items() if name != "seconds"}
    return next(iter(values.values()), None) if len(values) <= 1 else values


def describe(
    name: str, program: Program, jobs: Sequence[Job], ended: list[Result], left: list[Job], slots: int | None
) -> str:
    """``lr: 4 runs, 3 finished already, 1 to train (100 epochs), about 2 min on 2 workers``."""
    parts = [counted(len(ended) + len(left), "run")]
    if ended:
        parts.append(f"{len(ended)} finished already")
    if left:
        by_id = {job.run_id: job for job in jobs}
        todo = [
            (program.cost(job.spec.config), job.spec.epochs - min(job.spec.epochs, epochs_done(job.run)))
            for job in left
        ]
        timed = [(program.cost(by_id[result.run_id].spec.config), result.last) for result in ended]
        speed = estimate.speed(program, timed)
        total = sum(epochs for _, epochs in todo)
        parts.append(f"{len(left)} to train ({counted(total, 'epoch')})" if program.budget else f"{len(left)} to train")
        if slots:  # else the cluster has not told yet
            slots = min(slots, len(left))
            on = f"on {slots} worker{'s' if slots > 1 else ''}"
            if speed:
                seconds = estimate.parallel_seconds([cost * epochs / speed for cost, epochs in todo], slots)
                on = f"about {estimate.duration(seconds)} {on}"
            parts.append(on)
    return f"{name}: {', '.join(parts)}"


def plan_line(job: Job, ended: list[Result]) -> str:
    """A line of a dry run: a job, and how much of it exists."""
    done = {result.run_id: result for result in ended}
    epoch = epochs_done(job.run)
    state: str = f"from {epoch + 1}" if epoch else "new"
    if job.run_id in done:
        state = done[job.run_id].state
    return f"{state:<10} {job.run_id}  {' '.join(job.overrides)}".rstrip()


def closing(results: list[Result], manifest: Manifest) -> str:
    """The last line: counts, and the path of the manifest."""
    states = (State.FINISHED, State.DIVERGED, State.FAILED, State.INTERRUPTED)
    counts = {state: sum(result.state == state for result in results) for state in states}
    reused = sum(result.reused for result in results)
    said = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return f"{said}{f' ({reused} of them before)' if reused else ''}; {manifest.path}"
