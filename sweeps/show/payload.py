"""The data that the report page's script works on, as JSON that is safe inside a ``<script>`` element.

Tables are sent by column: a text is an index into its column's different values, what is the same in all runs is said
once, and the numbers of curves are float32 in base64, which is read without parsing.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.read import summary
from sweeps.read.collect import TIMES, Collection
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError, printable
from sweeps.runs.reading import read_composed
from sweeps.show.draw import kind_of, varying
from sweeps.show.importance import importance
from sweeps.show.listing import said_columns
from sweeps.study.study import Study

MOST_RUNS = 20_000  # of the table; a page with more takes seconds to open
MOST_NUMBERS = 1_000_000  # of the curves, 5 MB; longer ones are thinned
MOST_STEPPED = 200  # runs whose curves within epochs are read, too
MOST_STEP_NUMBERS = 50_000

_MOST_KEYS = 8  # of a configuration in the table of runs as it opens
_MOST_METRICS = 30
_FEWEST_POINTS = 8  # of a thinned curve
_LONGEST_NAME = 80
_LONGEST_TEXT = 1_000
_EXACT = 2**53  # beyond, a script's numbers skip some
_GREATEST = 3e38  # of float32, about


def payload(collection: Collection, study: Study | None = None) -> str:
    """``columns`` (of the runs), ``judged`` (the column that ranks them), ``metrics``, ``epochs`` and ``steps`` (the
    curves), ``importance``, and ``t`` (quantiles for 95 % intervals, by degrees of freedom).
    """
    whole = collection.runs
    runs = whole.head(MOST_RUNS)
    judged, maximize = summary.judged(collection)
    epochs = collection.epochs
    if len(runs) < len(whole):
        epochs = epochs[epochs["run"].isin(runs["run"])]
    metrics = distinct(epochs, judged)
    kinds = {metric: kind_of(metric, collection, study) for metric in metrics}
    curves = _curves(runs, epochs, metrics)
    steps = _steps(collection, runs) if len(runs) <= MOST_STEPPED else None
    columns = _columns(collection, study, runs, (judged, maximize))
    content = {
        "count": len(runs),
        "judged": None if judged is None else f"best_{summary.column_of(judged, runs)}",
        "columns": columns,
        "metric": judged,
        "metrics": [{"key": m, "title": k.title, "axis": k.axis, "scale": k.scale} for m, k in kinds.items()],
        "epochs": curves,
        "steps": steps,
        "importance": _importance(collection, columns),
        "t": [_round(float(summary.half_width(1.0, df + 1)) * math.sqrt(df + 1)) for df in range(1, 31)],
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # neither </script> nor <!-- can end or change the element


def distinct(epochs: pd.DataFrame, judged: str | None) -> list[str]:
    """The metrics to choose from. Test columns that repeat the valid ones, for want of a split, are left out."""
    metrics = [column for column in epochs.columns if column not in ("run", "epoch", "eval_seconds")]
    repeated = repeating(epochs)
    metrics = [metric for metric in metrics if metric not in repeated]
    return [metric for i, metric in enumerate(metrics) if i < _MOST_METRICS or metric in (judged, "seconds")]


def repeating(epochs: pd.DataFrame) -> set[str]:
    """``test_loss`` and ``test_acc`` where they repeat the valid ones, because the test set is what is "valid"."""
    is_same = all(summary.is_test(f"valid_{kind}", epochs) for kind in ("loss", "acc"))
    return {"test_loss", "test_acc"} if is_same else set()


def thinned(collection: Collection) -> int | None:
    """How many epochs of the longest curve are on the page, if not all."""
    runs = collection.runs.head(MOST_RUNS)
    epochs = collection.epochs
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    grid = _grid(last, len(runs), len(distinct(epochs, None)) + 1)
    return len(grid) if len(grid) < last else None


# -- runs ------------------------------------------------------------------------------------------------------------


def _columns(
    collection: Collection, study: Study | None, runs: pd.DataFrame, judge: tuple[str | None, bool]
) -> list[dict[str, Any]]:
    """The table of runs by column, as it is ordered on the page.

    ``kind`` is "key" (of the configuration), "seed", "measure" or "fact"; ``main`` columns are shown from the start.
    """
    judged, maximize = judge
    own = None if judged is None else summary.column_of(judged, runs)
    metric_of = {summary.column_of(metric, runs): metric for metric in collection.epochs.columns}
    measured = summary.metrics(runs)
    keys = summary.identity_columns(runs)
    files = _data_files(collection, runs, [key for key in varying(runs) if key.endswith("checksums")])
    repeating_metrics = repeating(collection.epochs)
    repeated = {column for column in measured if metric_of.get(column) in repeating_metrics}
    measures = [name for column in measured for name in (column, f"best_{column}") if column not in repeated]
    main = [*varying(runs)[:_MOST_KEYS], *said_columns(runs), *([own, f"best_{own}"] if own else []), "epoch_seconds"]
    order = ["run", *main, "state", "epoch", "seed", *keys, *measures, *runs.columns]
    skipped = {"path", *repeated, *(f"best_{column}" for column in repeated)}  # a path is a run's name again
    taken: set[str] = set()
    found = []
    for name in dict.fromkeys(column for column in order if column in runs.columns and column not in skipped):
        column: dict[str, Any] = {"name": _cut_name(name, taken), "kind": "fact", "main": name in main}
        if name in measures or name in ("epoch", "best_epoch", "epoch_seconds", "total_seconds"):
            metric = metric_of.get(name.removeprefix("best_") if name not in metric_of else name)
            kind = kind_of(metric, collection, study) if metric and name in measures else None
            column |= {
                "kind": "measure",
                "scale": kind.scale if kind else "linear",
                "high": kind is not None and (kind.scale == "accuracy" or (metric == judged and maximize)),
                "title": f"{kind.title}, {'last' if name in metric_of else 'best'} epoch" if kind else _SAID[name],
            }
        elif name in keys:
            column["kind"] = "key"
        elif name == "seed":
            column["kind"] = "seed"
        if name in files:
            column["name"] = _cut_name(f"{name.removesuffix('checksums')}path", taken)
        values = files[name] if name in files else runs[name]
        found.append(column | _values(values, exact=column["kind"] in ("key", "seed")))
    return found


_SAID = {
    "epoch": "epochs",
    "best_epoch": "best epoch",
    "epoch_seconds": "seconds per epoch",
    "total_seconds": "seconds in all",
}


def _data_files(collection: Collection, runs: pd.DataFrame, names: Sequence[str]) -> "dict[str, pd.Series[Any]]":
    """Columns of checksums as the names of the files, as far as a run of each says where it read them."""
    found = {}
    for name in names:
        words: dict[str, str] = {}
        for checksum, run in runs.dropna(subset=[name]).drop_duplicates(name)[[name, "run"]].itertuples(index=False):
            file = _file_of(RunDir.of(collection.out, run), name.split(".")[:-1])
            if file is not None:
                words[checksum] = file if file not in words.values() else f"{file} ({checksum})"
        if words:
            found[name] = runs[name].map(lambda value, words=words: words.get(value, value))
    return found


def _file_of(run: RunDir, group: Sequence[str]) -> str | None:
    node: Any = read_composed(run)
    for key in [*group, "path"]:
        node = node.get(key) if isinstance(node, dict) else None
    return printable(Path(node).name) or None if isinstance(node, str) else None


def _values(column: "pd.Series[Any]", exact: bool) -> dict[str, Any]:
    """``same`` (one value for all), ``values``, or ``words`` with ``values`` as indices into them."""
    values: list[Any]
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        values = [None if value is None or value != value else _cut(str(value), _LONGEST_TEXT) for value in column]
    elif pd.api.types.is_integer_dtype(column):
        values = column.tolist()
        if any(abs(value) > _EXACT for value in values):
            values = [str(value) for value in values]
    else:
        values = [_round(value, None if exact else 7) for value in column]
    words = list(dict.fromkeys(values))
    if len(words) <= 1:
        return {"same": words[0] if words else None}
    if any(isinstance(word, str) for word in words):
        place = {word: i for i, word in enumerate(words)}
        return {"words": words, "values": [place[value] for value in values]}
    return {"values": values}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _cut_name(name: str, taken: set[str]) -> str:
    """A column's name, cut so that it is still no other's."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    found, count = short, 1
    while found in taken:
        count += 1
        found = f"{short} ({count})"
    taken.add(found)
    return found


