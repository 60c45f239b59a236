"""<out>/sweeps/<name>/search.json: a search's record, read without Optuna and without trust."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final, get_args

from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import inside, listed, read_json, write_atomic
from sweeps.runs.schema import LARGEST

FILE = "search.json"
_LONGEST = 1000  # characters of a text

TrialState = Literal["running", "finished", "diverged", "failed"]


@final
@dataclass(frozen=True)
class Trial:
    """A point of the space, and its result."""

    number: int
    params: Mapping[str, str | int | float]
    state: TrialState = "running"
    values: tuple[float, ...] | None = None
    """One for each objective, each the mean over the seeds; of a trial that finished."""
    rungs: tuple[tuple[int, float], ...] = ()
    """Of successive halving: (epochs, value there), the last as in ``values``."""
    runs: tuple[tuple[str, int], ...] = ()
    """(run, epochs that this trial took it to) of each seed."""
    error: str | None = None


@final
@dataclass(frozen=True)
class Search:
    """The current state of a search."""

    name: str
    method: str
    """``tpe``, ``cmaes``, ``random``, ``grid`` or ``halving``."""
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: tuple[Mapping[str, Any], ...]
    """``{"key", "values"}`` or ``{"key", "low", "high", "step", "log"}``."""
    total: int
    """Trials asked for."""
    trials: tuple[Trial, ...]
    definition: Mapping[str, Any] = field(default_factory=dict)
    """The options that must be the same to continue a search."""

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "finished"]

    def ranked(self) -> list[Trial]:
        """Finished trials, the best first; with several objectives the Pareto front alone, by the first of them.

        In successive halving, a higher rung is better.
        """
        keys = {trial.number: self._key(trial) for trial in self.finished}
        chosen = self.finished
        if len(self.metrics) > 1:
            chosen = [
                trial for trial in chosen if not any(_dominates(key, keys[trial.number]) for key in keys.values())
            ]
        furthest = {trial.number: trial.rungs[-1][0] if trial.rungs else 0 for trial in chosen}
        return sorted(chosen, key=lambda trial: (-furthest[trial.number], keys[trial.number], trial.number))

    def epochs(self) -> int:
        """Epochs that the search took: for each run, the most that any trial needed."""
        runs: dict[str, int] = {}
        for run, epochs in (pair for trial in self.trials for pair in trial.runs):
            runs[run] = max(runs.get(run, 0), epochs)
        return sum(runs.values())

    def _key(self, trial: Trial) -> tuple[float, ...]:
        assert trial.values is not None
        signs = [-1.0 if direction == "maximize" else 1.0 for direction in self.directions]
        return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))

    def standing(self, trials: tuple[Trial, ...]) -> "Search":
        """The same with its trials as they are now."""
        return replace(self, trials=trials)

    def write(self, folder: Path) -> None:
        content = json.dumps(asdict(self), ensure_ascii=True, allow_nan=False)
        write_atomic(folder / FILE, content.encode() + b"\n")


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def read(folder: Path) -> Search | None:
    """The search of a sweep's folder, or None where there is none.

    Raises:
        InputError: the file is not what it should be.
    """
    path = inside(folder.parent.parent, folder.parent.name, folder.name) / FILE
    try:
        return _search(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, DamagedRun, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError("search", folder.name, f"{path} cannot be read ({reason})") from None


def read_all(out: Path) -> Iterator[Search | InputError]:
    """Every search of a results tree by name, or why it cannot be read."""
    try:
        entries = listed(out, "sweeps")
    except OSError:
        return
    except InputError as error:
        yield error
        return
    for entry in entries:
        try:
            found = read(Path(entry.path))
        except InputError as error:
            yield error
        else:
            if found:
                yield found


def _search(content: Any) -> Search:
    metrics, directions = tuple(map(_text, content["metrics"])), tuple(map(_text, content["directions"]))
    if not metrics or len(metrics) != len(directions):
        raise ValueError("metrics and directions")
    space = tuple(_axis(axis) for axis in content["space"])
    trials = tuple(_trial(trial, len(metrics), [axis["key"] for axis in space]) for trial in content["trials"])
    if len({trial.number for trial in trials}) < len(trials):
        raise ValueError("two trials of one number")
    return Search(
        _text(content["name"]),
        _text(content["method"]),
        metrics,
        directions,
        space,
        _count(content["total"]),
        trials,
        dict(content["definition"]),
    )


def _axis(axis: Any) -> dict[str, Any]:
    key = _text(axis["key"])
    if "values" in axis:
        return {"key": key, "values": list(map(_text, axis["values"]))}
    low, high = _number(axis["low"]), _number(axis["high"])
    log = axis["log"] is True
    if low > high or (log and low <= 0):
        raise ValueError(f"bounds of {key}")
    return {"key": key, "low": low, "high": high, "step": axis["step"] and _number(axis["step"]), "log": log}


def _trial(trial: Any, objectives: int, keys: list[str]) -> Trial:
    state = trial["state"]
    if state not in get_args(TrialState):
        raise ValueError(f"state {state!r}")
    values = None if trial["values"] is None else tuple(map(_number, trial["values"]))
    if (state == "finished") != (values is not None) or (values and len(values) != objectives):
        raise ValueError("values")
    params = {_text(key): _text(x) if isinstance(x, str) else _number(x) for key, x in trial["params"].items()}
    if set(params) != set(keys):
        raise ValueError("params")
    return Trial(
        _count(trial["number"]),
        params,
        state,
        values,
        tuple((_count(epochs), _number(value)) for epochs, value in trial["rungs"]),
        tuple((_text(run), _count(epochs)) for run, epochs in trial["runs"]),
        None if trial["error"] is None else _text(trial["error"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return printable(value[:_LONGEST])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(float(value)):
        raise ValueError("not a number")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError("not a count")
    return value
