"""Runs on the screen: ``ls``, ``sweeps``, ``show``, ``diff`` and ``watch``.

In a terminal with rich, elsewhere as aligned plain text. What comes from run directories is shown as text alone:
never as markup, and with its control characters written out.
"""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.read.filters import known
from sweeps.runs import metrics, notes
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import read_json
from sweeps.runs.identity import flatten
from sweeps.runs.metrics import Row
from sweeps.runs.reading import read_identity
from sweeps.runs.status import State, Status

if TYPE_CHECKING:
    from sweeps.read.collect import Collection
    from sweeps.show.sparkline import Column

COLUMNS = ("run", "state", "epoch", "target", "lr", "wd", "mo", "seed", "test_acc", "best_test_acc", "epoch_seconds")
"""Of the report's networks; of other programs see :func:`default_columns`."""
_SCREENFUL = 200  # rows that a terminal gets unless --limit says otherwise
_LONGEST_NOTE = 60  # characters in a table
_COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "diverged": "magenta", "interrupted": "yellow"}


# ---------------------------------------------------------------------------------------------------------------- ls


def default_columns(collection: "Collection") -> list[str]:
    """How each run stands, who works on it, the keys that vary, the metric that judges, last and best, and notes."""
    from sweeps.read import summary

    runs = collection.runs
    said = said_columns(runs)
    standing = [*COLUMNS[:4], *(["worker"] if (runs["state"] == State.RUNNING).any() else [])]
    if {*COLUMNS, "activ"} <= {*runs.columns} and runs["activ"].notna().all():
        return [*standing, *COLUMNS[4:], *said]
    keys = [key for key in (*summary.identity_columns(runs), "seed") if key in runs and runs[key].nunique() > 1]
    metric, _ = summary.judged(collection)
    measured = [] if metric is None else [summary.column_of(metric, runs)]
    programs = ["program"] if runs["program"].nunique() > 1 else []
    best = [f"best_{name}" for name in measured]
    columns = [*standing, *programs, *keys, *measured, *best, "epoch_seconds", *said]
    return [column for column in columns if column in runs]


def said_columns(runs: pd.DataFrame) -> list[str]:
    """``tags`` and ``note``, where a run has them."""
    return [name for name in ("tags", "note") if runs[name].notna().any()]


def select(runs: pd.DataFrame, columns: Sequence[str], sort: str | None) -> pd.DataFrame:
    """The chosen columns, sorted by any column; ``-lr`` sorts downwards, and missing values come last.

    Raises:
        InputError: no such column.
    """
    if sort:
        key = known(sort.removeprefix("-"), runs.columns)
        runs = runs.sort_values(key, ascending=not sort.startswith("-"), kind="stable", na_position="last")
    return runs[[known(column, runs.columns) for column in columns]]


