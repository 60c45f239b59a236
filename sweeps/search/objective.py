"""A search's objectives: metrics of a point's runs, each maximized or minimized."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from sweeps.runs.errors import InputError
from sweeps.runs.metrics import NAME, Row
from sweeps.runs.program import Program
from sweeps.runs.schema import one_of

# In addition to the metrics that a program logs, which are taken at the last epoch.
_OVER_EPOCHS: dict[str, Callable[[Sequence[Row]], float]] = {
    "epoch_seconds": lambda rows: statistics.median(row.get("seconds", 0.0) for row in rows),
    "total_seconds": lambda rows: sum(row.total_seconds for row in rows),
}


@final
@dataclass(frozen=True)
class Objective:
    """A metric, and whether higher is better."""

    metric: str
    maximize: bool

    def of(self, rows: Sequence[Row]) -> float:
        """As of the last epoch; ``best_NAME`` as of the best one; times of the whole run.

        Raises:
            InputError: the program does not log it.
        """
        if self.metric in _OVER_EPOCHS:
            return _OVER_EPOCHS[self.metric](rows)
        name = self.metric.removeprefix("best_")
        if self.metric in rows[-1]:
            return rows[-1][self.metric]
        values = [row[name] for row in rows if name in row]
        if not values:
            logged = ", ".join(rows[-1].metrics) or "nothing"
            raise InputError("hydra.sweeper.metric", self.metric, f"is not logged by the program; it logs {logged}")
        return max(values) if self.maximize else min(values)

    def mean(self, histories: Sequence[Sequence[Row]]) -> float:
        """Over the seeds; NaN if any is not finite."""
        values = [self.of(rows) for rows in histories]
        return statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan

    def better(self, value: float) -> float:
        """A key to sort by, the best first."""
        return -value if self.maximize else value

    @property
    def direction(self) -> str:
        return "maximize" if self.maximize else "minimize"


def objectives(metric: object, direction: object, program: Program) -> tuple[Objective, ...]:
    """From ``hydra.sweeper.metric`` and ``.direction``, each one word or a list.

    The default metric is the program's. Without a direction accuracies are maximized, losses and times minimized.

    Raises:
        InputError: names the option.
    """
    if metric is None:
        metric = program.metric or "result"
    names = [metric] if isinstance(metric, str) else metric
    if not isinstance(names, (list, tuple)) or not names or len(set(map(str, names))) < len(names):
        raise InputError("hydra.sweeper.metric", metric, "must be a metric, or a list of different ones")
    names = [_known(name, program) for name in names]
    if direction is None:
        return tuple(Objective(name, _goes_up(name, program)) for name in names)
    words = [direction] if isinstance(direction, str) else direction
    if not isinstance(words, (list, tuple)) or len(words) != len(names):
        raise InputError("hydra.sweeper.direction", direction, "must be one for each metric")
    words = [one_of("maximize", "minimize")("hydra.sweeper.direction", word) for word in words]
    return tuple(Objective(name, word == "maximize") for name, word in zip(names, words, strict=True))


def _known(name: object, program: Program) -> str:
    if program.metrics is not None:
        best = [f"best_{program.metric}"] if program.metric else []
        return str(one_of(*program.metrics, *best, *_OVER_EPOCHS)("hydra.sweeper.metric", name))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError("hydra.sweeper.metric", name, "must be the name of a metric that the program logs")
    return name


def _goes_up(name: str, program: Program) -> bool:
    if program.metric and name.removeprefix("best_") == program.metric:
        return program.maximize
    return name.endswith(("acc", "accuracy", "score", "reward", "auc"))


def refuse_test_set(objectives: Sequence[Objective], program: Program, config: Any) -> None:
    """Refuse to select on the test set, which would leave none to evaluate the winner.

    Raises:
        InputError: the program says that a metric must not select.
    """
    for objective in objectives:
        why = program.advise(objective.metric, config)
        if why:
            raise InputError(
                "hydra.sweeper.metric",
                objective.metric,
                f"{why}. hydra.sweeper.select_on_test=true overrides this",
            )
