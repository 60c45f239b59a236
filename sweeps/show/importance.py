"""How much of a metric's variance each key explains, over the runs of any grid or search.

An analysis of variance with keys as factors: for any shape of a key's effect, each of its values has a mean of its
own. A key's share is the sum of squares that it adds to a linear model of main effects, averaged over the orders in
which the keys can be added (Lindeman, Merenda and Gold 1980; U. Grömping, J. Stat. Software 17(1), 2006; these are the
Shapley values of R²). In a balanced grid the order makes no difference, and the shares are those of the classical
analysis. In an unbalanced one, keys that vary together split what they explain together; no share is negative, and all
add up to 1.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.read.filters import known
from sweeps.runs.command import aligned
from sweeps.runs.errors import InputError

MOST_VALUES = 8
"""Numbers with more values are binned into this many groups, since a value with a single run would explain that run."""
_MOST_EXACT = 6  # keys of which every order is taken: 720
_SAMPLED = 32  # orders of more keys, and each of them backwards

INTERACTIONS, SEEDS, REST = "interactions", "seeds", "interactions and noise"

_Floats = npt.NDArray[np.float64]
_Explained = Callable[[frozenset[int]], _Floats]


def importance(collection: Collection, metric: str | None = None) -> pd.DataFrame:
    """The shares of a metric's variance, of runs that came to the end that the furthest of them was asked for.

    Args:
        metric: a column of numbers of ``collection.runs``; None takes the last value of what the runs judge by.

    Returns:
        A row for each key that varies, the largest share first, then what the keys do not explain one by one:
        ``interactions`` and ``seeds`` (runs that differ in nothing else), or both in one row if no configuration has
        two runs. Columns ``key``, ``values`` (how many; missing in the last rows), ``share`` (of 1), and ``chance``:
        the expected share of a key, or of the rest, without any effect.
        ``attrs`` has ``metric`` (the column), ``runs`` (how many count) and ``notes``, sentences on what is left out
        and what was done.

    Raises:
        InputError: no such column, fewer than three runs have it, no key varies, or the metric does not.
    """
    column = _column(collection, metric)
    runs, notes = _sample(collection.runs, column)
    keys, more = _keys(runs)
    factors = {key: _levels(runs[key]) for key in keys}
    grouped = [key for key in keys if factors[key].max() + 1 < runs[key].nunique(dropna=False)]
    notes += more + [f"{key}: {runs[key].nunique()} values in {factors[key].max() + 1} groups." for key in grouped]
    n = len(runs)
    y = _centred(runs[column].to_numpy(float), column)
    cells = runs.groupby(summary.identity_columns(runs), dropna=False, sort=False).ngroup().to_numpy()

    explained = _explained([*factors.values()], y)
    shares = _shapley(explained, len(keys))
    total = np.array([float(y @ y), n - 1.0])
    main = explained(frozenset(range(len(keys))))
    between = np.array([_between(cells, y), float(cells.max())])
    if len(keys) > _MOST_EXACT:
        notes.append(f"Of the orders of {len(keys)} keys {2 * _SAMPLED} are taken.")
    rows = [(key, int(factors[key].max()) + 1, *share / total) for key, share in zip(keys, shares, strict=True)]
    rows.sort(key=lambda row: -row[2])
    if cells.max() + 1 == n:
        rest = [(REST, None, *(total - main) / total)]
    else:
        rest = [(INTERACTIONS, None, *(between - main) / total), (SEEDS, None, *(total - between) / total)]
        rest = rest[len(keys) == 1 and not grouped :]  # one key has nothing to interact with
    table = pd.DataFrame([*rows, *rest], columns=["key", "values", "share", "chance"]).astype({"values": "Int64"})
    table[["share", "chance"]] = table[["share", "chance"]].clip(0.0, 1.0)  # from -1e-17
    table.attrs |= {"metric": column, "runs": n, "notes": notes}
    return table


def _column(collection: Collection, metric: str | None) -> str:
    runs = collection.runs
    metric = metric or summary.judged(collection)[0]
    if metric is None:
        raise InputError("metric", "none", "no run has one")
    column = known(summary.value_column(metric, collection), runs.columns)
    if not pd.api.types.is_numeric_dtype(runs[column]) or column in summary.identity_columns(runs):
        raise InputError("metric", metric, "must be a column of numbers that is measured, such as a metric")
    return column


def _sample(runs: pd.DataFrame, column: str) -> tuple[pd.DataFrame, list[str]]:
    """The runs that can be compared, and how many are left out for what reason."""
    diverged = runs["state"] == "diverged"
    horizon = summary.horizon(runs)
    ended = summary.whole(runs, horizon)
    valued = pd.Series(np.isfinite(runs[column].to_numpy(float)), index=runs.index)
    left_out = {
        "diverged": diverged,
        f"before epoch {horizon}": ~diverged & ~ended,
        f"without {column}": ended & ~valued,
    }
    counts = [f"{count} {reason}" for reason, rows in left_out.items() if (count := int(rows.sum()))]
    sample = runs[ended & valued]
    if len(sample) < 3:
        without = f" ({', '.join(counts)})" if counts else ""
        raise InputError("runs", len(sample), f"are too few to compare; at least 3 must have {column}{without}")
    return sample, [f"Left out: {', '.join(counts)}."] if counts else []


def _keys(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The keys that vary, but for those that only say again what another says; and a note on each of those."""
    varying = {
        key: pd.factorize(runs[key], use_na_sentinel=False)[0]
        for key in summary.identity_columns(runs)
        if runs[key].nunique(dropna=False) > 1
    }
    kept: list[str] = []
    notes = []
    for key, values in varying.items():
        group = key.partition(".")[0]
        is_option = group != key and group in varying and _decides(varying[group], values)
        same = group if is_option else next((k for k in kept if _decides(varying[k], values, both=True)), None)
        if same is None:
            kept.append(key)
        else:
            notes.append(f"{key} goes with {same}, value by value; what {same} explains may be its.")
    if not kept:
        raise InputError("key", "none", "varies among these runs; their seeds alone differ")
    return kept, notes


