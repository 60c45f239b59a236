"""The runs of a study's cells, chosen from a collection's table of runs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.study.hypotheses import Settings
from sweeps.study.study import Study

FREE: Any = object()
"""A setting of this value frees its key."""


def select(study: Study, runs: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The runs that have the baseline's settings but for ``settings``.

    A run may lack an option of a choice that the baseline names: a ReLU has no ``activ.approximate``. A run of another
    program, which lacks other keys of the baseline, is not chosen.

    >>> select(study, collection.runs, {"activ": "gelu", "model": "512x256"})   # one row per seed
    >>> select(study, collection.runs, {"lr": FREE})                            # the sweep over lr
    """
    keep = np.ones(len(runs), bool)
    for key, value in study.complete(settings).items():
        if value is FREE:
            continue
        is_option = "." in key and key.partition(".")[0] in study.baseline
        if key in runs.columns:
            keep &= equals(runs[key], value) | (np.asarray(runs[key].isna(), bool) if is_option else False)
        elif not is_option:
            return runs[:0]
    return runs[keep]


def others(study: Study, runs: pd.DataFrame, key: str) -> list[Any]:
    """The values of a key at the baseline that some run has and the study's axis has not, ascending."""
    if key not in runs.columns:
        return []
    column = select(study, runs, {key: FREE})[key].dropna()
    known = np.zeros(len(column), bool)
    for value in study.axis(key).values:
        known |= equals(column, value)
    return sorted(column[~known].unique(), key=lambda value: (isinstance(value, str), value))


def equals(column: "pd.Series[Any]", value: Any) -> npt.NDArray[np.bool_]:
    """Where a column has a value; numbers are equal up to rounding, and texts of other programs are none."""
    if value is None:
        return np.asarray(column.isna(), bool)
    if isinstance(value, bool):
        return np.asarray(column.astype("str").str.lower() == str(value).lower(), bool)
    if isinstance(value, (int, float)):
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
        return np.asarray(np.isclose(numbers, value, rtol=1e-9, atol=0), bool)
    return np.asarray(column == value, bool)
