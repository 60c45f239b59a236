"""What Hydra sees: the sweeper ``grid`` and the launchers over the seam (subclassed in hydra_plugins)."""

import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlp.schema import fields, integer, number, one_of, optional
from sweeps.run import display, estimate
from sweeps.run.display import Display
from sweeps.run.grid import Grids
from sweeps.run.job import epochs_done
from sweeps.run.launch import Engine, Policy, Source, Sweep
from sweeps.run.manifest import Manifest
from sweeps.run.plan import Ended, Planner, Point, split

_POLICY = {
    "retries": integer(ge=0),
    "timeout": optional(number(gt=0)),
    "on_error": one_of("continue", "stop"),
}


@dataclass(frozen=True)
class Swept:
    """What came of a sweep."""

    ended: list[Ended]
    manifest: Manifest | None
    """None if nothing was to be run."""
    status: int
    """0 all finished (or diverged), 1 any failed, 128 + n on signal n."""


class LaunchingSweeper(Sweeper):
    """A sweeper with the launcher that the user chose."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )


class GridSweeper(LaunchingSweeper):
    """Runs the union of grids; see :mod:`sweeps.run.grid` for their syntax."""

    def __init__(self, grids: Any, where: str | None, name: str | None, dry_run: bool) -> None:
        self._grids = OmegaConf.to_container(grids, resolve=True) if OmegaConf.is_config(grids) else grids
        self._where, self._name, self._dry_run = where, name, dry_run

    def sweep(self, arguments: list[str]) -> None:
        """:meth:`run`; exits with 1 if a run failed, 128 + n on signal n."""
        status = self.run(arguments, command()).status
        if status:
            print(f"to continue: {shlex.join(command())}")
            sys.exit(status)

    def run(self, arguments: list[str], command: list[str]) -> "Swept":
        """Plan, show the plan, run what is left, summarise.

        Args:
            arguments: the overrides, with their values to sweep over.
            command: what does the same again, for the manifest.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        grids = Grids(OverridesParser.create(config_loader=loader), self._grids)
        planner = Planner(loader, self.config)
        conditions = [self._where] if self._where else []
        points = planner.plan(
            (overrides, [*conditions, *([where] if where else [])]) for overrides, where in grids.points(arguments)
        )
        if not points:
            print("nothing to run: no point fulfils the conditions")
            return Swept([], None, 0)
        ended, left = split(points)
        manifest = Manifest(points[0].config.out, self._name or self._default_name(arguments, points))
        slots = getattr(self.launcher, "slots", 1)
        print(describe(manifest.name, ended, left, slots))
        if self._dry_run:
            for point in points:
                print(plan_line(point, ended))
            return Swept(ended, None, 0)
        manifest.add(points, command)
        status = 0
        if left:
            ended, status = self._run(left, manifest, ended)
        display.summary(ended)
        print(closing(ended, manifest))
        return Swept(ended, manifest, status)

    def _run(self, left: list[Point], manifest: Manifest, ended: list[Ended]) -> tuple[list[Ended], int]:
        if isinstance(self.launcher, SweepLauncher):
            more, status = self.launcher.run(left, manifest.stop_file, reused=len(ended))
            return ended + more, status
        assert self.launcher is not None
        returns = self.launcher.launch([list(point.overrides) for point in left], 0)
        failed = any(job.status == JobStatus.FAILED for job in returns)
        more, unfinished = split(left)
        return ended + more, 1 if failed or unfinished else 0

    def _default_name(self, arguments: Sequence[str], points: list[Point]) -> str:
        """The experiment's name, or the keys that vary and a digest of the runs."""
        assert self.config is not None
        experiment = self.config.hydra.runtime.choices.get("experiment")
        if experiment not in (None, "null"):
            return str(experiment).replace("/", "-")
        keys = "-".join(word.split("=")[0] for word in arguments if "," in word or "(" in word)[:40] or "sweep"
        digest = hashlib.sha256("\n".join(sorted(point.run_id for point in points)).encode()).hexdigest()
        return "".join(c if c.isalnum() else "-" for c in keys) + "-" + digest[:6]


