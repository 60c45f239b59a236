"""The sweepers ``optuna`` and ``halving`` for Hydra (found through hydra_plugins)."""

import contextlib
import hashlib
import json
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweeps.launch.application import Task
from sweeps.launch.job import Job
from sweeps.launch.manifest import Manifest, sweep_name
from sweeps.launch.plan import Planner
from sweeps.launch.plugins import DECLARED, LaunchingSweeper, SweepLauncher, reported
from sweeps.runs.command import printed, started_with
from sweeps.runs.errors import InputError
from sweeps.runs.files import folder, lock
from sweeps.runs.schema import Check, fields, flag, integer, one_of, optional
from sweeps.search import halving, optimize, summary
from sweeps.search.halving import Halving
from sweeps.search.objective import objectives, refuse_test_set
from sweeps.search.optimize import SAMPLERS, Optimizer
from sweeps.search.record import Search, Trial, read
from sweeps.search.source import Request, Strategy, StrategySource
from sweeps.search.space import MOST_VALUES, Space

Plan = Callable[[Request], list[Job]]


def _any(_field: str, value: object) -> Any:
    """For options that are checked where they are read."""
    return value


_COMMON: Mapping[str, Check] = {
    "params": _any,
    "sampler_seed": integer(ge=0, le=2**32 - 1),
    "metric": _any,
    "direction": _any,
    "seeds": _any,
    "select_on_test": flag(),
    "name": sweep_name,
    "dry_run": flag(),
}


