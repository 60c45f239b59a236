"""The runs of a study's cells, chosen from a collection's table of runs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.study.file import Study
from sweeps.study.hypotheses import Settings

FREE: Any = object()
"""A setting of this value frees its key."""


def select(study: Study, runs: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The runs that have the baseline's settings but for ``settings``.

    An option that a run does not have (``activ.approximate`` of a ReLU) is no obstacle. A run of another program, which
    lacks a key of the baseline, is none of them.

    >>> select(study, collection.runs, {"activ": "gelu", "model": "512x256"})   # one row per seed
    >>> select(study, collection.runs, {"lr": FREE})                            # the sweep over lr
    """
    keep = np.ones(len(runs), bool)
    for key, value in study.complete(settings).items():
        if value is FREE or (key not in runs.columns and "." in key):
            continue
        if key not in runs.columns:
            return runs[:0]
        keep &= _equals(runs[key], value) | (np.asarray(runs[key].isna(), bool) if "." in key else False)
    return runs[keep]


def _equals(column: "pd.Series[Any]", value: Any) -> npt.NDArray[np.bool_]:
    """Where a column has a value; numbers are equal up to rounding."""
    if value is None:
        return np.asarray(column.isna(), bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return np.asarray(column == value, bool)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.isclose(numbers, value, rtol=1e-9, atol=0)
