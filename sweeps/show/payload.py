"""The data that the report page's script works on, as JSON that is safe inside a ``<script>`` element."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.show import style
from sweeps.show.draw import kind_of, varying
from sweeps.show.listing import said_columns
from sweeps.study.file import Study

MOST_CURVES = 120  # configurations; a page with more opens slowly and shows less
MOST_SINGLES = 200  # runs that are curves of their own
MOST_RUNS = 10_000  # in the table of runs

_DIGITS = 5
_MOST_KEYS = 8  # of a configuration in the table of runs; the rest opens below a run's row
_MOST_METRICS = 30


def payload(collection: Collection, study: Study | None = None) -> str:
    """``metrics``, ``metric`` (to begin with), ``groups`` (mean curves by configuration), ``singles`` (curves by run)
    and ``runs`` (the table).

    Values at epoch k stand at index k − 1. ``stops`` are the last epoch of each diverged run with its values there.
    """
    runs, epochs = collection.runs, collection.epochs
    keys = summary.identity_columns(runs)
    group = runs.groupby(keys, dropna=False, sort=False).ngroup() if keys else pd.Series(0, index=runs.index)
    judged, maximize = summary.judged(collection)
    if judged is None:
        rank = pd.Series(range(group.max() + 1))
    else:
        best = runs[f"best_{summary.column_of(judged, runs)}"].groupby(group).mean()
        best = best.sort_values(ascending=not maximize, kind="stable")
        rank = pd.Series(range(len(best)), index=best.index)
    runs = runs.assign(**{_GROUP: group.map(rank)})
    drawn = runs[runs[_GROUP] < MOST_CURVES]
    epochs = epochs[epochs["run"].isin(drawn["run"])]
    metrics = _distinct(epochs, judged)
    named = varying(runs.drop(columns=_GROUP)) or keys[:1]
    kinds = {metric: kind_of(metric, collection, study) for metric in metrics}
    content = {
        "metric": judged,
        "metrics": [{"key": m, "title": k.title, "axis": k.axis, "scale": k.scale} for m, k in kinds.items()],
        "groups": _groups(drawn, epochs, metrics, named),
        "singles": _singles(drawn, epochs, metrics, named) if len(runs) <= MOST_SINGLES else [],
        "runs": _table(collection.runs.head(MOST_RUNS), _main(collection)),
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # neither </script> nor <!-- can end or change the element


_GROUP = "\x1fgroup"  # the column that numbers the configurations; no key is called so


def _label(run: "pd.Series[Any]", keys: Sequence[str]) -> str:
    return style.label(keys, [run[key] for key in keys]) or str(run["run"])


def _distinct(epochs: pd.DataFrame, judged: str | None) -> list[str]:
    """The metrics to choose from. Test columns that repeat the valid ones, for want of a split, are left out."""
    metrics = [column for column in epochs.columns if column not in ("run", "epoch", "eval_seconds")]
    if all(summary.is_test(f"valid_{kind}", epochs) for kind in ("loss", "acc")):
        metrics = [metric for metric in metrics if metric not in ("test_loss", "test_acc")]
    return [metric for i, metric in enumerate(metrics) if i < _MOST_METRICS or metric in (judged, "seconds")]


def _main(collection: Collection) -> list[str]:
    """The columns that the table of runs begins with."""
    runs = collection.runs
    judged, _ = summary.judged(collection)
    metric = [] if judged is None else [summary.column_of(judged, runs)]
    keys = [*varying(runs)[:_MOST_KEYS], *(["seed"] if "seed" in runs.columns else [])]
    best = [f"best_{name}" for name in metric]
    return ["run", "state", "epoch", *keys, *metric, *best, "epoch_seconds", *said_columns(runs)]


def _groups(
    runs: pd.DataFrame, epochs: pd.DataFrame, metrics: Sequence[str], named: Sequence[str]
) -> list[dict[str, Any]]:
    tables = {metric: dict(list(summary.curves(runs, epochs, [_GROUP], metric).groupby(_GROUP))) for metric in metrics}
    last = epochs.drop_duplicates("run", keep="last").set_index("run")
    found = []
    for number, members in runs.groupby(_GROUP):
        rows = {metric: table[number] for metric, table in tables.items() if number in table}
        states = members.loc[members["state"] != "finished", "state"].value_counts()
        ended = "".join(f", {count} {state}" for state, count in states.items())
        found.append(
            {
                "label": f"{_label(members.iloc[0], named)} (n = {len(members)}{ended})",
                "values": {metric: _short(rows[metric]["mean"]) if metric in rows else [] for metric in metrics},
                "half": {metric: _short(rows[metric]["half"]) if metric in rows else [] for metric in metrics},
                "stops": _stops(members, last, metrics),
            }
        )
    return found


def _singles(
    runs: pd.DataFrame, epochs: pd.DataFrame, metrics: Sequence[str], named: Sequence[str]
) -> list[dict[str, Any]]:
    last = epochs.drop_duplicates("run", keep="last").set_index("run")
    rows = dict(list(epochs.groupby("run")))
    seed = ["seed"] if "seed" in runs.columns else []
    found = []
    for run in runs.sort_values([_GROUP, *seed], kind="stable").index:
        one = runs.loc[[run]]
        mine = rows.get(runs["run"][run], epochs.head(0))
        found.append(
            {
                "label": f"{_label(runs.loc[run], [*named, *seed])} ({runs['state'][run]})",
                "group": int(runs[_GROUP][run]),
                "values": {metric: _short(mine[metric]) for metric in metrics},
                "stops": _stops(one, last, metrics),
            }
        )
    return found


def _stops(runs: pd.DataFrame, last: pd.DataFrame, metrics: Sequence[str]) -> list[list[Any]]:
    """[epoch, values there] of each diverged run; without an epoch the values are null."""
    stopped = runs[runs["state"] == "diverged"]
    ends = last.reindex(stopped["run"])
    return [
        [int(epoch), {metric: _round(end[metric]) for metric in metrics}]
        for epoch, (_, end) in zip(stopped["epoch"], ends.iterrows(), strict=True)
    ]


def _table(runs: pd.DataFrame, main: Sequence[str]) -> dict[str, Any]:
    """The runs by column, ``main`` first; texts as indices into their different values."""
    columns = []
    for name in sorted(runs.columns, key=[*main, *runs.columns].index):
        column: dict[str, Any] = {"name": name, "main": name in main}
        if pd.api.types.is_bool_dtype(runs[name]) or not pd.api.types.is_numeric_dtype(runs[name]):
            texts = [None if value is None or value != value else str(value) for value in runs[name]]
            words = list(dict.fromkeys(texts))
            place = {word: i for i, word in enumerate(words)}
            column |= {"words": words, "values": [place[text] for text in texts]}
        elif pd.api.types.is_integer_dtype(runs[name]):
            column["values"] = runs[name].tolist()
        else:
            column["values"] = _short(runs[name])
        columns.append(column)
    return {"count": len(runs), "columns": columns}


def _short(values: "pd.Series[Any] | npt.NDArray[Any]") -> list[float | None]:
    return [_round(value) for value in np.asarray(values, float)]


def _round(value: float) -> float | int | None:
    """Five significant digits, which is finer than any plot; null for what is not a finite number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short
