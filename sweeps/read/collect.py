"""From run directories to two tidy tables, for everything that draws, tabulates or concludes.

    load   the tables, whole or filtered, as DataFrames: ``sweeps.load("outputs", "activ=gelu", "lr<=0.01")``
    write  the tables as Parquet and CSV

Accuracies are in percent, losses are means per image, times in seconds.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mlp.files import DamagedRun, read_file, write_atomic
from mlp.reading import printable
from mlp.runs import Epoch
from mlp.schema import InputError, integer, suggest
from sweeps.read import filters as words
from sweeps.read.snapshot import refresh

_METRICS = ("train_loss", "train_acc", "valid_loss", "valid_acc", "test_loss", "test_acc")

# The columns of ``runs``, in order; after the identity come the options that any run has, as ``activ.approximate``.
_IDENTITY: Mapping[str, str] = {
    "run": "str",
    "state": "str",
    "epoch": "int64",
    "target": "int64",
    "activ": "str",
    "loss": "str",
    "optim": "str",
    "model": "str",
    "layers": "int64",
    "data": "str",
    "lr": "float64",
    "wd": "float64",
    "mo": "float64",
    "bsz": "int64",
    "seed": "int64",
    "dtype": "str",
    "eval_train": "str",
    "init_std": "float64",
}
_MEASURED: Mapping[str, str] = {
    **dict.fromkeys(_METRICS, "float64"),
    "best_epoch": "float64",  # missing before the first epoch
    **dict.fromkeys((f"best_{metric}" for metric in _METRICS), "float64"),
    "epoch_seconds": "float64",
    "total_seconds": "float64",
}
_RECORDED: Mapping[str, str] = {
    **dict.fromkeys(
        ("started", "updated", "host", "error", "git_commit", "source_sha256", "python", "numpy", "cpu", "blas"), "str"
    ),
    "threads": "float64",  # missing where it is not recorded
    "path": "str",
}


@dataclass(frozen=True)
class Collection:
    """What was found."""

    runs: pd.DataFrame
    """One row per run, ordered by its id."""
    epochs: pd.DataFrame
    """One row per run and epoch: ``run``, then the fields of :class:`mlp.runs.Epoch`; ordered as ``runs``."""
    problems: tuple[str, ...]
    """One line for each directory that could not be read: "<dir>: <reason>"."""
    out: Path = Path("outputs")
    """The results tree that it is from."""


def load(out: str | Path = "outputs", *filters: str, sweep: str | None = None, epochs: int | None = None) -> Collection:
    """Everything under ``out``/runs that fulfils the filters. Only what changed since the last time is read again.

    Args:
        filters: ``"activ=relu,gelu"``, ``"lr<=0.01"``, ``"state!=failed"``; all must hold.
        sweep: only the runs of this sweep, by its manifest.
        epochs: every run as of this epoch: what came later is cut off, and a run that got as far is "finished".

    Raises:
        InputError: no such directory, sweep or column; a filter that cannot be read.
    """
    out = Path(out)
    conditions = words.parse(filters)
    if epochs is not None:
        epochs = integer(ge=1)("epochs", epochs)
    chosen = None if sweep is None else {run["run_id"] for run in read_manifest(out, sweep)["runs"]}
    found = refresh(out)

    runs = _table(found.rows, out)
    matrix, counts = found.epochs, found.counts
    if epochs is not None:
        matrix = matrix[matrix[:, 0] <= epochs]
        counts = np.minimum(counts, epochs)  # a run's epochs are 1, 2, 3, …
        runs.loc[counts == epochs, ["state", "target", "error"]] = ["finished", epochs, None]
    table = pd.DataFrame(matrix, columns=list(Epoch._fields)).astype({"epoch": "int64"})
    table.insert(0, "run", runs["run"].take(np.repeat(np.arange(len(runs)), counts)).reset_index(drop=True))
    runs["epoch"] = counts
    runs = _in_order(runs.assign(**_measure(table, counts)))

    kept = words.apply(runs, conditions)
    if chosen is not None:
        kept = kept[kept["run"].isin(chosen)]
    if len(kept) < len(runs):
        table = table[np.repeat(runs.index.isin(kept.index), counts)].reset_index(drop=True)
    problems = tuple(
        f"{printable(str(out))}/runs/{name}: {reason}"
        for name, reason in found.problems
        if chosen is None or name in chosen
    )
    return Collection(kept.reset_index(drop=True), table, problems, out)


def read_manifest(out: Path, name: str) -> dict[str, Any]:
    """A sweep's manifest: ``{"name", "created", "command", "runs": [{"run_id", "overrides", "epochs"}, …]}``.

    Raises:
        InputError: there is no such sweep (the message lists those there are), or its manifest is damaged.
    """
    sweeps = sorted(path.parent.name for path in (out / "sweeps").glob("*/manifest.json"))
    if name not in sweeps:
        raise InputError(
            "sweep", name, f"no such sweep in {out}{suggest(name, sweeps)}; known: {', '.join(sweeps) or 'none'}"
        )
    path = out / "sweeps" / name / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(read_file(path))
        if not all(isinstance(run["run_id"], str) for run in manifest["runs"]):
            raise ValueError("a run_id is not a text")
    except (OSError, DamagedRun, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError("sweep", name, f"{path} cannot be read ({error})") from None
    return manifest


def write(collection: Collection, out: Path) -> list[Path]:
    """The tables as ``out``/runs and ``out``/epochs, .parquet and .csv each; untouched where nothing changed.

    Returns:
        The four files.
    """
    written = []
    content = _fingerprint(collection)
    for name, table in (("runs", collection.runs), ("epochs", collection.epochs)):
        parquet, csv = out / f"{name}.parquet", out / f"{name}.csv"
        written += [parquet, csv]
        if csv.exists() and _fingerprint_of(parquet) == content:
            continue
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"sweeps": content})
        buffer = io.BytesIO()
        pyarrow.csv.write_csv(arrow, buffer, pyarrow.csv.WriteOptions(quoting_header="none"))
        write_atomic(csv, buffer.getvalue())
        buffer = io.BytesIO()
        pq.write_table(arrow, buffer)
        write_atomic(parquet, buffer.getvalue())  # last: its fingerprint vouches for the CSV as well
    return written


def _table(rows: list[dict[str, Any]], out: Path) -> pd.DataFrame:
    """The columns that are not measured, each of its own kind whatever the runs hold."""
    folder = printable(f"{out}/runs/")
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in {**_IDENTITY, **_RECORDED}}
    columns["path"] = [folder + row["run"] for row in rows]
    columns["epoch"] = [0] * len(rows)  # counted later
    table = pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in _kinds(columns)})
    options = sorted({name for row in rows for name in row if "." in name or name not in columns})
    return table.assign(**{name: _option([row.get(name) for row in rows]) for name in options})


def _kinds(columns: Mapping[str, Any]) -> list[tuple[str, Any]]:
    kinds = {**_IDENTITY, **_RECORDED}
    return [(name, kinds[name]) for name in columns]


def _option(values: list[Any]) -> "pd.Series[Any]":
    """A column of numbers if all of them are, of texts otherwise."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, (int, float)) for value in given):
        return pd.Series(values, dtype="int64" if all(isinstance(value, int) for value in values) else "float64")
    return pd.Series([value if value is None else str(value) for value in values], dtype="str")


