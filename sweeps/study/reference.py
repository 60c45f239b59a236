"""The curves of a study's reference: a CSV file, a row for each curve.

    metric    what it is of
    KEY       of the baseline, a column each: its value, as the study or its command has it; empty: the baseline's
    varied    a key whose value is in the column ``value``, instead of a column of its own
    0, 1, …   the metric's value after so many complete epochs; empty: none

The column ``figure`` says where it was published, and decides nothing.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.runs.errors import InputError
from sweeps.study.file import Study, written
from sweeps.study.hypotheses import Settings
from sweeps.study.select import equals


def curves(study: Study) -> pd.DataFrame:
    """A row for each curve of the reference: every key, ``metric``, and a column for each epoch (a whole number).

    Raises:
        InputError: the file is not such a table.
    """
    path = study.reference and study.reference.curves
    if not path:
        return pd.DataFrame(columns=["metric"])
    field = f"reference.curves ({path.name})"
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        reason = " ".join(str(error).split())
        raise InputError(field, path.name, f"cannot be read: {reason}") from None
    epochs = [column for column in table.columns if column.isdecimal()]
    others = {column for column in table.columns if column not in epochs} - {"metric", "figure", "varied", "value"}
    unknown = [*sorted(others - {*study.baseline}), *sorted({*table.get("varied", [])} - {*study.baseline, ""})]
    if "metric" not in table or not epochs or unknown:
        raise InputError(
            field,
            unknown[0] if unknown else ",".join(table.columns[:8]),
            f"must have columns metric, epochs (0, 1, …) and keys of the baseline, {', '.join(study.baseline)}",
        )
    found: dict[Any, Any] = {"metric": table["metric"]}
    for key in study.baseline:
        words = table.get(key, pd.Series("", index=table.index))
        if {"varied", "value"} <= {*table.columns}:
            words = words.where(table["varied"] != key, table["value"])
        found[key] = [_value(study, key, word) for word in words]
    for epoch in epochs:
        found[int(epoch)] = pd.to_numeric(table[epoch], errors="coerce")
        wrong = table[epoch][found[int(epoch)].isna() & (table[epoch] != "")]
        if len(wrong):
            raise InputError(f"{field}: epoch {epoch}", wrong.iloc[0], "must be a number")
    return pd.DataFrame(found)


def curve(study: Study, table: pd.DataFrame, settings: Settings, metric: str) -> pd.DataFrame:
    """Epoch and value of a cell's curve, ascending; no rows if the reference has none.

    Args:
        table: of :func:`curves`.
    """
    keep: npt.NDArray[np.bool_] = np.asarray(table["metric"] == metric, bool)
    for key, value in study.complete(settings).items():
        if key in table and keep.any():
            keep = keep & equals(table[key], value)
    row = table.loc[keep].drop(columns=["metric", *study.baseline], errors="ignore").head(1)
    points = {"epoch": [float(epoch) for epoch in row.columns], "value": row.to_numpy(float).ravel()}
    return pd.DataFrame(points if len(row) else {"epoch": [], "value": []}, dtype=float).dropna().sort_values("epoch")


def _value(study: Study, key: str, word: str) -> Any:
    """The study's value that is written so."""
    if word == "":
        return study.baseline[key]
    axis = study.axis(key)
    for value in (*axis.values, study.baseline[key]):
        if word in (written(value), axis.train.get(written(value))):
            return value
    try:
        return float(word)
    except ValueError:
        return word
