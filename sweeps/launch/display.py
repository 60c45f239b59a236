"""A sweep's output: a live display in a terminal, elsewhere a line for each job that ends, and the summary."""

import io
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.launch import estimate
from sweeps.launch.job import Job, epochs_done, last_row
from sweeps.runs.command import printed, tree
from sweeps.runs.errors import printable
from sweeps.runs.metrics import Row
from sweeps.runs.program import Program
from sweeps.runs.status import Result, State

_STYLES = {"finished": "green", "failed": "bold red", "diverged": "yellow", "interrupted": "magenta", "running": "cyan"}
_SHOWN = 20  # rows of the summary and of the running jobs


class Display:
    """Progress of the jobs that are left to train.

    Args:
        jobs: those left; epochs that were done before do not count as progress.
        reused: how many more were finished before.
        slots: workers, for the estimate.
        expected: how many more jobs a source may add.
        shared: overrides that tell no jobs apart; None: those that all of ``jobs`` have.
    """

    def __init__(
        self,
        jobs: list[Job],
        program: Program,
        *,
        reused: int,
        slots: int,
        expected: int = 0,
        shared: frozenset[str] | None = None,
    ) -> None:
        self._console = _console(soft_wrap=True)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        )
        self.interval = 0.5 if self._live else 5.0
        self._program = program
        self._jobs = {job.run_id: job for job in jobs}
        self._begun = {job.run_id: epochs_done(job.run) for job in jobs}
        self._work = {job.run_id: program.cost(job.spec.config) for job in jobs}
        self._common = common(jobs) if shared is None else shared
        self._slots = slots
        self._expected = expected
        self._states: Counter[str] = Counter(reused=reused)
        self._ended: set[str] = set()
        self._again = 0  # points that continued an earlier point's run
        self._warnings = 0
        self._epochs = {job.run_id: self._begun[job.run_id] for job in jobs}  # as last seen
        self._start = time.monotonic()

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        if self._warnings > 1:
            self.note(f"the tracker failed {self._warnings} runs; their train.log has the reasons")

    def add(self, job: Job, expected: int) -> None:
        """One more from a source, and how many may follow; perhaps a run that ended before, and continues."""
        run_id = job.run_id
        if run_id in self._ended:
            self._ended.remove(run_id)
            self._again += 1
        self._jobs[run_id] = job
        self._begun.setdefault(run_id, epochs_done(job.run))
        self._work[run_id] = self._program.cost(job.spec.config)
        self._epochs.setdefault(run_id, self._begun[run_id])
        self._expected = expected

    def note(self, text: str) -> None:
        self._console.print(escape(text), style="yellow")

    def ended(self, result: Result) -> None:
        """Say how a job ended; a failure says where to look, too."""
        job = self._jobs[result.run_id]
        self._ended.add(job.run_id)
        self._epochs[job.run_id] = max(result.epoch, self._begun[job.run_id])
        self._states["reused" if result.reused else result.state] += 1
        if result.warning:
            self._warnings += 1
            if self._warnings == 1:  # other runs' trackers will fail alike
                self.note(f"{job.run_id}: {result.warning}")
        if self._live and result.state == "finished":
            return
        count = f"[{self._again + len(self._ended)}/{self._again + len(self._jobs) + self._expected}]"
        line = (
            Text(f"{count} ")
            .append(f"{result.state:<11}", _STYLES.get(result.state, ""))
            .append(f" {job.run_id}  {varying(job, self._common)}  {self._metrics(result)}")
        )
        left = self._left()
        if left and not self._live and len(self._ended) < len(self._jobs) + self._expected:
            line.append(f"  (left: {left})", "dim")
        self._console.print(line)
        if result.state in (State.FAILED, State.DIVERGED):
            said = printable(" ".join([line.strip() for line in (result.error or "").splitlines() if line.strip()][:2]))
            self._console.print(Text(f"      {said}\n      see {job.run.log}", "red"))

    def refresh(self, running: Collection[str]) -> None:
        """Update the runs that are training."""
        for run_id in running:
            self._epochs[run_id] = max(self._begun[run_id], epochs_done(self._jobs[run_id].run))
        if self._live:
            self._live.update(self._picture(running), refresh=True)

    def _picture(self, running: Collection[str]) -> Group:
        total = sum(job.spec.epochs - self._begun[run_id] for run_id, job in self._jobs.items())
        done = sum(self._epochs[run_id] - self._begun[run_id] for run_id in self._jobs)
        counts = "  ".join(f"{number} {state}" for state, number in self._states.items() if number)
        left = self._left()
        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"{self._again + len(self._ended)}/{self._again + len(self._jobs) + self._expected} runs",
            ProgressBar(total=max(total, 1), completed=done, width=40),
            f"{done}/{total} epochs" + (f"  left: {left}" if left else ""),
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True)
        begun = sorted(running, key=lambda run_id: self._begun[run_id] - self._epochs[run_id])
        for run_id in begun[: min(self._slots, _SHOWN)]:  # the others are queued
            job = self._jobs[run_id]
            row = last_row(job.run)
            shown = self._brief(row) if row else "starting"
            rows.add_row(
                escape(run_id),
                f"{self._epochs[run_id]}/{job.spec.epochs}",
                shown,
                escape(varying(job, self._common)),
            )
        return Group(head, Text(counts, "dim"), rows)

    def _brief(self, row: Row) -> str:
        if self._program.brief:
            return self._program.brief(row)
        return "  ".join(f"{name} {value:.4g}" for name, value in _judged_first(row, self._program.metric)[:2])

    def _metrics(self, result: Result) -> str:
        parts = [self._brief(result.last)] if result.last else []
        if result.reused:
            parts.append("already there")
        elif result.seconds:
            parts.append(f"{result.seconds:.1f} s")
        return "  ".join(parts)

    def _left(self) -> str:
        """``12 min``, or nothing if it is not known yet."""
        seconds = self._seconds_left()
        return "" if seconds is None else estimate.duration(seconds)

    def _seconds_left(self) -> float | None:
        """From the speed of this sweep so far; the last jobs cannot share one run among several workers."""
        elapsed = time.monotonic() - self._start
        done = sum(self._work[run_id] * (self._epochs[run_id] - self._begun[run_id]) for run_id in self._jobs)
        left = [
            self._work[run_id] * (job.spec.epochs - self._epochs[run_id])
            for run_id, job in self._jobs.items()
            if run_id not in self._ended
        ]
        if self._jobs:
            usual = sum(self._work[run_id] * job.spec.epochs for run_id, job in self._jobs.items())
            left += [usual / len(self._jobs)] * self._expected
        if not left:
            return 0.0
        busy = min(self._slots, len(self._jobs) + self._expected)
        speed = done / elapsed / busy if done else estimate.speed(self._program, ())
        return estimate.parallel_seconds([work / speed for work in left], self._slots) if speed else None


