"""``python compare.py TREE TREE``: do they hold the same runs, bit for bit but for their clocks?

And has every trial of the second's search finished; if the first has it too, are its trials and its winner the same?
"""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from mlp.epochs import Epoch
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.search.record import Search, read

_CLOCK = [Epoch._fields.index(name) for name in ("seconds", "eval_seconds")]


def content(run: RunDir) -> dict[str, object]:
    """Everything that two runs of one identity must share: metrics, steps, items, parameters, optimizer state."""
    rows = [[text for i, text in enumerate(line.split(",")) if i not in _CLOCK] for line in run.metrics.open()]
    with np.load(run.checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["history"] = np.delete(arrays["history"], _CLOCK, axis=1)
    files = {path.name: path.read_bytes() for path in (run.steps, run.items)}
    return {"metrics": rows} | files | {name: (array.dtype.str, array.tobytes()) for name, array in arrays.items()}


def differences(one: Path, other: Path) -> list[str]:
    runs = {run.path.name: (run, RunDir.of(other, run.path.name)) for run in run_dirs(one)}
    names = {run.path.name for run in run_dirs(other)}
    found = [f"{name}: in one tree alone" for name in sorted(names ^ set(runs))]
    for name in sorted(names & set(runs)):
        first, second = map(content, runs[name])
        found += [f"{name}: {key}" for key in first.keys() | second.keys() if first.get(key) != second.get(key)]
    return found


def searches(tree: Path) -> dict[str, Search]:
    """By name; raises InputError if a record cannot be read."""
    found = map(read, (tree / "sweeps").iterdir())
    return {search.name: search for search in found if search}


def search_differences(one: Path, other: Path) -> list[str]:
    first, second = searches(one), searches(other)
    found = [f"{name}: another search" for name in first.keys() & second if first[name] != second[name]]
    for name, search in second.items():
        states = [trial.state for trial in search.trials]
        found += [f"{name}: {states}"] if states != ["finished"] * search.total else []
    for path in other.glob("sweeps/*/study.db"):
        with closing(sqlite3.connect(path)) as study:
            states = [state for (state,) in study.execute("SELECT state FROM trials")]
        found += [f"{path}: {states}"] if set(states) != {"COMPLETE"} else []
    return found


def trained_by(tree: Path) -> list[str]:
    """The processes that ended the runs."""
    return sorted({f"{status['host']}:{status['pid']}" for status in map(_status, run_dirs(tree))})


def _status(run: RunDir) -> dict[str, object]:
    return dict(json.loads(run.status.read_bytes()))


def main(one: Path, other: Path) -> int:
    found = differences(one, other) + search_differences(one, other)
    for search in searches(other).values():
        best = search.ranked()[0]
        print(f"{len(search.finished)} trials finished; the best is {dict(best.params)}, {best.values}")
    print("\n".join(found) or f"{len(list(run_dirs(one)))} runs are identical, bit for bit; trained by")
    for tree in (one, other):
        print(f"  {tree.name}: {' '.join(trained_by(tree))}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
