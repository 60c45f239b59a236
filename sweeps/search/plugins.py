"""What Hydra sees of searches: the sweepers ``optuna`` and ``halving`` (subclassed in hydra_plugins)."""

import contextlib
import hashlib
import json
import shlex
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlp.schema import Check, InputError, fields, integer, one_of, optional, text
from sweeps.run.manifest import Manifest
from sweeps.run.plan import Planner, Point
from sweeps.run.plugins import LaunchingSweeper, SweepLauncher, command
from sweeps.search import halving, optimize, summary
from sweeps.search.halving import Halving
from sweeps.search.objective import objectives, refuse_test_set
from sweeps.search.optimize import SAMPLERS, Optimizer
from sweeps.search.record import Search, read
from sweeps.search.source import Request, Strategy, StrategySource
from sweeps.search.space import Space

Plan = Callable[[Request], list[Point]]


def _any(_field: str, value: object) -> Any:
    """For what is checked where it is read."""
    return value


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(field, value, "must be true or false")
    return value


_COMMON: Mapping[str, Check] = {
    "params": _any,
    "sampler_seed": integer(ge=0, le=2**32 - 1),
    "metric": _any,
    "direction": _any,
    "seeds": _any,
    "select_on_test": _flag,
    "name": optional(text()),
    "dry_run": _flag,
}


class SearchSweeper(LaunchingSweeper):
    """Plans with a strategy over the launcher's workers; how, the two below say."""

    _options: Mapping[str, Any]

    def __init__(self, checks: Mapping[str, Check], options: Mapping[str, Any]) -> None:
        self._options = fields({**_COMMON, **checks}, "hydra.sweeper.", options)
        self._objectives = objectives(self._options["metric"], self._options["direction"])

    @property
    @abstractmethod
    def _method(self) -> str:
        """In one word, for readers."""

    @abstractmethod
    def _narrow(self, space: Space, epochs: int) -> Space:
        """The space as this search goes through it; raises InputError if it cannot."""

    @abstractmethod
    def _outline(self, space: Space, epochs: int) -> tuple[list[str], int]:
        """What is going to be done, in words, and the number of trials."""

    @abstractmethod
    def _strategy(self, space: Space, epochs: int, folder: Path) -> Strategy: ...

    def _decides(self) -> dict[str, Any]:
        """The options that must not change when a search is continued."""
        return {}

    def sweep(self, arguments: list[str]) -> None:
        """Check, plan, search, summarise; exits with 1 if a run failed, 128 + n on signal n."""
        launcher = self._checked_launcher()
        space, plan, first = self._prepare(arguments, launcher.threads)
        outline, total = self._outline(space, first.config.epochs)
        definition = self._definition(space, first)
        manifest = Manifest(first.config.out, self._options["name"] or _default_name(space, definition))
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
        print(summary.before(known))
        if self._options["dry_run"]:
            return
        with _alone(manifest):
            strategy = self._strategy(space, first.config.epochs, manifest.folder)

            def note(points: Sequence[Point]) -> None:
                if points:
                    manifest.add(points, command())
                empty.standing(strategy.trials()).write(manifest.folder)

            note(())
            source = StrategySource(strategy, self._objectives, plan, max(1, len(space.seeds)), note)
            point = source.next()
            status = 0  # what is finished already needs no workers
            if point:
                _, status = launcher.follow(point, source, manifest.stop_file, frozenset(space.fixed))
            search = empty.standing(strategy.trials())
            search.write(manifest.folder)
        summary.after(search, source.trained, manifest.path)
        if any(trial.state == "failed" for trial in search.trials):
            status = status or 1
        if status:
            print(f"to continue: {shlex.join(command())}")
            sys.exit(status)

    def _checked_launcher(self) -> SweepLauncher:
        assert self.config is not None
        if not isinstance(self.launcher, SweepLauncher):
            chosen = self.config.hydra.runtime.choices.get("hydra/launcher")
            raise InputError(
                "hydra/launcher", str(chosen), "cannot run a search; use pool, dask, slurm, pbs, sge, lsf or ray"
            )
        return self.launcher

    def _prepare(self, arguments: Sequence[str], threads: int) -> tuple[Space, Plan, Point]:
        """The space, what makes points of requests, and a point of it; the space's ends and choices all are usable.

        Raises:
            InputError: they are not, or would be judged by the test set.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        loader, options = self.hydra_context.config_loader, self._options
        space = Space.parse(OverridesParser.create(loader), options["params"], arguments, options["seeds"])
        planner = Planner(loader, self.config)
        probes = [point for params in space.probes() for point in _points(planner, space, threads, Request(0, params))]
        if not options["select_on_test"]:
            for config in {str(point.config.data): point.config for point in probes}.values():
                refuse_test_set(self._objectives, config)
        space = self._narrow(space, probes[0].config.epochs)
        return space, partial(_points, planner, space, threads), probes[0]

    def _definition(self, space: Space, first: Point) -> dict[str, Any]:
        return {
            "method": self._method,
            "space": [axis.as_dict() for axis in space.axes],
            "seeds": list(space.seeds),
            "epochs": first.config.epochs,
            "objectives": [[objective.metric, objective.direction] for objective in self._objectives],
            "sampler_seed": self._options["sampler_seed"],
            "first": first.run_id,  # all else that decides a run, by its digest
            **self._decides(),
        }


class OptunaSweeper(SearchSweeper):
    """hydra/sweeper=optuna"""

    def __init__(self, **options: Any) -> None:
        checks = {"trials": integer(ge=1), "sampler": one_of(*SAMPLERS), "startup": integer(ge=1)}
        super().__init__(checks, options)
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
            "configurations": optional(integer(ge=2)),
            "min_epochs": integer(ge=1),
            "eta": integer(ge=2),
        }
        super().__init__(checks, options)
        if len(self._objectives) > 1:
            raise InputError("hydra.sweeper.metric", self._options["metric"], "must be one; optuna takes several")

    @property
    def _method(self) -> str:
        return "halving"

    def _narrow(self, space: Space, epochs: int) -> Space:
        if any(axis.key == "epochs" for axis in space.axes):
            raise InputError("epochs", "…", "is what halving itself varies; give one value, the most")
        return space.without("epochs")

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


def _points(planner: Planner, space: Space, threads: int, request: Request) -> list[Point]:
    """A request's, one for each seed."""
    words = space.overrides(request.params)
    if request.epochs is not None:
        words = (*words, f"epochs={request.epochs}")
    each = [(*words, f"seed={seed}") for seed in space.seeds] or [words]
    return [planner.plan([(overrides, ())])[0].with_threads(threads) for overrides in each]


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
            f"is another search's, which differs in {', '.join(sorted(different))}; give this one a name of its own",
        )
    return known


@contextlib.contextmanager
def _alone(manifest: Manifest) -> Iterator[None]:
    """A search is led by one process at a time; a killed one leaves no lock."""
    manifest.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(manifest.folder / ".search.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise InputError("hydra.sweeper.name", manifest.name, "is searched by another process at the moment") from None


def _default_name(space: Space, definition: Mapping[str, Any]) -> str:
    keys = "-".join(axis.key for axis in space.axes)[:40]
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
    return "".join(c if c.isalnum() else "-" for c in f"{definition['method']}-{keys}") + "-" + digest[:6]