def _measure(epochs: pd.DataFrame, counts: Any) -> dict[str, Any]:
    """Last and best metrics and times of each run; NaN for a run without epochs.

    Args:
        epochs: the rows of all runs, one run after the other.
        counts: (runs,) rows of each.
    """
    measured = {name: np.full(len(counts), np.nan) for name in _MEASURED}
    some = np.flatnonzero(counts)
    if not len(some):
        return measured
    run_of_row = np.repeat(np.arange(len(counts)), counts)
    last = np.cumsum(counts)[some] - 1
    valid_acc = epochs["valid_acc"].fillna(-np.inf).to_numpy()
    highest = np.maximum.reduceat(valid_acc, last + 1 - counts[some])
    is_best = valid_acc == np.repeat(highest, counts[some])
    _, best = np.unique(run_of_row[is_best], return_index=True)  # the first of each run
    best = np.flatnonzero(is_best)[best]
    for metric in _METRICS:
        values = epochs[metric].to_numpy()
        measured[metric][some], measured[f"best_{metric}"][some] = values[last], values[best]
    measured["best_epoch"][some] = epochs["epoch"].to_numpy()[best]
    measured["epoch_seconds"][some] = epochs["seconds"].groupby(run_of_row).median()
    measured["total_seconds"][some] = (epochs["seconds"] + epochs["eval_seconds"]).groupby(run_of_row).sum()
    return measured


def _in_order(runs: pd.DataFrame) -> pd.DataFrame:
    fixed = {**_IDENTITY, **_MEASURED, **_RECORDED}
    options = [column for column in runs.columns if column not in fixed]
    return runs[[*_IDENTITY, *options, *_MEASURED, *_RECORDED]]


def _fingerprint(collection: Collection) -> bytes:
    """Of both tables' contents; the epochs' run ids follow from ``runs``."""
    runs, epochs = collection.runs, collection.epochs
    total = hashlib.sha256(repr([*runs.dtypes.items()]).encode())
    total.update(pd.util.hash_pandas_object(runs, index=False).to_numpy().tobytes())
    for field in Epoch._fields:
        total.update(epochs[field].to_numpy().tobytes())
    return total.hexdigest().encode()


def _fingerprint_of(parquet: Path) -> bytes | None:
    try:
        return (pq.read_schema(parquet).metadata or {}).get(b"sweeps")
    except (OSError, pa.ArrowException):
        return None