class SweepLauncher(Launcher):
    """A launcher over the seam; ``engine`` makes where the jobs run, once there is something to run."""

    def __init__(self, engine: Callable[[], Engine], slots: int, threads: int, policy: Mapping[str, Any]) -> None:
        self._engine = engine
        self.slots = slots
        self.threads = threads
        self._policy = Policy(**fields(_POLICY, "hydra.launcher.", policy))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config

    def run(self, points: list[Point], stop_file: Path, *, reused: int = 0) -> tuple[list[Ended], int]:
        """Train the points; returns how each ended, and the exit status."""
        points = [point.with_threads(self.threads) for point in points]
        return self._train(points, None, stop_file, reused=reused)

    def follow(self, first: Point, source: Source, stop_file: Path, shared: frozenset[str]) -> tuple[list[Ended], int]:
        """Train a source's first point and those that follow, until none does; ``shared`` as for :class:`Display`."""
        return self._train([first], source, stop_file, reused=0, expected=source.expected, shared=shared)

    def _train(
        self, points: list[Point], source: Source | None, stop_file: Path, **shown: Any
    ) -> tuple[list[Ended], int]:
        engine = self._engine()
        try:
            engine.check(points[0].config.out)
            screen = Display(points, slots=engine.slots, **shown)
            sweep = Sweep(engine, self._policy, screen, stop_file)
            ended = sweep.run(points, source)
        finally:
            engine.close()
        if sweep.signum:
            return ended, 128 + sweep.signum
        bad = any(item.outcome.state in ("failed", "interrupted") for item in ended)
        return ended, 1 if bad else 0

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For sweepers of others: one return for each job, its value the last epoch's validation loss."""
        planner = Planner(self._context.config_loader, self._config)
        points = [planner.plan([(tuple(overrides), ())])[0] for overrides in job_overrides]
        unique = {point.run_id: point for point in points}
        ended, left = split(list(unique.values()))
        if left:
            manifest = Manifest(left[0].config.out, str(self._config.hydra.job.name))
            more, status = self.run(left, manifest.stop_file, reused=len(ended))
            ended += more
            if status > 128:
                sys.exit(status)
        by_id = {item.point.run_id: item for item in ended}
        return [_job_return(by_id[point.run_id]) for point in points]


def _job_return(item: Ended) -> JobReturn:
    outcome = item.outcome
    good = outcome.state in ("finished", "diverged")
    loss = outcome.last.valid_loss if outcome.last and outcome.state == "finished" else float("inf")
    return JobReturn(
        overrides=list(item.point.overrides),
        cfg=OmegaConf.create(dict(item.point.values)),
        task_name="train",
        status=JobStatus.COMPLETED if good else JobStatus.FAILED,
        _return_value=loss if good else RuntimeError(f"{item.point.run_id}: {outcome.error}"),
    )


def describe(name: str, ended: list[Ended], left: list[Point], slots: int) -> str:
    """``lr: 4 runs, 3 finished already, 1 to train (100 epochs), about 2 min on 2 workers``."""
    parts = [f"{len(ended) + len(left)} runs"]
    if ended:
        parts.append(f"{len(ended)} finished already")
    if left:
        todo = [
            (estimate.epoch_work(p.config), p.config.epochs - min(p.config.epochs, epochs_done(p.run))) for p in left
        ]
        timed = [(estimate.epoch_work(item.point.config), item.outcome.last) for item in ended]
        speed = estimate.speed(timed)
        seconds = estimate.parallel_seconds([work * epochs / speed for work, epochs in todo], slots)
        parts.append(f"{len(left)} to train ({sum(epochs for _, epochs in todo)} epochs)")
        parts.append(f"about {estimate.words(seconds)} on {slots} worker{'s' if slots > 1 else ''}")
    return f"{name}: {', '.join(parts)}"


def plan_line(point: Point, ended: list[Ended]) -> str:
    """A point of a dry run: what is there of it, and what it would be."""
    done = {item.point.run_id: item.outcome for item in ended}
    epoch = epochs_done(point.run)
    state: str = f"from {epoch + 1}" if epoch else "new"
    if point.run_id in done:
        state = done[point.run_id].state
    return f"{state:<10} {point.run_id}  {' '.join(point.overrides)}"


def closing(ended: list[Ended], manifest: Manifest) -> str:
    """The last line: counts, and where the sweep is written down."""
    states = ("finished", "diverged", "failed", "interrupted")
    counts = {state: sum(item.outcome.state == state for item in ended) for state in states}
    reused = sum(item.outcome.reused for item in ended)
    words = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return f"{words}{f' ({reused} of them before)' if reused else ''}; {manifest.path}"


def command() -> list[str]:
    """The command line that this process was started with."""
    program = Path(sys.argv[0])
    if program.name == "train.py":
        return ["python", "-m", "mlp.train", *sys.argv[1:]]
    return [program.name, *sys.argv[1:]]