def print_runs(runs: pd.DataFrame, *, limit: int | None = None, beside: "Collection | None" = None) -> None:
    """A table in a terminal, aligned text elsewhere.

    Args:
        beside: whose runs these are: where a terminal has room, each has its curve and its size on disk beside it.
    """
    console = Console()
    if limit is None and console.is_terminal:
        limit = _SCREENFUL
    shown = runs if not limit else runs.head(limit)
    if "note" in shown:
        shown = shown.assign(note=shown["note"].map(_short, na_action="ignore"))
    body = [[_word(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    numeric = [pd.api.types.is_numeric_dtype(runs[column]) for column in runs.columns]
    if not console.is_terminal:
        print_aligned([list(runs.columns), *body], numeric)
    else:
        lines = [list(runs.columns), *body]
        if beside is not None:
            from sweeps.show.sparkline import columns

            names = beside.runs["run"][shown.index].tolist()
            lines, numeric = _widened(lines, numeric, columns(beside, names, console.encoding), console.width)
        console.print(_rich(lines[0], lines[1:], numeric))
    if len(shown) < len(runs):
        print(f"{len(runs) - len(shown)} more; --limit 0 shows all", file=sys.stderr)


def _widened(
    lines: list[list[str]], numeric: list[bool], more: "Iterable[Column]", width: int
) -> tuple[list[list[str]], list[bool]]:
    """The table with each further column that there is room for."""
    for title, cells, right in more:
        wider = [[*line, cell] for line, cell in zip(lines, [title, *cells], strict=True)]
        if sum(max(map(cell_len, column)) + 2 for column in zip(*wider, strict=True)) - 2 <= width:
            lines, numeric = wider, [*numeric, right]
    return lines, numeric


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NOTE else text[: _LONGEST_NOTE - 1] + "…"


def print_aligned(lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    """Columns two blanks apart, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        print("  ".join(cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells).rstrip())


def print_sweeps(out: Path) -> list[str]:
    """A line for each sweep, the last one that was started at the end; returns what cannot be read."""
    from sweeps.read.collect import read_manifest, sweep_names

    found, problems = [], []
    for name in sweep_names(out):
        try:
            found.append((name, read_manifest(out, name)))
        except InputError as error:
            problems.append(str(error))
    statuses = Watch(out).look() if found else {}
    found.sort(key=lambda sweep: str(sweep[1].get("updated")))
    body = [[printable(name), *_standing(manifest, statuses)] for name, manifest in found]
    header = ["sweep", "runs", "state", "workers", "started (UTC)", "command"]
    print_aligned([header, *body], [False, True, False, False, False, False])
    return problems


def _standing(manifest: Mapping[str, Any], statuses: Mapping[str, Status | None]) -> list[str]:
    """A sweep's number of runs, how they stand, who trains them, when it was last started, and by what."""
    runs = {run["run_id"] for run in manifest["runs"]}
    counts = Counter(str(status.state) if (status := statuses.get(run)) else "waiting" for run in runs)
    states = ", ".join(f"{counts[state]} {state}" for state in (*_COLOURS, "waiting") if counts[state])
    hosts = Counter(s.host for run in runs if (s := statuses.get(run)) and s.state == State.RUNNING)
    workers = ", ".join(f"{count} on {printable(host)}" for host, count in sorted(hosts.items()))
    words = manifest.get("command")
    command = shlex.join(map(str, words)) if isinstance(words, list) else ""
    return [str(len(runs)), states, workers, printable(str(manifest.get("updated"))[:16]), printable(command)]


# ------------------------------------------------------------------------------------------------------ show and diff


def show(run: RunDir) -> None:
    """Everything that a run directory tells.

    Raises:
        DamagedRun: it cannot be read.
    """
    status, history = run.read()
    print(printable(run.path.name), f"in {printable(str(run.path))}", sep="\n")
    said = notes.read(run)
    if said.tags:
        print("tags:", " ".join(said.tags))
    if said.text:
        _print_section("note", _lines(said.text))
    _print_section("config", _lines(yaml.safe_dump(read_identity(run), sort_keys=False)))
    hidden = {"checksums": None} | ({} if status and status.metric else {"maximize": None})
    _print_section("status", _lines(_pairs(vars(status) | hidden) if status else "none"))
    print("\nmetrics")
    if history:
        best, names = _best(status, history), metrics.columns(history)
        rows = {"first": history[0], **({"best": best} if best else {}), "last": history[-1]}
        body = [[label, *(_word(row.get(name)) for name in names)] for label, row in rows.items()]
        print_aligned([["", *names], *body], [False, *[True] * len(names)])
    else:
        print("  none yet")
    for i, session in enumerate(_sessions(run), start=1):
        _print_section(f"session {i}", _lines(_pairs(flatten(session) if isinstance(session, dict) else {})))


def diff(a: RunDir, b: RunDir) -> None:
    """Where two runs' configurations and provenance differ, and their metrics side by side.

    Raises:
        DamagedRun: one of them cannot be read.
    """
    names = [printable(run.path.name) for run in (a, b)]
    _print_differences("config", names, *(flatten(read_identity(run)) for run in (a, b)))
    read = [run.read() for run in (a, b)]
    histories = [history for _, history in read]
    points: list[tuple[str, list[Row | None]]] = [
        ("last", [history[-1] if history else None for history in histories]),
        ("best", [_best(status, history) for status, history in read]),
    ]
    common = min(map(len, histories))
    if len(histories[0]) != len(histories[1]) and common:
        points.append((f"epoch {common}", [history[common - 1] for history in histories]))
    lines = [["metrics", "", *names, "difference"]]
    for name, rows in points:
        for field in metrics.columns([row for history in histories for row in history]):
            values: list[Any] = [row.get(field) if row else None for row in rows]
            difference = "" if None in values else f"{values[1] - values[0]:+.6g}"
            lines.append([name if field == "epoch" else "", field, *map(_word, values), difference])
    print()
    print_aligned(lines, [False, False, True, True, True])
    sessions = [_sessions(run)[-1:] or [{}] for run in (a, b)]
    print()
    _print_differences("provenance", names, *(flatten(s[0]) if isinstance(s[0], dict) else {} for s in sessions))


def _best(status: Status | None, history: Sequence[Row]) -> Row | None:
    """By the run's own metric; a run of release 0.1 names none, and goes by its validation accuracy."""
    if status and (status.program or status.metric):
        return metrics.best(history, status.metric, status.maximize)
    return metrics.best(history, "valid_acc", True)


def _print_differences(title: str, names: Sequence[str], a: dict[str, Any], b: dict[str, Any]) -> None:
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    if not keys:
        print(f"{title}: the same")
        return
    body = [[printable(str(key)), _word(a.get(key)), _word(b.get(key))] for key in keys]
    print_aligned([[title, *names], *body], [False, True, True])


def _sessions(run: RunDir) -> list[Any]:
    try:
        sessions = read_json(run.provenance)["sessions"]
    except (OSError, DamagedRun, TypeError, LookupError):
        return []
    return sessions if isinstance(sessions, list) else []


def _print_section(title: str, lines: Iterable[str]) -> None:
    print(f"\n{title}")
    for line in lines:
        print(f"  {line}")


def _lines(text: str) -> list[str]:
    return [printable(line) for line in text.split("\n") if line]


def _pairs(values: dict[str, Any]) -> str:
    return "\n".join(f"{printable(str(key))}: {_word(value)}" for key, value in values.items() if value is not None)


# ------------------------------------------------------------------------------------------------------------- watch


class Watch:
    """How the runs under ``out`` stand; each reading looks only at what changed since the last one."""

    def __init__(self, out: Path, only: set[str] | None = None) -> None:
        self._out, self._only = out, only
        self._seen: dict[str, tuple[tuple[int, int, int], Status | None]] = {}

    def look(self) -> dict[str, Status | None]:
        """The status of each run; None for what cannot be read."""
        now: dict[str, tuple[tuple[int, int, int], Status | None]] = {}
        for run in run_dirs(self._out):
            name = run.path.name
            if self._only is not None and name not in self._only:
                continue
            try:
                info = run.status.lstat()
                stamp = info.st_mtime_ns, info.st_size, info.st_ino
                old = self._seen.get(name)
                is_settled = old and old[0] == stamp and old[1] and old[1].state != State.RUNNING
                now[name] = old if old and is_settled else (stamp, run.read_status())
            except (OSError, DamagedRun, RecursionError):
                now[name] = (0, 0, 0), None
        self._seen = now
        return {name: status for name, (_, status) in now.items()}

    def screen(self) -> Group:
        """Counts, the running runs, and those that ended last."""
        found = self.look()
        statuses = {name: status for name, status in found.items() if status}
        counts: Counter[str] = Counter(str(status.state) for status in statuses.values())
        line = Text("  ".join(f"{counts[state]} {state}" for state in _COLOURS if counts[state]) or "no runs")
        waiting = len(self._only - statuses.keys()) if self._only is not None else 0
        unreadable = len(found) - len(statuses)
        for count, word in ((waiting, "waiting"), (unreadable if self._only is None else 0, "unreadable")):
            if count:
                line.append(f"  {count} {word}")
        running = [(name, status) for name, status in statuses.items() if status.state == State.RUNNING]
        ended = [(name, status) for name, status in statuses.items() if status.state != State.RUNNING]
        ended = sorted(ended, key=lambda pair: str(pair[1].updated))[-5:][::-1]
        parts: list[Any] = [line]
        for title, pairs in (("running", running), ("ended last", ended)):
            if pairs:
                judges = {_judge(status) for _, status in pairs[:40]}
                body = [self._line(name, status, len(judges) > 1) for name, status in pairs[:40]]
                judge = judges.pop() if len(judges) == 1 else "metric"
                header = [title, "state", "epoch", _TITLES.get(judge, printable(judge)), "s/epoch", "at (UTC)", "by"]
                parts.append(_rich(header, body, [False, False, True, True, True, False, False]))
                if len(pairs) > 40:
                    parts.append(Text(f"{len(pairs) - 40} more"))
        return Group(*parts)

    def _line(self, name: str, status: Status, is_named: bool) -> list[str]:
        """``is_named``: the metric's name stands beside its value."""
        judge = _judge(status)
        try:
            last = RunDir.of(self._out, name).read_metrics()[-1]
            value = f"{last[judge]:.2f}" if judge in _TITLES else _word(last[judge]) if judge in last else ""
            measured = [f"{judge} {value}" if is_named and value else value]
            measured.append(f"{last.seconds:.2f}" if "seconds" in last else "")
        except (OSError, DamagedRun, LookupError):
            measured = ["", ""]
        texts = [
            name,
            status.state,
            f"{status.epoch}/{status.target}",
            *measured,
            str(status.updated)[11:19],
            status.worker,
        ]
        return [printable(text) for text in texts]


_TITLES = {"valid_acc": "valid acc (%)"}


def _judge(status: Status) -> str:
    return status.metric if isinstance(status.metric, str) else "" if status.program else "valid_acc"


def watch(out: Path, only: set[str] | None, *, interval: float, once: bool) -> None:
    """Show :class:`Watch` until Ctrl-C; a single time with ``once``, or where there is no terminal."""
    view, console = Watch(out, only), Console()
    if once or not console.is_terminal:
        console.print(view.screen())
        return
    with Live(view.screen(), console=console, auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(interval)
            live.update(view.screen(), refresh=True)


# --------------------------------------------------------------------------------------------------------------- words


def _rich(header: Sequence[str], body: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in zip(header, numeric, strict=True):
        table.add_column(Text(title), justify="right" if right else "left", overflow="fold")
    for line in body:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in line))
    return table


def _word(value: Any) -> str:
    """A value on one line: numbers short, nothing for what is missing."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value if isinstance(value, str) else str(value))