def _console(*, soft_wrap: bool = False) -> Console:
    """On stdout. A notebook's says that it is a terminal, but would keep every frame of a live display."""
    terminal = None if sys.stdout is sys.__stdout__ else False
    file = sys.stdout or io.StringIO()  # None where it is closed
    return Console(file=file, force_terminal=terminal, force_jupyter=False, highlight=False, soft_wrap=soft_wrap)


def common(jobs: Iterable[Job]) -> frozenset[str]:
    """The overrides that all jobs share."""
    sets = [frozenset(job.overrides) for job in jobs]
    return frozenset.intersection(*sets) if len(sets) > 1 else frozenset()


def varying(job: Job, shared: frozenset[str]) -> str:
    """A job's overrides without the shared ones; numbers that a search has drawn are rounded to four digits."""
    return " ".join(_DRAWN.sub(_rounded, text) for text in job.overrides if text not in shared)


_DRAWN = re.compile(r"(?<==)-?\d+\.?\d*(e-?\d+)?$")


def _rounded(number: re.Match[str]) -> str:
    return number[0] if len(number[0]) <= 10 else f"{float(number[0]):.4g}"


def _judged_first(row: Row, metric: str | None) -> list[tuple[str, float]]:
    """Name and value, the judged metric before the others; times only if there is nothing else."""
    items = [item for item in row.metrics.items() if not item[0].endswith("seconds")]
    return sorted(items or row.metrics.items(), key=lambda item: item[0] != metric)


def summary(jobs: Iterable[Job], results: Iterable[Result], program: Program) -> None:
    """Best runs first, by the program's metric at the last epoch; what did not finish is never left out."""
    overrides = {job.run_id: job for job in jobs}
    results = list(results)
    console = _console()
    if not console.is_terminal:
        console.width = 160
    good = [result for result in results if result.state == State.FINISHED]
    bad = [result for result in results if result.state != State.FINISHED]
    if program.metric:
        metric, sign = program.metric, -1 if program.maximize else 1
        good.sort(key=lambda result: sign * (result.last or Row()).get(metric, 0.0))
    shown, last, best = program.shown or _shown(good, program.metric)
    digits = ".2f" if program.shown else ".6g"
    shared = common(overrides.values())
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = [("run", "left"), ("state", "left"), ("epoch", "right")]
    columns += [(last, "right")] if last else []
    columns += [(best, "right"), ("at", "right")] if best else []
    for name, justify in [*columns, ("overrides", "left")]:
        table.add_column(escape(name), justify=justify)  # type: ignore[arg-type]
    for result in [*good[:_SHOWN], *bad[:_SHOWN]]:
        cells: list[str | Text] = [
            escape(result.run_id),
            Text(result.state, _STYLES.get(result.state, "")),
            str(result.epoch),
        ]
        if last:
            cells.append(_cell(result.last, shown, digits))
        if best:
            cells += [_cell(result.best, shown, digits), str(result.best.epoch) if result.best else ""]
        table.add_row(*cells, escape(varying(overrides[result.run_id], shared)))
    if len(results) > 1 or bad:
        console.print(table)
    hidden = len(good[_SHOWN:]) + len(bad[_SHOWN:])
    if hidden:
        out = next(iter(overrides.values())).spec.out
        console.print(escape(f"… and {hidden} more: {printed(['mlp-sweeps', 'ls', *tree(out)])}"), soft_wrap=True)


def _shown(results: list[Result], metric: str | None) -> tuple[str, str, str]:
    """The metric of the table: the judged one, else the first that was logged."""
    if metric:
        return metric, metric, "best"
    rows = [result.last for result in results if result.last]
    names = [name for row in rows[:1] for name, _ in _judged_first(row, None)]
    return (names[0], names[0], "") if names else ("", "", "")


def _cell(row: Row | None, name: str, digits: str) -> str:
    return f"{row[name]:{digits}}" if row and name in row else ""
