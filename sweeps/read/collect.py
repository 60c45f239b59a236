"""From run directories to two tidy tables, for figures, tables and verdicts.

    load   the tables, whole or filtered, as DataFrames: ``sweeps.load("outputs", "activ=gelu", "lr<=0.01")``
    write  the tables as Parquet and CSV

A run's metrics are what its program logs, by name; ``seconds`` and ``eval_seconds`` are times in seconds.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sweeps.read import filters as conditions
from sweeps.read import items, steps
from sweeps.read.snapshot import Snapshot, refresh
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import listed, opened, read_json, write_atomic
from sweeps.runs.reading import no_formula
from sweeps.runs.schema import integer, suggest

TIMES = ("seconds", "eval_seconds")
"""Metrics that are times: summed up in ``epoch_seconds`` and ``total_seconds``, not shown as last and best values."""

# The columns of ``runs`` that every run has, in order; configuration columns come after the first four, then the
# metrics around ``best_epoch``.
_STANDING: Mapping[str, str] = {"run": "str", "state": "str", "epoch": "int64", "target": "int64"}
_MEASURED = ("best_epoch", "epoch_seconds", "total_seconds")  # float64, missing before the first epoch
_RECORDED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "started",
            "updated",
            "host",
            "worker",
            "error",
            "git_commit",
            "source_sha256",
            "python",
            "numpy",
            "cpu",
            "blas",
        ),
        "str",
    ),
    "threads": "float64",  # missing where it is not recorded
    "path": "str",
    "program": "str",
    "tags": "str",  # with commas between them
    "note": "str",
}
OWN = (*_STANDING, *_MEASURED, *_RECORDED)
"""Columns of ``runs`` that are neither of the configuration nor a metric's last or best value."""


@dataclass(frozen=True)
class Collection:
    """The runs of a results tree."""

    runs: pd.DataFrame
    """One row per run, ordered by its id."""
    epochs: pd.DataFrame
    """A row per run and epoch: ``run``, ``epoch``, then every metric, NaN where a run has none; in the runs' order."""
    problems: tuple[str, ...]
    """One line for each directory that could not be read: "<dir>: <reason>"."""
    out: Path = Path("outputs")
    """The results tree."""
    metric: str | None = None
    """The metric that judges an epoch, in most of the runs; None if no run records one."""
    maximize: bool = True
    """Whether its highest value is the best."""

    def steps(self) -> pd.DataFrame:
        """What the runs logged within epochs, read on demand: a row per run, epoch and step, then every metric."""
        return steps.load(self.out, self._last_epochs())

    def items(self, name: str) -> pd.DataFrame:
        """The items of the runs' last epochs, read on demand: a row per run, a column per item.

        Raises:
            InputError: no run has logged such items, or not all are of the same data.
        """
        return items.load(self.out, self._last_epochs(), name)

    def _last_epochs(self) -> dict[str, int]:
        return dict(zip(self.runs["run"], self.runs["epoch"], strict=True))


def load(out: str | Path = "outputs", *filters: str, sweep: str | None = None, epochs: int | None = None) -> Collection:
    """All runs under ``out``/runs that pass the filters. Only files that changed are read again.

    Args:
        filters: ``"activ=relu,gelu"``, ``"lr<=0.01"``, ``"state!=failed"``; all must hold.
        sweep: only the runs of this sweep, by its manifest.
        epochs: every run as of this epoch: later epochs are cut off, a run that got this far is "finished", and none
            was asked for more.

    Raises:
        InputError: no such directory, sweep or column; a filter that cannot be read.
    """
    out = Path(out)
    wanted = conditions.parse(filters)
    if epochs is not None:
        epochs = integer(ge=1)("epochs", epochs)
    chosen = None if sweep is None else {run["run_id"] for run in read_manifest(out, sweep)["runs"]}
    found = refresh(out)
    matrix, counts = found.epochs, found.counts
    if epochs is not None:
        matrix = matrix[matrix[:, 0] <= epochs]
        counts = np.minimum(counts, epochs)  # a run's epochs are 1, 2, 3, …
    judges = [_judge(row, logged) for row, logged in zip(found.rows, found.logged, strict=True)]
    runs = _runs(found, out, counts, _measure(matrix, found.columns, counts, judges))
    if epochs is not None:
        runs.loc[counts == epochs, ["state", "error"]] = ["finished", None]
        runs["target"] = runs["target"].clip(upper=epochs)
    table = pd.DataFrame(matrix, columns=found.columns)
    table.insert(0, "run", runs["run"].take(np.repeat(np.arange(len(runs)), counts)).reset_index(drop=True))
    table = table.astype({"epoch": "int64"})  # last: it takes the columns apart, and pandas warns of a hundred

    kept = conditions.apply(runs, wanted)
    if chosen is not None:
        kept = kept[kept["run"].isin(chosen)]
    if len(kept) < len(runs):
        table = table[np.repeat(runs.index.isin(kept.index), counts)].reset_index(drop=True)
    problems = tuple(
        f"{printable(str(out))}/runs/{name}: {reason}"
        for name, reason in found.problems
        if chosen is None or name in chosen
    )
    metric, maximize = _most_common(judges[i] for i in kept.index)
    return Collection(kept.reset_index(drop=True), table, problems, out, metric, maximize)


