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
from sweeps.show.draw import varying

MOST_CURVES = 120  # configurations; a page with more opens slowly and shows less
MOST_SINGLES = 200  # runs that are curves of their own
MOST_RUNS = 10_000  # in the table of runs

_METRICS = ("train_loss", "train_acc", "valid_loss", "valid_acc", "test_loss", "test_acc", "seconds")
_DIGITS = 5
# Shown in the table of runs; the rest opens below a run's row.
_MAIN = ("run", "state", "epoch", "activ", "loss", "model", "optim", "lr", "wd", "mo", "bsz", "seed")
_MAIN_METRICS = ("train_acc", "valid_loss", "valid_acc", "best_valid_acc", "epoch_seconds")


def payload(collection: Collection) -> str:
    """``metrics``, ``groups`` (mean curves by configuration), ``singles`` (curves by run) and ``runs`` (the table).

    Values at epoch k stand at index k − 1. ``stops`` are the last epoch of each diverged run with its values there.
    """
    runs, epochs = collection.runs, collection.epochs
    keys = summary.identity_columns(runs)
    group = runs.groupby(keys, dropna=False, sort=False).ngroup()
    best = runs["best_valid_acc"].groupby(group).mean().sort_values(ascending=False, kind="stable")
    rank = pd.Series(range(len(best)), index=best.index)
    runs = runs.assign(group=group.map(rank))
    drawn = runs[runs["group"] < MOST_CURVES]
    epochs = epochs[epochs["run"].isin(drawn["run"])]
    metrics = _distinct(epochs)
    named = varying(runs) or ["activ"]
    content = {
        "metrics": [
            {"key": m, "title": k.title, "axis": k.axis, "scale": k.scale} for m in metrics for k in [style.METRICS[m]]
        ],
        "groups": _groups(drawn, epochs, metrics, named),
        "singles": _singles(drawn, epochs, metrics, named) if len(runs) <= MOST_SINGLES else [],
        "runs": _table(collection.runs.head(MOST_RUNS)),
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # neither </script> nor <!-- can end or change the element


def _label(run: "pd.Series[Any]", keys: Sequence[str]) -> str:
    return style.label(keys, [run[key] for key in keys])


def _distinct(epochs: pd.DataFrame) -> list[str]:
    """Without a validation split the test columns repeat the valid ones, and are left out."""
    same = epochs["test_loss"].equals(epochs["valid_loss"]) and epochs["test_acc"].equals(epochs["valid_acc"])
    return [metric for metric in _METRICS if not (same and metric.startswith("test_"))]


def _groups(
    runs: pd.DataFrame, epochs: pd.DataFrame, metrics: Sequence[str], named: Sequence[str]
) -> list[dict[str, Any]]:
    tables = {
        metric: dict(list(summary.curves(runs, epochs, ["group"], metric).groupby("group"))) for metric in metrics
    }
    last = epochs.drop_duplicates("run", keep="last").set_index("run")
    found = []
    for number, members in runs.groupby("group"):
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
    found = []
    for run in runs.sort_values(["group", "seed"], kind="stable").index:
        one = runs.loc[[run]]
        mine = rows.get(runs["run"][run], epochs.head(0))
        found.append(
            {
                "label": f"{_label(runs.loc[run], named)}, seed={runs['seed'][run]} ({runs['state'][run]})",
                "group": int(runs["group"][run]),
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


def _table(runs: pd.DataFrame) -> dict[str, Any]:
    """The runs by column; texts as indices into their different values."""
    columns = []
    for name in sorted(runs.columns, key=[*_MAIN, *_MAIN_METRICS, *runs.columns].index):
        column: dict[str, Any] = {"name": name, "main": name in (*_MAIN, *_MAIN_METRICS)}
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