def _decides(a: npt.NDArray[np.intp], b: npt.NDArray[np.intp], *, both: bool = False) -> bool:
    """Whether each value of ``a`` goes with one of ``b``, and each of ``b`` with one of ``a``."""
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return pairs == a.max() + 1 and (not both or pairs == b.max() + 1)


def _levels(column: "pd.Series[Any]") -> npt.NDArray[np.intp]:
    """Number of each run's value; a missing one is a value too. Many numbers are grouped by rank."""
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > MOST_VALUES:
        column = pd.qcut(column, MOST_VALUES, labels=False, duplicates="drop")
    return pd.factorize(column, use_na_sentinel=False)[0]


def _centred(values: _Floats, column: str) -> _Floats:
    """(n,) around 0 with largest magnitude 1, so that no square overflows."""
    scale = np.abs(values).max()
    values = values / (scale or 1.0)
    values = values - values.mean()
    largest = np.abs(values).max()
    if largest <= 1e-12:
        raise InputError("metric", column, "is the same in all of these runs: there is nothing to explain")
    return np.asarray(values / largest, float)


def _between(cells: npt.NDArray[Any], y: _Floats) -> float:
    """Sum of squares of the cells' means."""
    return float((np.bincount(cells, y) ** 2 / np.bincount(cells)).sum())


def _explained(factors: Sequence[npt.NDArray[np.intp]], y: _Floats) -> _Explained:
    """Of any of the factors: [sum of squares that their main effects explain, degrees of freedom that they take]."""
    columns = [np.equal.outer(levels, np.arange(levels.max() + 1)).astype(float) for levels in factors]
    ends = np.cumsum([0, *(part.shape[1] for part in columns)])
    x = np.hstack(columns)
    x -= x.mean(axis=0)
    gram, moment = x.T @ x, x.T @ y

    @functools.cache
    def explained(chosen: frozenset[int]) -> _Floats:
        if not chosen:
            return np.zeros(2)
        at = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in sorted(chosen)])
        values, vectors = np.linalg.eigh(gram[np.ix_(at, at)])
        is_free = values > 1e-10 * values[-1]
        along = vectors[:, is_free].T @ moment[at]
        return np.array([float((along**2 / values[is_free]).sum()), float(is_free.sum())])

    return explained


def _shapley(explained: _Explained, count: int) -> _Floats:
    """(count, 2): what each factor adds, on the average over the orders in which they can be added."""
    added, taken = np.zeros((count, 2)), 0
    for order in _orders(count):
        before: frozenset[int] = frozenset()
        for i in order:
            added[i] += explained(before | {i}) - explained(before)
            before |= {i}
        taken += 1
    return added / taken


def _orders(count: int) -> Iterable[Sequence[int]]:
    if count <= _MOST_EXACT:
        return itertools.permutations(range(count))
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(count).tolist() for _ in range(_SAMPLED)]
    return [order for forth in drawn for order in (forth, forth[::-1])]


def to_text(table: pd.DataFrame) -> str:
    """The table in percent under a heading, its notes below."""
    values = table["values"].to_numpy(float, na_value=math.nan)
    counts = ["" if math.isnan(count) else f"{count:.0f}" for count in values]
    percents = [[f"{100 * value:.1f} %" for value in table[name]] for name in ("share", "chance")]
    words = zip(table["key"], counts, *percents, strict=True)
    heading = f"What {table.attrs['metric']} varies with, over {table.attrs['runs']} runs"
    below = ["", *table.attrs["notes"]] if table.attrs["notes"] else []
    return "\n".join([heading, "", aligned([["key", "values", "share", "chance"], *words]), *below])
