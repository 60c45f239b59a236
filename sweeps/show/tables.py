"""The report's two tables, the same for its three sweeps, and any other comparison of two sets of keys.

    table1, table2, sweep_table    ours at the last and the best epoch, beside the report's own figure
    pivot                          any run metric over any keys
    Table                          the result; renders as Markdown, LaTeX and CSV

A cell is one configuration, its seeds the sample: mean ± half-width of the 95 % t interval. Configurations are never
averaged with one another. What is missing, unfinished or diverged is marked in the cell where it belongs.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.read.filters import known
from sweeps.runs.errors import InputError
from sweeps.show.render import Cell, Row, Table

# (column of ``runs``, the report's word)
_METRICS = {
    "train_loss": "Train Loss",
    "train_acc": "Train Acc (%)",
    "test_loss": "Test Loss",
    "test_acc": "Test Acc (%)",
}
_TIME = "epoch_seconds"
_ACTIVATIONS = {"sigmoid": "Sigmoid", "relu": "ReLU", "gelu": "GeLU", "tanh": "Tanh"}
_LOSSES = {"euclidean": "Euclidean", "ce": "CE", "hinge": "Hinge"}
_DEPTHS = {"360": "1L", "512x256": "2L"}
_SWEEPS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "lr": ("Learning rate", (0.1, 0.01, 0.001, 0.0001)),
    "wd": ("Weight decay", (0.0, 0.001, 0.01, 0.1)),
    "mo": ("Momentum", (0.0, 0.1, 0.5, 0.9)),
}
_REPORT_EPOCHS = 100
_REPORT = (
    f"In brackets: ours minus the report's figure, which is one run's, of {_REPORT_EPOCHS} epochs; whether of the last "
    "or the best, it does not say."
)
_SECONDS = "Seconds per epoch: the median over a run's epochs, training alone, on the machine and with the load it had."


def table1(c: Collection) -> Table:
    """Activations × depth, with cross entropy (report §3.1)."""
    return _comparison(
        c,
        "table1",
        "Table 1: activations, with cross entropy",
        {f"{_DEPTHS[m]}+{word}": {"model": m, "activ": a} for m in _DEPTHS for a, word in _ACTIVATIONS.items()},
        _report_numbers()["activations"],
        panel=len(_ACTIVATIONS),
    )


def table2(c: Collection) -> Table:
    """Losses × depth, with ReLU (report §3.1)."""
    return _comparison(
        c,
        "table2",
        "Table 2: losses, with ReLU",
        {f"{_DEPTHS[m]}+{word}": {"model": m, "loss": a} for m in _DEPTHS for a, word in _LOSSES.items()},
        _report_numbers()["losses"],
        panel=len(_LOSSES),
        notes=(
            "Losses of different kinds are different quantities: compare them between depths, not with one another.",
        ),
    )


def sweep_table(c: Collection, key: str) -> Table:
    """The one-layer net over ``key``, one of lr, wd, mo, at the base point otherwise (report §3.4).

    The report prints numbers for the base point alone. Values beyond the report's that have been run come last.
    """
    word, values = _SWEEPS[key]
    c = summary.of_networks(c)
    others = sorted(set(summary.at(c.runs, **{key: None})[key]) - set(values))
    base = f"{key}={summary.BASE[key]:g}"
    return _comparison(
        c,
        key,
        f"{word}, one layer of ReLU with cross entropy",
        {f"{key}={value:g}": {key: value} for value in (*values, *others)},
        {base: _report_numbers()["activations"]["1L+ReLU"]},
        panel=6,
    )


TABLES: Mapping[str, Callable[[Collection], Table]] = {
    "table1": table1,
    "table2": table2,
    **{key: functools.partial(sweep_table, key=key) for key in _SWEEPS},
}


def pivot(c: Collection, rows: Sequence[str], cols: Sequence[str], values: Sequence[str]) -> Table:
    """Run metrics over the values of any keys: ``pivot(c, ["activ"], ["model", "optim"], ["test_acc"])``.

    A key that is in neither ``rows`` nor ``cols``, but varies, is held at its base point.

    Raises:
        InputError: no such column, not a column of numbers, or a key varies that has no runs at its base point.
    """
    runs = c.runs
    keys = [*rows, *cols]
    if not keys or not values:
        raise InputError("--rows", "", "give at least one key in --rows or --cols, and a metric in --values")
    for key in keys:
        if known(key, runs.columns) not in summary.identity_columns(runs):
            keys_there = ", ".join(summary.identity_columns(runs))
            raise InputError(key, "", f"is not part of a configuration; known: {keys_there}")
    if len(set(keys)) < len(keys):
        raise InputError("--cols", ",".join(cols), "has a key twice, or one that --rows has too")
    values = [summary.value_column(value, c) for value in values]
    for value in values:
        if not pd.api.types.is_numeric_dtype(runs[known(value, runs.columns)]):
            raise InputError("--values", value, "must be a column of numbers, such as a metric")
    runs, notes = _at_base(runs, keys)
    if summary.has_networks(runs) and _varying(runs, ["loss"]) and any("loss" in value for value in values):
        notes.append("Losses of different kinds are different quantities, and not to be compared.")
    groups = {_words(group): cell for group, cell in runs.groupby(keys, dropna=False, sort=False)}
    row_keys, col_keys = (_combinations(runs, chosen) for chosen in (rows, cols))
    horizon = _horizon(runs)
    body = tuple(
        Row(
            (*row, value) if len(values) > 1 else row,
            tuple(_cell(groups.get((*row, *col), runs[:0]), value, horizon) for col in col_keys),
        )
        for row in row_keys
        for value in values
    )
    columns = tuple(
        ", ".join(f"{k}={v}" for k, v in zip(cols, col, strict=True)) or ", ".join(values) for col in col_keys
    )
    return Table(
        name="pivot",
        title=f"{', '.join(values)} by {' and '.join(keys)}",
        stub=(*rows, "metric") if len(values) > 1 else tuple(rows),
        columns=columns,
        rows=body,
        notes=(*notes, _sample_note(runs, horizon)),
    )


# ------------------------------------------------------------------------------------------------ from runs to cells


def _comparison(
    c: Collection,
    name: str,
    title: str,
    columns: Mapping[str, Mapping[str, Any]],
    report: Mapping[str, Mapping[str, float]],
    *,
    panel: int,
    notes: tuple[str, ...] = (),
) -> Table:
    """Metrics as rows, configurations as columns.

    Args:
        columns: the settings of each column, where they differ from the base point.
        report: the report's figures by column and metric, as far as it has them.
    """
    runs = summary.of_networks(c).runs
    samples = {column: summary.at(runs, **settings) for column, settings in columns.items()}
    every = pd.concat(samples.values()) if samples else runs[:0]
    every = every[~every["run"].duplicated()]
    horizon = _horizon(every)

    def row(label: tuple[str, ...], value: str, metric: str) -> Row:
        figures = [report.get(column, {}).get(metric) for column in samples]
        pairs = zip(samples.values(), figures, strict=True)
        return Row(label, tuple(_cell(sample, value, horizon, figure) for sample, figure in pairs))

    def reported(label: tuple[str, ...], metric: str) -> Row:
        figures = (report.get(column, {}).get(metric) for column in samples)
        return Row(label, tuple("" if figure is None else f"{figure:.{_digits(metric)}f}" for figure in figures))

    body = []
    for metric, word in _METRICS.items():
        body += [row((word, "last epoch"), metric, metric), row(("", "best epoch"), f"best_{metric}", metric)]
        body += [reported(("", "report"), metric)]
    body += [row(("Time (s)/epoch", "median"), _TIME, _TIME), reported(("", "report"), _TIME)]
    if 0 < horizon != _REPORT_EPOCHS:
        notes = (f"Ours are after {horizon} epochs, the report's after {_REPORT_EPOCHS}: no fair comparison.", *notes)
    best = "The best epoch is the first of the highest valid accuracy, which in the report's protocol is test accuracy."
    return Table(
        name=name,
        title=title,
        stub=("Metric", "Of"),
        columns=tuple(samples),
        rows=tuple(body),
        notes=(_sample_note(every, horizon), _REPORT, best, _SECONDS, *notes),
        panel=panel,
    )


def _cell(runs: pd.DataFrame, value: str, horizon: int, report: float | None = None) -> Cell:
    """One configuration's runs as one cell: those that came to ``horizon`` or their end, and a mark for all others."""
    varying = _varying(runs, summary.identity_columns(runs))
    if varying:
        return Cell(value, _digits(value), report=report, marks=(f"mixed: {', '.join(varying)}",))
    diverged = runs["state"] == "diverged"
    stopped = (runs["state"] == "finished") & (runs["target"] >= horizon)  # if need be early, by its own decision
    whole = ~diverged & (stopped | (runs["epoch"] >= horizon))
    sample = runs.loc[whole, value].dropna()
    marks = []
    if diverged.any():
        marks.append(f"diverged ({diverged.sum()} of {len(runs)})")
    short = runs[~diverged & ~whole]
    if len(short):
        first, last = short["epoch"].min(), short["epoch"].max()
        seen = f"{first}" if first == last else f"{first}–{last}"
        failed = int((short["state"] == "failed").sum())
        some = f" ({len(short)} of {len(runs)})" if len(short) < len(runs) else ""
        marks.append(f"{seen}/{horizon} epochs{some}" + (f", {failed} failed" if failed else ""))
    mean, half = summary.interval(sample)
    return Cell(value, _digits(value), mean, half, len(sample), report, tuple(marks))


