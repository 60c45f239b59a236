"""What a search judges a point by: metrics of its runs, each to be made as large or as small as can be."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from mlp import data
from mlp.config import RunConfig
from mlp.runs import Epoch
from mlp.schema import InputError, one_of

_SPLITS = ("train", "valid", "test")


def _last(name: str, rows: Sequence[Epoch]) -> float:
    return float(getattr(rows[-1], name))


# As in the collected tables: at the last epoch unless the name says otherwise; seconds are of the whole run.
METRICS: dict[str, Callable[[Sequence[Epoch]], float]] = {
    **{f"{split}_{kind}": partial(_last, f"{split}_{kind}") for split in _SPLITS for kind in ("acc", "loss")},
    "best_valid_acc": lambda rows: max(row.valid_acc for row in rows),
    "epoch_seconds": lambda rows: statistics.median(row.seconds for row in rows),
    "total_seconds": lambda rows: sum(row.seconds + row.eval_seconds for row in rows),
}


@final
@dataclass(frozen=True)
class Objective:
    """A metric, and whether more of it is better."""

    metric: str
    maximize: bool

    def of(self, rows: Sequence[Epoch]) -> float:
        return METRICS[self.metric](rows)

    def mean(self, histories: Sequence[Sequence[Epoch]]) -> float:
        """Over the seeds; NaN if any is not finite."""
        values = [self.of(rows) for rows in histories]
        return statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan

    def better(self, value: float) -> float:
        """A key to sort by, the best first."""
        return -value if self.maximize else value

    @property
    def direction(self) -> str:
        return "maximize" if self.maximize else "minimize"


def objectives(metric: object, direction: object) -> tuple[Objective, ...]:
    """From ``hydra.sweeper.metric`` and ``.direction``, each one word or a list; no direction: what is natural.

    Raises:
        InputError: names the option.
    """
    names = [metric] if isinstance(metric, str) else metric
    if not isinstance(names, (list, tuple)) or not names or len(set(map(str, names))) < len(names):
        raise InputError("hydra.sweeper.metric", metric, "must be a metric, or a list of different ones")
    names = [one_of(*METRICS)("hydra.sweeper.metric", name) for name in names]
    if direction is None:
        return tuple(Objective(name, name.endswith("_acc")) for name in names)
    words = [direction] if isinstance(direction, str) else direction
    if not isinstance(words, (list, tuple)) or len(words) != len(names):
        raise InputError("hydra.sweeper.direction", direction, "must be one for each metric")
    words = [one_of("maximize", "minimize")("hydra.sweeper.direction", word) for word in words]
    return tuple(Objective(name, word == "maximize") for name, word in zip(names, words, strict=True))


def refuse_test_set(objectives: Sequence[Objective], config: RunConfig) -> None:
    """A search that is judged by the test set leaves none to say how good its winner is.

    Raises:
        InputError: it would be.
    """
    dataset = data.load(config.data.name, config.data.options)
    for objective in objectives:
        if objective.metric.startswith("test_"):
            why = "is measured on the test set, which would then say nothing about the winner; valid_… is for this"
        elif "valid" in objective.metric and dataset.valid is dataset.test:
            why = (
                "is the test set's here, for there is no validation split; data.holdout=5000 makes one of training "
                "images"
            )
        else:
            continue
        raise InputError(
            "hydra.sweeper.metric", objective.metric, f"{why}. hydra.sweeper.select_on_test=true does it nonetheless"
        )