def _importance(collection: Collection, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measure → what explains its variance over all runs, or the reason why that is not known."""
    found: dict[str, Any] = {}
    for name in [column["name"] for column in columns if column["kind"] == "measure"][:_MOST_METRICS]:
        try:
            table = importance(collection, name)
        except InputError as error:
            found[name] = {"reason": _cut(str(error), _LONGEST_TEXT)}
            continue
        rows = table.astype({"values": object}).where(table.notna(), None).to_numpy().tolist()
        found[name] = {
            "runs": table.attrs["runs"],
            "notes": [_cut(note, _LONGEST_TEXT) for note in table.attrs["notes"]],
            "rows": [
                [_cut(key, _LONGEST_NAME), values, _round(share, 4), _round(chance, 4)]
                for key, values, share, chance in rows
            ],
        }
    return found


# -- curves ----------------------------------------------------------------------------------------------------------


def _curves(runs: pd.DataFrame, epochs: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    """``grid``, the epochs of all curves; ``counts``, how many of them each run has; ``columns``, run after run.

    ``seconds`` beside the metrics is the time since a run's start, where that is logged.
    """
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    grid = _grid(last, len(runs), len(metrics) + 1)
    times = [name for name in TIMES if name in epochs.columns]
    spent = epochs[times].sum(axis=1).groupby(epochs["run"]).cumsum() if times else None
    kept = np.isin(epochs["epoch"].to_numpy(), grid)
    counts = epochs.loc[kept, "run"].value_counts().reindex(runs["run"], fill_value=0)
    return {
        "grid": grid,
        "counts": counts.tolist(),
        "columns": {metric: _pack(epochs.loc[kept, metric]) for metric in metrics},
        "elapsed": None if spent is None else _pack(spent[kept]),
    }


def _grid(last: int, runs: int, columns: int) -> list[int]:
    """The epochs 1, 2, 3, …, last; of too many those that are as far apart on a logarithmic axis."""
    room = max(MOST_NUMBERS // max(runs * columns, 1), _FEWEST_POINTS)
    if last <= room:
        return list(range(1, last + 1))
    found = {1, last}
    for count in range(room, 4 * room):  # rounding makes some of them one
        found = {round(x) for x in np.geomspace(1, last, count)}
        if len(found) >= room:
            break
    return sorted(found)


def _steps(collection: Collection, runs: pd.DataFrame) -> dict[str, Any] | None:
    """What was logged within epochs: ``counts``, ``per`` (steps of an epoch), and ``columns``, run after run.

    ``places`` are the steps, from a run's beginning, once for all runs that have the same; ``of`` says which.
    """
    table = collection.steps()
    metrics = [name for name in table.columns if name not in ("run", "epoch", "step")][:_MOST_METRICS]
    if table.empty or not metrics:
        return None
    per = table.groupby("run")["step"].max()
    table = table.assign(at=(table["epoch"] - 1) * table["run"].map(per) + table["step"])
    room = max(MOST_STEP_NUMBERS // (len(runs) * len(metrics)), 50)
    every = max(math.ceil(float(table["run"].value_counts().max()) / room), 1)
    place = table.groupby("run").cumcount()
    table = table[place % every == every - 1] if every > 1 else table
    order = pd.Categorical(table["run"], categories=list(runs["run"]), ordered=True)
    table = table.assign(run=order).sort_values(["run", "at"], kind="stable")
    return {
        "counts": table["run"].value_counts().reindex(runs["run"], fill_value=0).tolist(),
        "per": [None if run not in per.index else int(per[run]) for run in runs["run"]],
        "every": every,
        **_places(table, runs),
        "columns": {metric: _pack(table[metric]) for metric in metrics},
    }


def _places(table: pd.DataFrame, runs: pd.DataFrame) -> dict[str, Any]:
    steps = {run: _pack(mine["at"]) for run, mine in table.groupby("run", observed=True)}
    different = list(dict.fromkeys(steps.values()))
    return {
        "places": different,
        "of": [different.index(steps[run]) if run in steps else None for run in runs["run"]],
    }


def _pack(values: "pd.Series[Any]") -> str:
    """Little-endian float32 in base64; NaN for what is not a finite number."""
    numbers: npt.NDArray[np.float64] = values.to_numpy(float)
    numbers = np.where(np.isfinite(numbers), np.clip(numbers, -_GREATEST, _GREATEST), np.nan)
    return base64.b64encode(numbers.astype("<f4").tobytes()).decode()


def _round(value: float, digits: int | None = 7) -> float | int | None:
    """So many significant digits, or all; null for what is not a finite number."""
    if not math.isfinite(value):
        return None
    short = value if digits is None else float(f"{value:.{digits}g}")
    return int(short) if float(short).is_integer() and abs(short) < _EXACT else float(short)