def sweep_names(out: Path) -> list[str]:
    """The sweeps of a results tree."""
    try:
        return [entry.name for entry in listed(out, "sweeps") if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def find_sweep(out: Path, name: str) -> str:
    """The whole name of the sweep of that name, or of the only one whose name begins so.

    Raises:
        InputError: there is no such sweep, or several; the message lists them.
    """
    sweeps = sweep_names(out)
    if name in sweeps:
        return name
    found = [sweep for sweep in sweeps if name and sweep.startswith(name)]
    if len(found) > 1:
        raise InputError("sweep", name, f"is the beginning of several: {', '.join(found)}")
    if not found:
        raise InputError(
            "sweep", name, f"no such sweep in {out}{suggest(name, sweeps)}; known: {', '.join(sweeps) or 'none'}"
        )
    return found[0]


def read_manifest(out: Path, name: str) -> dict[str, Any]:
    """A sweep's manifest: ``{"name", "created", "command", "runs": [{"run_id", "overrides", "epochs"}, …]}``.

    Args:
        name: as for :func:`find_sweep`.

    Raises:
        InputError: there is no such sweep, or its manifest is damaged.
    """
    path = out / "sweeps" / find_sweep(out, name) / "manifest.json"
    try:
        manifest: dict[str, Any] = read_json(path)
        if not all(isinstance(run["run_id"], str) for run in manifest["runs"]):
            raise ValueError("a run_id is not a text")
    except (OSError, DamagedRun, ValueError, TypeError, LookupError) as error:
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
        plain = pa.Table.from_pandas(without_formulas(table), preserve_index=False)
        pyarrow.csv.write_csv(plain, buffer, pyarrow.csv.WriteOptions(quoting_header="none"))
        write_atomic(csv, buffer.getvalue())
        buffer = io.BytesIO()
        pq.write_table(arrow, buffer)
        write_atomic(parquet, buffer.getvalue())  # last: its fingerprint covers the CSV as well
    return written


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table for CSV, with text that cannot be a formula in a spreadsheet."""

    def harmless(value: Any) -> Any:
        return no_formula(value) if isinstance(value, str) else value

    texts: dict[Any, Any] = {
        name: column.map(harmless)
        for name, column in table.items()
        if not pd.api.types.is_numeric_dtype(column.dtype) and any(harmless(value) is not value for value in column)
    }
    return table.assign(**texts).rename(columns=harmless)


_LARGEST_TABLE = 2**36  # bytes; only its end is read

_Judge = tuple[str | None, bool]
"""The metric that judges an epoch, and whether its highest value is the best."""


def _judge(row: Mapping[str, Any], logged: Sequence[str]) -> _Judge:
    """As the run records it; a run of release 0.1 records none, and is judged by its validation accuracy."""
    if row["program"] is None and row["metric"] is None:
        return ("valid_acc" if "valid_acc" in logged else None), True
    return row["metric"], row["maximize"]


def _most_common(judges: Iterable[_Judge]) -> _Judge:
    counted = Counter(judge for judge in judges if judge[0] is not None)
    return counted.most_common(1)[0][0] if counted else (None, True)


def _runs(found: Snapshot, out: Path, counts: Any, measured: "_Measured") -> pd.DataFrame:
    """The table of runs: no key of a configuration and no metric takes the name of another column.

    Args:
        counts: (runs,) epochs of each.
        measured: of :func:`_measure`.
    """
    folder = printable(f"{out}/runs/")
    standing = {
        "run": found.names,
        "state": [row["state"] for row in found.rows],
        "epoch": counts,
        "target": [row["target"] for row in found.rows],
    }
    recorded = {name: [row.get(name) for row in found.rows] for name in _RECORDED}
    recorded["path"] = [folder + name for name in found.names]

    metrics = [name for name in found.columns if name not in ("epoch", *TIMES)]
    ruled = {key for row in found.rows if row["ruled"] for key in row["config"] if "." not in key}
    names = _metric_names(metrics, {*OWN, *conditions.TAGS, *ruled})
    taken = {*OWN, *conditions.TAGS, *TIMES, *names.values(), *(f"best_{name}" for name in names.values())}
    keys = _key_names(dict.fromkeys(key for row in found.rows for key in row["config"]), taken)

    columns: dict[str, Any] = {name: pd.Series(standing[name], dtype=kind) for name, kind in _STANDING.items()}
    columns |= {column: _column([row["config"].get(key) for row in found.rows]) for key, column in keys.items()}
    columns |= {names[metric]: measured.last[metric] for metric in metrics}
    columns["best_epoch"] = measured.best["epoch"]
    columns |= {f"best_{names[metric]}": measured.best[metric] for metric in metrics}
    columns |= {"epoch_seconds": measured.epoch_seconds, "total_seconds": measured.total_seconds}
    columns |= {name: pd.Series(recorded[name], dtype=kind) for name, kind in _RECORDED.items()}
    return pd.DataFrame(columns)


def _metric_names(metrics: Sequence[str], reserved: Iterable[str]) -> dict[str, str]:
    """Metric → its column of ``runs``: its own name, or ``metric.<name>`` where that or ``best_<name>`` is taken."""
    taken, bests = set(reserved), {f"best_{metric}" for metric in metrics}
    found = {}
    for metric in metrics:
        column = metric
        while column in taken or column in bests or f"best_{column}" in taken:
            column = f"metric.{column}"
        found[metric] = column
        taken |= {column, f"best_{column}"}
    return found


def _key_names(keys: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Configuration key → its column of ``runs``: its own name, or ``config.<key>`` where that is taken."""
    keys, taken = list(keys), set(taken)
    bests = {f"best_{name}" for name in (*keys, *taken)}  # a column with its best_ is a metric
    found = {}
    for key in [*(key for key in keys if "." not in key), *sorted(key for key in keys if "." in key)]:
        column = key
        while column in taken or column in bests:
            column = f"config.{column}"
        found[key] = column
        taken.add(column)
    return found


def _column(values: list[Any]) -> "pd.Series[Any]":
    """A column of numbers if all of them are, of texts otherwise."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, (int, float)) for value in given):
        return pd.Series(values, dtype="int64" if all(isinstance(value, int) for value in values) else "float64")
    return pd.Series([value if value is None else str(value) for value in values], dtype="str")


@dataclass
class _Measured:
    """Of each run: (runs,) float64, NaN for what a run does not have."""

    last: dict[str, npt.NDArray[np.float64]]
    """Column of the epochs → its value at the last epoch."""
    best: dict[str, npt.NDArray[np.float64]]
    """Column of the epochs → its value at the best epoch."""
    epoch_seconds: npt.NDArray[np.float64]
    """Median over the epochs."""
    total_seconds: npt.NDArray[np.float64]


def _measure(
    matrix: npt.NDArray[np.float64], columns: Sequence[str], counts: npt.NDArray[np.intp], judges: Sequence[_Judge]
) -> _Measured:
    """Last and best metrics and times of each run.

    Args:
        matrix: (epochs, columns) of all runs, one run after the other.
        counts: (runs,) epochs of each.
        judges: (runs,)
    """

    def nothing() -> npt.NDArray[np.float64]:
        return np.full(len(counts), np.nan)

    last, best_values = ({name: nothing() for name in columns} for _ in range(2))
    measured = _Measured(last, best_values, nothing(), nothing())
    some = np.flatnonzero(counts)
    if not len(some):
        return measured
    run_of_row = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)[some]
    best_run, best = _best_rows(matrix, columns, run_of_row, ends - counts[some], judges)
    for place, name in enumerate(columns):
        measured.last[name][some], measured.best[name][best_run] = matrix[ends - 1, place], matrix[best, place]
    times = [pd.Series(matrix[:, columns.index(name)]) for name in TIMES if name in columns]
    if times:
        spent = sum((column.fillna(0.0) for column in times[1:]), times[0].fillna(0.0))
        is_known = pd.concat(times, axis=1).notna().any(axis=1)
        measured.total_seconds[some] = spent.where(is_known).groupby(run_of_row).sum(min_count=1)
    if "seconds" in columns:
        measured.epoch_seconds[some] = times[0].groupby(run_of_row).median()
    return measured


def _best_rows(
    matrix: npt.NDArray[np.float64],
    columns: Sequence[str],
    run_of_row: npt.NDArray[np.intp],
    starts: npt.NDArray[np.intp],
    judges: Sequence[_Judge],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(run, row) of the first epoch at which each run's own metric is best; runs without one are not among them."""
    kinds = {judge: i for i, judge in enumerate(dict.fromkeys(judges))}
    kind = np.array([kinds[judge] for judge in judges], np.intp)[run_of_row]
    score = np.full(len(matrix), np.nan)
    for (metric, maximize), number in kinds.items():
        if metric in columns:
            values = matrix[:, columns.index(metric)]
            np.copyto(score, values if maximize else -values, where=kind == number)
    known = ~np.isnan(score)
    score[~known] = -np.inf
    highest = np.maximum.reduceat(score, starts)
    is_best = known & (score == np.repeat(highest, np.diff([*starts, len(matrix)])))
    rows = np.flatnonzero(is_best)
    runs, first = np.unique(run_of_row[rows], return_index=True)
    return runs, rows[first]


def _fingerprint(collection: Collection) -> bytes:
    """Of both tables' contents; the epochs' run ids follow from ``runs``."""
    runs, epochs = collection.runs, collection.epochs
    total = hashlib.sha256(repr([*runs.dtypes.items()]).encode())
    total.update(pd.util.hash_pandas_object(runs, index=False).to_numpy().tobytes())
    for column in epochs.columns[1:]:
        total.update(f"{column}\0".encode() + epochs[column].to_numpy().tobytes())
    return total.hexdigest().encode()


def _fingerprint_of(parquet: Path) -> bytes | None:
    try:
        with opened(parquet, _LARGEST_TABLE) as file:
            return (pq.read_schema(file).metadata or {}).get(b"sweeps")
    except (OSError, DamagedRun, pa.ArrowException):
        return None
