"""A study's tables, and any other comparison of two sets of keys.

    table    metrics of a study's cells, beside its reference's numbers
    pivot    any run metric over any keys
    Table    the result; renders as Markdown, LaTeX and CSV

A cell is one configuration, its seeds the sample: mean ± half-width of the 95 % t interval. Configurations are never
averaged with one another. What is missing, unfinished or diverged is marked in the cell where it belongs.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.read.filters import known
from sweeps.runs.errors import InputError
from sweeps.show.render import Cell, Row, Table
from sweeps.study.hypotheses import Settings
from sweeps.study.select import equals, others, select
from sweeps.study.study import Metric, Study, TableSpec

_OF_A_RUN = {
    "epoch_seconds": (
        "median",
        "Seconds per epoch: the median over a run's epochs, training alone, on the machine and with the load it had.",
    ),
    "total_seconds": ("sum", "Seconds: of all of a run's epochs."),
}
"""Columns that a run has one of: what of its epochs it is, and a note."""

_EXTREME = "\x1fextreme"  # a column of no other name


def table(study: Study, spec: TableSpec, collection: Collection) -> Table:
    """One of the study's tables: metrics as rows, cells as columns. Extremes that were not recorded have no row."""
    cells: list[Settings] = [*spec.cells, *_beyond(study, spec, collection)]
    labels = [study.label(cell) for cell in cells]
    samples = [select(study, collection.runs, cell) for cell in cells]
    every = pd.concat(samples)
    every = every[~every["run"].duplicated()]
    horizon = summary.horizon(every)
    rows: list[Row] = []
    for name, word in spec.metrics.items():
        metric = study.metric(name)
        numbers = [spec.reference.get(label, {}).get(name) for label in labels]
        before = len(rows)
        for of, column in _columns(spec, metric, collection):
            found = samples
            if column == _EXTREME:
                extremes = _extremes(metric, replace(collection, runs=every))
                found = [sample.assign(**{_EXTREME: sample["run"].map(extremes)}) for sample in samples]
            shown = tuple(
                _cell(sample, column, horizon, metric.digits, number, name)
                for sample, number in zip(found, numbers, strict=True)
            )
            is_optional = column == _EXTREME or name in _OF_A_RUN  # a program need not record steps or times
            if not is_optional or any(cell.n for cell in shown):
                rows.append(Row(("" if len(rows) > before else word, of), shown))
        if study.reference and any(number is not None for number in numbers):
            texts = ("" if number is None else f"{number:.{metric.digits}f}" for number in numbers)
            rows.append(Row(("", study.reference.name), tuple(texts)))
    return Table(
        name=spec.name,
        title=spec.title,
        stub=("Metric", "Of"),
        columns=tuple(labels),
        rows=tuple(rows),
        notes=tuple(_notes(study, spec, collection, every, horizon)),
        panel=spec.panel or len(cells),
    )


def _beyond(study: Study, spec: TableSpec, collection: Collection) -> list[Settings]:
    """Cells at values of a table's only axis that the study does not name, but that have been run."""
    return [] if spec.axis is None else [{spec.axis: value} for value in others(study, collection.runs, spec.axis)]


def _columns(spec: TableSpec, metric: Metric, collection: Collection) -> list[tuple[str, str]]:
    """The rows of a metric: what they are of, and the column of ``runs`` that has it."""
    if metric.name in _OF_A_RUN:
        return [(_OF_A_RUN[metric.name][0], metric.name)]
    last = summary.column_of(metric.name, collection.runs)
    columns = {"last": ("last epoch", last), "best": ("best epoch", f"best_{last}"), "extreme": ("extreme", _EXTREME)}
    return [columns[place] for place in spec.at]


def _extremes(metric: Metric, collection: Collection) -> "pd.Series[float]":
    """Run → the metric's extreme over its steps or epochs; no runs where that is not recorded."""
    rows, name = (collection.epochs, metric.name) if metric.steps is None else (collection.steps(), metric.steps)
    if name not in rows:
        return pd.Series(dtype=float)
    if metric.epochs is not None:
        rows = rows[rows["epoch"] <= metric.epochs]
    values = rows.groupby("run")[name]
    return values.max() if metric.maximize else values.min()


def _notes(study: Study, spec: TableSpec, collection: Collection, every: pd.DataFrame, horizon: int) -> Iterable[str]:
    yield _sample_note(every, horizon)
    if study.reference and spec.reference:
        yield f"In brackets: ours minus the {study.reference.name}'s."
        yield from study.reference.notes
        if 0 < horizon != study.epochs:
            epochs = f"Ours are after {horizon} epochs, the {study.reference.name}'s after {study.epochs}"
            yield f"{epochs}: no fair comparison."
    judged, maximize = summary.judged(collection)
    if "best" in spec.at and judged is not None:
        extreme = "highest" if maximize else "lowest"
        yield f"The best epoch is the first of the {extreme} {study.metric(judged).title}."
    yield from (note for name, (_, note) in _OF_A_RUN.items() if name in spec.metrics)
    absent = [name for name in spec.metrics if name not in collection.epochs and name not in _OF_A_RUN]
    if absent and len(every):
        yield f"No run logs {', '.join(absent)}."
    yield from spec.notes