class SearchSweeper(LaunchingSweeper):
    """Searches with a strategy on the launcher's workers; the strategies are the two classes below."""

    _options: Mapping[str, Any]

    def __init__(self, checks: Mapping[str, Check], options: dict[str, Any]) -> None:
        super().__init__({key: options.pop(key) for key in DECLARED})
        self._checks, self._options = {**_COMMON, **checks}, options

    def check_options(self) -> None:
        super().check_options()
        self._options = fields(self._checks, "hydra.sweeper.", self._options)
        self._objectives = objectives(self._options["metric"], self._options["direction"], self.program)
        self._check_objectives()

    def _check_objectives(self) -> None:
        """Raise InputError if this search cannot use them."""

    @property
    @abstractmethod
    def _method(self) -> str:
        """The method's name, for readers."""

    @abstractmethod
    def _narrow(self, space: Space, epochs: int) -> Space:
        """The space for this search; raises InputError if it cannot be searched."""

    @abstractmethod
    def _outline(self, space: Space, epochs: int) -> tuple[list[str], int]:
        """What will be done, and the number of trials."""

    @abstractmethod
    def _strategy(self, space: Space, epochs: int, folder: Path) -> Strategy: ...

    def _decides(self) -> dict[str, Any]:
        """The options that must not change when a search is continued."""
        return {}

    def sweep(self, arguments: list[str]) -> None:
        """Check, plan, search, summarise; exits with 1 if a run failed, 128 + n on signal n."""
        with reported(self.program):
            self._search(arguments)

    def _search(self, arguments: list[str]) -> None:
        launcher = self._checked_launcher()
        space, plan, first = self._prepare(arguments, launcher)
        outline, total = self._outline(space, first.spec.epochs)
        definition = self._definition(space, first)
        manifest = Manifest(first.spec.out, self._options["name"] or _default_name(space, definition))
        empty = Search(
            manifest.name,
            self._method,
            tuple(objective.metric for objective in self._objectives),
            tuple(objective.direction for objective in self._objectives),
            tuple(axis.as_dict() for axis in space.axes),
            total,
            (),
            definition,
        )
        known = _known(manifest, definition)
        print("\n".join([f"{manifest.name}: {outline[0]}", *outline[1:]]))
        if known and known.trials:
            print(summary.before(known))
        if self._options["dry_run"]:
            return
        with _alone(manifest):
            strategy = self._strategy(space, first.spec.epochs, manifest.folder)

            def note(jobs: Sequence[Job]) -> None:
                if jobs:
                    manifest.add(jobs, started_with())
                empty.standing(strategy.trials()).write(manifest.folder)

            note(())
            source = StrategySource(strategy, self._objectives, plan, max(1, len(space.seeds)), note)
            job = source.next()
            status = 0  # finished points need no workers
            if job:
                _, status = launcher.follow(job, source, manifest, frozenset(space.fixed))
            search = empty.standing(strategy.trials())
            search.write(manifest.folder)
        summary.after(search, source.trained, manifest.path)
        if search.finished and (line := self._of_the_best(space, search.ranked()[0])):
            print(line)
        if any(trial.state == "failed" for trial in search.trials):
            status = status or 1
        if status:
            print(f"to continue: {printed(started_with())}")
            sys.exit(status)

    def _of_the_best(self, space: Space, best: Trial) -> str | None:
        """The command that trains the best trial as far as the configuration says, without the search's ``epochs=``.

        Its numbers are in full precision, so that it continues the trial's run. None for an application that
        says in its YAML that it searches: its single runs are not ours.
        """
        arguments, budget = sys.argv[1:], f"{self.program.budget}="
        words = started_with()
        words = words[: len(words) - len(arguments)]
        options = vars(get_args_parser().parse_known_args(arguments)[0])
        for name in ("config_path", "config_name", "config_dir"):
            words += [f"--{name.replace('_', '-')}", options[name]] if options[name] else []
        if isinstance(self.program.function, Task):
            if not any(word.startswith("hydra/sweeper=") for word in arguments):
                return None
            kept = tuple(f"hydra.sweeper.{key}=" for key in DECLARED)
            words += ["--multirun", "hydra/sweeper=grid", *(word for word in arguments if word.startswith(kept))]
        overrides = space.overrides(best.params)
        shorter = any(word.startswith(budget) for word in [*overrides, *arguments])
        words += [word for word in overrides if not word.startswith(budget)]
        words += [f"seed={seed}" for seed in space.seeds[:1]]
        others = f"  and seed={','.join(space.seeds[1:])}" if len(space.seeds) > 1 else ""
        return f"to train the best{' at full length' if shorter else ''}: {printed(words)}{others}"

    def _checked_launcher(self) -> SweepLauncher:
        assert self.config is not None
        chosen = str(self.config.hydra.runtime.choices.get("hydra/launcher"))
        if not isinstance(self.launcher, SweepLauncher):
            raise InputError("hydra/launcher", chosen, "cannot run a search; use pool, dask, pbs, sge, lsf or ray")
        if self.launcher.leave:
            raise InputError(
                "hydra/launcher", chosen, "cannot detach a search, which chooses points as results come in; use pool "
                "without detach, or hydra/launcher=dask hydra.launcher.cluster=slurm"
            )  # fmt: skip
        return self.launcher

    def _prepare(self, arguments: Sequence[str], launcher: SweepLauncher) -> tuple[Space, Plan, Job]:
        """The space, what makes points of requests, and a point of it; the space's ends and choices all are usable.

        Raises:
            InputError: they are not, or would be judged by the test set.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        loader, options = self.hydra_context.config_loader, self._options
        space = Space.parse(OverridesParser.create(loader), options["params"], arguments, options["seeds"])
        plan = partial(_jobs, self.planner(), space, launcher, self.program.budget)
        probes = [job for params in space.probes() for job in plan(Request(0, params))]
        if not options["select_on_test"]:
            for job in probes:
                refuse_test_set(self._objectives, self.program, job.spec.config)
        space = self._narrow(space, probes[0].spec.epochs)
        return space, partial(_jobs, self.planner(), space, launcher, self.program.budget), probes[0]

    def _definition(self, space: Space, first: Job) -> dict[str, Any]:
        return {
            "method": self._method,
            "space": [axis.as_dict() for axis in space.axes],
            "seeds": list(space.seeds),
            "epochs": first.spec.epochs,
            "objectives": [[objective.metric, objective.direction] for objective in self._objectives],
            "sampler_seed": self._options["sampler_seed"],
            "first": first.run_id,  # a digest of everything else that decides a run
            **self._decides(),
        }


class OptunaSweeper(SearchSweeper):
    """hydra/sweeper=optuna"""

    def __init__(self, **options: Any) -> None:
        checks = {"trials": integer(ge=1), "sampler": one_of(*SAMPLERS), "startup": integer(ge=1)}
        super().__init__(checks, options)

    def _check_objectives(self) -> None:
        optimize.check(self._method, self._objectives)

    @property
    def _method(self) -> str:
        return str(self._options["sampler"])

    def _narrow(self, space: Space, epochs: int) -> Space:
        if self._method == "grid":
            for axis in space.axes:
                axis.values()  # raises where there is no grid
        return space

    def _outline(self, space: Space, epochs: int) -> tuple[list[str], int]:
        total = self._options["trials"]
        if self._method == "grid":
            total = min(total, space.size or total)
        return [f"{total} trials by {self._method} over {', '.join(axis.key for axis in space.axes)}"], total

    def _strategy(self, space: Space, epochs: int, folder: Path) -> Optimizer:
        return Optimizer(
            folder / "study.db",
            space,
            self._objectives,
            sampler=self._method,
            seed=self._options["sampler_seed"],
            startup=self._options["startup"],
            total=self._options["trials"],
        )

    def _decides(self) -> dict[str, Any]:
        return {"startup": self._options["startup"]}


class HalvingSweeper(SearchSweeper):
    """hydra/sweeper=halving"""

    def __init__(self, **options: Any) -> None:
        checks = {
            "configurations": optional(integer(ge=2, le=MOST_VALUES)),
            "min_epochs": integer(ge=1),
            "eta": integer(ge=2),
        }
        super().__init__(checks, options)

    def _check_objectives(self) -> None:
        if self.program.budget is None:
            raise InputError("hydra.sweeper.budget", "null", "must name the key that says how far to go, for halving")
        if len(self._objectives) > 1:
            raise InputError("hydra.sweeper.metric", self._options["metric"], "must be one; optuna takes several")

    @property
    def _method(self) -> str:
        return "halving"

    def _narrow(self, space: Space, epochs: int) -> Space:
        budget = self.program.budget or ""
        if any(axis.key == budget for axis in space.axes):
            raise InputError(budget, "…", "is what halving itself varies; give one value, the most")
        return space.without(budget)

    def _outline(self, space: Space, epochs: int) -> tuple[list[str], int]:
        strategy = self._halving(space, epochs)
        rungs = strategy.plan()
        count, seeds = rungs[0][1], max(1, len(space.seeds))
        keys = ", ".join(axis.key for axis in space.axes)
        steps = ", ".join(f"{size} to {epochs}" for epochs, size in rungs)
        cost = sum(
            (epochs - before) * size for (epochs, size), (before, _) in zip(rungs, [(0, 0), *rungs], strict=False)
        )
        whole = count * epochs
        each = f", {seeds} seeds each" if seeds > 1 else ""
        return [
            f"{count} configurations over {keys}{each}: {steps} epochs",
            f"{cost * seeds} epochs at most, where all to the end would be {whole * seeds}",
        ], count

    def _halving(self, space: Space, epochs: int) -> Halving:
        options = self._options
        params = halving.configurations(space, options["configurations"], options["sampler_seed"])
        steps = halving.rungs(options["min_epochs"], epochs, options["eta"])
        return Halving(params, steps, options["eta"], self._objectives[0])

    def _strategy(self, space: Space, epochs: int, folder: Path) -> Halving:
        return self._halving(space, epochs)

    def _decides(self) -> dict[str, Any]:
        return {key: self._options[key] for key in ("configurations", "min_epochs", "eta")}


def _jobs(planner: Planner, space: Space, launcher: SweepLauncher, budget: str | None, request: Request) -> list[Job]:
    """A request's points, one for each seed."""
    overrides = space.overrides(request.params)
    if request.epochs is not None:
        overrides = (*overrides, f"{budget}={request.epochs}")
    each = [(*overrides, f"seed={seed}") for seed in space.seeds] or [overrides]
    return [launcher.sized(planner.plan([(point, ())])[0]) for point in each]


def _known(manifest: Manifest, definition: Mapping[str, Any]) -> Search | None:
    """The search so far; raises InputError if it is another one of this name."""
    known = read(manifest.folder)
    if known is None:
        return None
    different = [key for key in {**definition, **known.definition} if definition.get(key) != known.definition.get(key)]
    if different:
        raise InputError(
            "hydra.sweeper.name",
            manifest.name,
            f"belongs to another search, which differs in {', '.join(sorted(different))}; give this one another name",
        )
    return known


@contextlib.contextmanager
def _alone(manifest: Manifest) -> Iterator[None]:
    """A search is led by one process at a time; a killed one leaves no lock."""
    lead = lock(folder(manifest.folder.parent.parent, "sweeps", manifest.name) / ".search.lock")
    try:
        with lead.acquire(timeout=0):
            yield
    except Timeout:
        raise InputError("hydra.sweeper.name", manifest.name, "is searched by another process at the moment") from None


def _default_name(space: Space, definition: Mapping[str, Any]) -> str:
    keys = "-".join(axis.key for axis in space.axes)[:40]
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
    return "".join(c if c.isalnum() else "-" for c in f"{definition['method']}-{keys}") + "-" + digest[:6]
