"""``python compare.py TREE TREE``: do they hold the same runs, bit for bit but for their clocks?"""

import json
import sys
from pathlib import Path

import numpy as np

from mlp.runs import Epoch, RunDir, run_dirs

_CLOCK = [Epoch._fields.index(name) for name in ("seconds", "eval_seconds")]


def content(run: RunDir) -> dict[str, object]:
    """Everything that two runs of one identity must share: metrics.csv, parameters, optimizer state."""
    rows = [[text for i, text in enumerate(line.split(",")) if i not in _CLOCK] for line in run.metrics.open()]
    with np.load(run.checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["history"] = np.delete(arrays["history"], _CLOCK, axis=1)
    return {"metrics": rows} | {name: (array.dtype.str, array.tobytes()) for name, array in arrays.items()}


def differences(one: Path, other: Path) -> list[str]:
    runs = {run.path.name: (run, RunDir.of(other, run.path.name)) for run in run_dirs(one)}
    names = {run.path.name for run in run_dirs(other)}
    found = [f"{name}: in one tree alone" for name in sorted(names ^ set(runs))]
    for name in sorted(names & set(runs)):
        first, second = map(content, runs[name])
        found += [f"{name}: {key}" for key in first if first[key] != second.get(key)]
    return found


def trained_by(tree: Path) -> list[str]:
    """The processes that ended the runs."""
    return sorted({f"{status['host']}:{status['pid']}" for status in map(_status, run_dirs(tree))})


def _status(run: RunDir) -> dict[str, object]:
    return dict(json.loads(run.status.read_bytes()))


def main(one: Path, other: Path) -> int:
    found = differences(one, other)
    print("\n".join(found) or f"{len(list(run_dirs(one)))} runs are identical, bit for bit; trained by")
    for tree in (one, other):
        print(f"  {tree.name}: {' '.join(trained_by(tree))}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