def pivot(
    c: Collection,
    rows: Sequence[str],
    cols: Sequence[str],
    values: Sequence[str],
    *,
    baseline: Settings | None = None,
) -> Table:
    """Run metrics over the values of any keys: ``pivot(c, ["activ"], ["model", "optim"], ["test_acc"])``.

    Args:
        baseline: a key that is in neither ``rows`` nor ``cols``, but varies, is held at its value here.

    Raises:
        InputError: no such column, not a column of numbers, or a key varies that has no runs at the baseline.
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
    runs, notes = _at_base(runs, keys, baseline or {})
    notes += _kinds_note(runs, values)
    groups = {_words(group): cell for group, cell in runs.groupby(keys, dropna=False, sort=False)}
    row_keys, col_keys = (_combinations(runs, chosen) for chosen in (rows, cols))
    horizon = summary.horizon(runs)
    body = tuple(
        Row(
            (*row, value) if len(values) > 1 else row,
            tuple(_cell(groups.get((*row, *col), runs[:0]), value, horizon, _digits(value)) for col in col_keys),
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
        notes=(*notes, _sample_note(runs, horizon), *_shorter_note(runs, horizon)),
    )


# ------------------------------------------------------------------------------------------------ from runs to cells


def _cell(
    runs: pd.DataFrame, column: str, horizon: int, digits: int, reference: float | None = None, name: str | None = None
) -> Cell:
    """One configuration's runs as one cell: those that came to ``horizon`` or their end, and a mark for all others."""
    name = name or column
    varying = _varying(runs, summary.identity_columns(runs.drop(columns=_EXTREME, errors="ignore")))
    if varying:
        return Cell(name, digits, reference=reference, marks=(f"mixed: {', '.join(varying)}",))
    diverged, whole = runs["state"] == "diverged", summary.whole(runs, horizon)
    sample = runs.loc[whole, column].dropna() if column in runs else pd.Series(dtype=float)
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
    return Cell(name, digits, mean, half, len(sample), reference, tuple(marks))


def _sample_note(runs: pd.DataFrame, horizon: int) -> str:
    if not len(runs):
        return "No runs."
    return (
        f"{len(runs)} run{'s' * (len(runs) > 1)}, after {horizon} epochs. "
        "Mean over seeds ± half-width of the 95 % t interval; n is the number of seeds (n = 1: the value itself)."
    )


def _shorter_note(runs: pd.DataFrame, horizon: int) -> list[str]:
    """Where runs were asked to go less far than others, and so are in no mean."""
    shorter = runs[(runs["state"] == "finished") & (runs["target"] < horizon)]
    if not len(shorter):
        return []
    epoch = shorter["epoch"].min()
    return [f"Some runs were asked for fewer epochs; --epochs {epoch} compares all as of epoch {epoch}."]


def _kinds_note(runs: pd.DataFrame, values: Sequence[str]) -> list[str]:
    """Where ``loss`` is a key too and varies, runs' ``valid_loss`` are of different kinds."""
    keys = _varying(runs, summary.identity_columns(runs))
    kinds = [value for value in values if value.rpartition("_")[2] in keys]
    return [f"{', '.join(kinds)} of different kinds are different quantities, and not to be compared."] if kinds else []


def _at_base(runs: pd.DataFrame, free: Sequence[str], baseline: Settings) -> tuple[pd.DataFrame, list[str]]:
    """Only one configuration for each combination of the keys in ``free``; and what was held for that."""
    held = []
    for key in _varying(runs, [column for column in summary.identity_columns(runs) if column not in free]):
        if not _varies_within(runs, key, free):
            continue
        at_base = runs[:0]
        if key in baseline:
            is_option = "." in key and key.partition(".")[0] in baseline
            at_base = runs[equals(runs[key], baseline[key]) | (runs[key].isna() if is_option else False)]
        if not len(at_base):
            found = ", ".join(_word(value) for value in itertools.islice(runs[key].drop_duplicates(), 8))
            raise InputError(
                key,
                found,
                f"varies within the cells; add {key} to --rows or --cols, or choose one: {key}=…"
                + ("" if baseline else ", or name a study, whose baseline holds it"),
            )
        runs = at_base
        held.append(f"{key}={_word(baseline[key])}")
    return runs, [f"Held at the baseline: {', '.join(held)}."] if held else []


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
