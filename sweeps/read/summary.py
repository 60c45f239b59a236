"""Statistics over seeds, shared by tables and figures.

A *cell* is a configuration without its seed; the seeds are its sample. Intervals are Student's t, which is wide
for few seeds (3 seeds have 2 degrees of freedom, t = 4.30) because so few say little about their spread.
They cover initial weights and shuffles, on this training set and these test images; nothing else is resampled.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from sweeps.read.collect import OWN, TIMES, Collection


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


def metrics(runs: pd.DataFrame) -> list[str]:
    """The columns of ``runs`` that are a metric's value at the last epoch: those that have a best value too."""
    known = set(runs.columns)
    return [column for column in runs.columns if f"best_{column}" in known and column not in OWN]


def identity_columns(runs: pd.DataFrame) -> list[str]:
    """The columns of ``runs`` that tell one configuration from another, but for ``seed``, which counts repetitions."""
    measured = metrics(runs)
    others = {*OWN, *measured, *(f"best_{metric}" for metric in measured), "seed", *_derived(runs)}
    return [column for column in runs.columns if column not in others]


def has_networks(runs: pd.DataFrame) -> bool:
    """Whether any of the runs is a network's."""
    return {"activ", "loss", "optim", "model"} <= {*runs.columns} and bool(runs["activ"].notna().any())


def _derived(runs: pd.DataFrame) -> list[str]:
    """``layers``, where it only counts the widths in ``model``."""
    if not {"activ", "model", "layers"} <= {*runs.columns}:
        return []
    return ["layers"] if runs.loc[runs["activ"].isna(), "layers"].isna().all() else []


def judged(collection: Collection) -> tuple[str | None, bool]:
    """The metric to show by default, and whether its highest value is the best.

    That is what most of the runs judge by; of runs that do not say, ``valid_acc`` or the first metric they have.
    """
    if collection.metric is not None:
        return collection.metric, collection.maximize
    known = [column for column in collection.epochs.columns if column not in ("run", "epoch", *TIMES)]
    metric = "valid_acc" if "valid_acc" in known else next(iter(known), None)
    return metric, metric is not None and metric.endswith("acc")


def is_test(metric: str, epochs: pd.DataFrame) -> bool:
    """Whether a validation metric only repeats its test metric, because no validation data were split off."""
    other = re.sub(r"^val(id)?(?=[_/])", "test", metric)
    if other == metric or not {metric, other} <= {*epochs.columns}:
        return False
    return bool(epochs[metric].notna().any()) and epochs[metric].equals(epochs[other])


def column_of(metric: str, runs: pd.DataFrame) -> str:
    """The column of ``runs`` that has a metric's last value."""
    while f"best_{metric}" not in runs.columns and f"best_metric.{metric}" in runs.columns:
        metric = f"metric.{metric}"
    return metric


def value_column(value: str, collection: Collection) -> str:
    """The column of ``runs`` that ``value`` means: a metric, ``best_`` and a metric, or any other column as it is."""
    best, metric = ("best_", value.removeprefix("best_")) if value not in collection.epochs.columns else ("", value)
    if metric in collection.epochs.columns and metric not in ("run", "epoch"):
        column = best + column_of(metric, collection.runs)
        return column if column in collection.runs.columns else value
    return value


def horizon(runs: pd.DataFrame) -> int:
    """The epoch at which runs are compared: the furthest that any of them was asked for."""
    return int(runs["target"].max()) if len(runs) else 0


def whole(runs: pd.DataFrame, horizon: int) -> "pd.Series[bool]":
    """Which of the runs came to that epoch, or finished before it by their own decision; none that diverged."""
    stopped = (runs["state"] == "finished") & (runs["target"] >= horizon)
    return (runs["state"] != "diverged") & (stopped | (runs["epoch"] >= horizon))


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
    names = [f"\x1f{i}" for i in range(len(by))]  # a key may be called as one of the columns below
    keys = runs[["run", *by]].set_axis(["run", *names], axis=1)
    rows = epochs[["run", "epoch", value]].set_axis(["run", "epoch", "value"], axis=1).merge(keys, on="run")
    table = over_seeds(rows, [*names, "epoch"], ["value"], confidence)["value"].reset_index()
    return table.set_axis([*by, "epoch", "mean", "half", "n"], axis=1)