def _horizon(runs: pd.DataFrame) -> int:
    """The epoch at which a table compares: the furthest that any of its runs was asked for."""
    return int(runs["target"].max()) if len(runs) else 0


def _sample_note(runs: pd.DataFrame, horizon: int) -> str:
    if not len(runs):
        return "No runs."
    return (
        f"{len(runs)} run{'s' * (len(runs) > 1)}, after {horizon} epochs. "
        "Mean over seeds ± half-width of the 95 % t interval; n is the number of seeds (n = 1: the value itself)."
    )


def _at_base(runs: pd.DataFrame, free: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Only one configuration for each combination of the keys in ``free``; and what was held for that."""
    held = []
    for key in _varying(runs, [column for column in summary.identity_columns(runs) if column not in free]):
        if not _varies_within(runs, key, free):
            continue
        base = summary.BASE.get(key) if summary.has_networks(runs) else None  # the report's networks alone have one
        at_base = runs[(runs[key] == base) | (runs[key].isna() if "." in key else False)]
        if base is None or not len(at_base):
            found = ", ".join(_word(value) for value in itertools.islice(runs[key].drop_duplicates(), 8))
            raise InputError(
                key, found, f"varies within the cells; add {key} to --rows or --cols, or choose one: {key}=…"
            )
        runs = at_base
        held.append(f"{key}={_word(base)}")
    return runs, [f"Held at the base point: {', '.join(held)}."] if held else []


def _varies_within(runs: pd.DataFrame, key: str, free: Sequence[str]) -> bool:
    return bool((runs.groupby(list(free), dropna=False)[key].nunique(dropna=False) > 1).any())


def _varying(runs: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if runs[key].nunique(dropna=False) > 1]


def _combinations(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The values of the keys that occur together, in order; one empty combination without keys."""
    if not keys:
        return [()]
    table = runs[list(keys)].drop_duplicates().sort_values(list(keys))
    return [_words(row) for row in table.itertuples(index=False, name=None)]


def _words(values: Any) -> tuple[str, ...]:
    return tuple(_word(value) for value in values)


def _word(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:g}"
    return "–" if pd.isna(value) else str(value)


def _digits(metric: str) -> int:
    """Decimals: 2 for percent and seconds, as in the report; 4 for losses, and what is not known."""
    return 2 if metric.endswith(("_acc", "_seconds")) else 4


@functools.cache
def _report_numbers() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    numbers: Mapping[str, Mapping[str, Mapping[str, float]]] = yaml.safe_load(
        (Path(__file__).parent / "report_numbers.yaml").read_text(encoding="utf-8")
    )
    return numbers
