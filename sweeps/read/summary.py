"""Statistics over seeds, shared by tables, figures and claims.

A *cell* is a configuration without its seed; the seeds are its sample. Intervals are Student's t, which is wide
for few seeds (3 seeds have 2 degrees of freedom, t = 4.30) because so few say little about their own spread.
They cover initial weights and shuffles, on this training set and these test images; nothing else is resampled.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

# What stands for a configuration among the columns of ``Collection.runs``, beside the dotted options. ``layers``
# follows from ``model``; ``seed`` counts repetitions.
IDENTITY = ("activ", "loss", "optim", "model", "data", "lr", "wd", "mo", "bsz", "dtype", "eval_train", "init_std")

# The point about which the report varies one thing at a time (report §3.1), with the settings that DESIGN §5 adds.
BASE: Mapping[str, Any] = {
    "activ": "relu",
    "loss": "ce",
    "optim": "sgd",
    "model": "360",
    "data": "mnist",
    "lr": 0.01,
    "wd": 0.001,
    "mo": 0.9,
    "bsz": 200,
    "dtype": "float32",
    "eval_train": "running",
    "init_std": 0.01,
    "data.holdout": 0,
    "activ.approximate": "tanh",
    "loss.margin": 0.05,
}


def interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean.

    Args:
        values: (n,) independent values, e.g. one per seed; a NaN among them makes both results NaN.
        confidence: of the two-sided interval, between 0 and 1.

    Returns:
        (mean, half-width); the half-width is NaN for n < 2, and the mean too for n = 0.
    """
    sample = np.asarray(values, float).ravel()
    if not sample.size:
        return float("nan"), float("nan")
    mean = float(sample.mean())
    if sample.size < 2:
        return mean, float("nan")
    return mean, float(half_width(sample.std(ddof=1), sample.size, confidence))


def half_width(std: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95) -> npt.NDArray[np.float64]:
    """Half-width of Student's t interval from sample standard deviations and sizes; NaN where n < 2."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must be between 0 and 1")
    size = np.asarray(n, float)
    size = np.where(size < 2, np.nan, size)
    quantile = special.stdtrit(size - 1, 0.5 + confidence / 2)
    return np.asarray(quantile * np.asarray(std, float) / np.sqrt(size), float)


def p_above(values: npt.ArrayLike, bound: float, *, resolution: float = 0.0) -> float:
    """One-sided p-value of Student's t test against "the mean is at most ``bound``"; 1 for n < 2.

    Args:
        values: (n,) independent values.
        bound: ±inf is allowed: nothing is above inf, everything is above −inf.
        resolution: step to which the values are rounded. The sample's standard deviation counts as no less than
            that of a difference of two rounded numbers (step / √6): equal values do not prove absence of noise.
    """
    sample = np.asarray(values, float).ravel()
    if np.isinf(bound):
        return 1.0 if bound > 0 else 0.0
    if sample.size < 2 or not np.isfinite(sample).all():
        return 1.0
    error = max(float(sample.std(ddof=1)), resolution / np.sqrt(6)) / np.sqrt(sample.size)
    distance = float(sample.mean()) - bound
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(sample.size - 1, -distance / error))


def paired(a: pd.Series, b: pd.Series) -> pd.Series:
    """Differences a − b by seed, for the seeds that both have.

    Args:
        a, b: values indexed by seed. Nets of one shape and seed start from the same weights, and all of one seed
            see the same shuffles, so that the difference is less noisy than its parts.

    Raises:
        ValueError: a seed occurs twice, so that nothing can be paired.
    """
    for series in (a, b):
        if not series.index.is_unique:
            raise ValueError(f"seeds occur more than once: {sorted(series.index[series.index.duplicated()].unique())}")
    return (a - b.reindex(a.index))[a.index.isin(b.index)]


def identity_columns(runs: pd.DataFrame) -> list[str]:
    """The columns of ``runs`` that tell one cell from another: :data:`IDENTITY` and the dotted options."""
    return [column for column in runs.columns if column in IDENTITY or "." in column]


def at(runs: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """The runs at the base point, but for ``settings``; None frees a key.

    An option that a run does not have (a ReLU's ``activ.approximate``) is no obstacle.

    >>> at(collection.runs, activ="gelu", model="512x256")   # two layers of GeLU, one row per seed
    >>> at(collection.runs, lr=None)                         # the sweep over lr
    """
    keep = np.ones(len(runs), bool)
    for key, value in {**BASE, **settings}.items():
        if value is None or key not in runs.columns:
            continue
        column = runs[key]
        same = (
            np.isclose(column.astype(float), value, rtol=1e-9, atol=0) if isinstance(value, float) else column == value
        )
        keep &= np.asarray(same | column.isna() if "." in key else same, bool)
    return runs[keep]


def over_seeds(runs: pd.DataFrame, by: Sequence[str], values: Sequence[str], confidence: float = 0.95) -> pd.DataFrame:
    """Mean, half-width and sample size of run metrics in each group.

    Args:
        by: columns whose values make a group, e.g. ``identity_columns(runs)``; a missing option is a value too.
        values: columns of numbers.

    Returns:
        One row per group, indexed by ``by``; columns are pairs (value, "mean" | "half" | "n").
    """
    grouped = runs.groupby(list(by), dropna=False, observed=True)[list(values)]
    mean, std, n = grouped.mean(), grouped.std(ddof=1), grouped.count()
    half = pd.DataFrame(half_width(std, n, confidence), index=mean.index, columns=mean.columns)
    joined = pd.concat({"mean": mean, "half": half, "n": n}, axis=1).swaplevel(axis=1)
    return joined[[(value, part) for value in values for part in ("mean", "half", "n")]]


def curves(
    runs: pd.DataFrame, epochs: pd.DataFrame, by: Sequence[str], value: str, confidence: float = 0.95
) -> pd.DataFrame:
    """Learning curves over seeds: one row per group and epoch.

    Args:
        runs, epochs: as in ``Collection``; rows of other runs are left out.
        by: columns of ``runs`` whose values make a curve.
        value: a column of ``epochs``, e.g. ``valid_acc``.

    Returns:
        Columns ``by``, epoch, mean, half, n, ordered by them. n may fall along a curve: runs stop at different epochs.
    """
    rows = epochs[["run", "epoch", value]].merge(runs[["run", *by]], on="run")
    table = over_seeds(rows, [*by, "epoch"], [value], confidence)[value]
    return table.reset_index()
