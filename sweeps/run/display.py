"""What a sweep shows: a live picture in a terminal, a line for each job that ends elsewhere, and the summary."""

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

from sweeps.run import estimate
from sweeps.run.job import Outcome, epochs_done, last_row
from sweeps.run.plan import Ended, Point

_STYLES = {"finished": "green", "failed": "bold red", "diverged": "yellow", "interrupted": "magenta", "running": "cyan"}
_SHOWN = 20  # rows of the summary and of the running jobs


class Display:
    """Progress of the points that are left to train.

    Args:
        points: those left; their epochs that are done already do not count as progress.
        reused: how many more were finished before.
        slots: workers, for the estimate.
        expected: how many more points a source may add.
        shared: overrides that tell no points apart; None: those that all of ``points`` have.
    """

    def __init__(
        self,
        points: list[Point],
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
        self._points = {point.run_id: point for point in points}
        self._begun = {point.run_id: epochs_done(point.run) for point in points}
        self._work = {point.run_id: estimate.epoch_work(point.config) for point in points}
        self._common = common(points) if shared is None else shared
        self._slots = slots
        self._expected = expected
        self._states: Counter[str] = Counter(reused=reused)
        self._ended: set[str] = set()
        self._again = 0  # points that went on where an earlier one of the same run had ended
        self._warnings = 0
        self._epochs = {point.run_id: self._begun[point.run_id] for point in points}  # as last seen
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

    def add(self, point: Point, expected: int) -> None:
        """One more from a source, and how many may follow; perhaps a run that ended here before, and goes on."""
        run_id = point.run_id
        if run_id in self._ended:
            self._ended.remove(run_id)
            self._again += 1
        self._points[run_id] = point
        self._begun.setdefault(run_id, epochs_done(point.run))
        self._work[run_id] = estimate.epoch_work(point.config)
        self._epochs.setdefault(run_id, self._begun[run_id])
        self._expected = expected

    def note(self, text: str) -> None:
        self._console.print(escape(text), style="yellow")

    def ended(self, item: Ended) -> None:
        """Say how a job ended; a failure says where to look, too."""
        point, outcome = item.point, item.outcome
        self._ended.add(point.run_id)
        self._epochs[point.run_id] = max(outcome.epoch, self._begun[point.run_id])
        self._states["reused" if outcome.reused else outcome.state] += 1
        if outcome.warning:
            self._warnings += 1
            if self._warnings == 1:  # what one run's tracker suffers, the next one's will
                self.note(f"{point.run_id}: {outcome.warning}")
        if self._live and outcome.state == "finished":
            return
        count = f"[{self._again + len(self._ended)}/{self._again + len(self._points) + self._expected}]"
        line = (
            Text(f"{count} ")
            .append(f"{outcome.state:<11}", _STYLES.get(outcome.state, ""))
            .append(f" {point.run_id}  {varying(point, self._common)}  {_metrics(outcome)}")
        )
        if not self._live and len(self._ended) < len(self._points) + self._expected:
            line.append(f"  (left: {estimate.words(self._seconds_left())})", "dim")
        self._console.print(line)
        if outcome.state in ("failed", "diverged"):
            last = (outcome.error or "").strip().splitlines()[-1:] or [""]
            self._console.print(Text(f"      {last[0]}\n      see {point.run.log}", "red"))

    def refresh(self, flying: Collection[str]) -> None:
        """Look at the runs that are under way."""
        for run_id in flying:
            self._epochs[run_id] = max(self._begun[run_id], epochs_done(self._points[run_id].run))
        if self._live:
            self._live.update(self._picture(flying), refresh=True)

    def _picture(self, flying: Collection[str]) -> Group:
        total = sum(point.config.epochs - self._begun[run_id] for run_id, point in self._points.items())
        done = sum(self._epochs[run_id] - self._begun[run_id] for run_id in self._points)
        counts = "  ".join(f"{number} {state}" for state, number in self._states.items() if number)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"{self._again + len(self._ended)}/{self._again + len(self._points) + self._expected} runs",
            ProgressBar(total=max(total, 1), completed=done, width=40),
            f"{done}/{total} epochs  left: {estimate.words(self._seconds_left())}",
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True)
        begun = sorted(flying, key=lambda run_id: self._begun[run_id] - self._epochs[run_id])
        for run_id in begun[: min(self._slots, _SHOWN)]:  # the others are ready behind them
            point, row = self._points[run_id], last_row(self._points[run_id].run)
            shown = f"valid {row.valid_acc:.2f} %" if row else "starting"
            rows.add_row(
                escape(run_id),
                f"{self._epochs[run_id]}/{point.config.epochs}",
                shown,
                escape(varying(point, self._common)),
            )
        return Group(head, Text(counts, "dim"), rows)

    def _seconds_left(self) -> float:
        """From the speed of this sweep so far; the last jobs cannot share one run among several workers."""
        elapsed = time.monotonic() - self._start
        done = sum(self._work[run_id] * (self._epochs[run_id] - self._begun[run_id]) for run_id in self._points)
        left = [
            self._work[run_id] * (point.config.epochs - self._epochs[run_id])
            for run_id, point in self._points.items()
            if run_id not in self._ended
        ]
        if self._points:
            usual = sum(self._work[run_id] * point.config.epochs for run_id, point in self._points.items())
            left += [usual / len(self._points)] * self._expected
        if not done or not left:
            return estimate.parallel_seconds([work / estimate.speed([]) for work in left], self._slots) if left else 0.0
        busy = min(self._slots, len(self._points) + self._expected)
        return estimate.parallel_seconds([work * elapsed * busy / done for work in left], self._slots)


def _console(*, soft_wrap: bool = False) -> Console:
    """On stdout. A notebook's says that it is a terminal, but would keep every state of a live picture."""
    terminal = None if sys.stdout is sys.__stdout__ else False
    return Console(file=sys.stdout, force_terminal=terminal, force_jupyter=False, highlight=False, soft_wrap=soft_wrap)


def common(points: Iterable[Point]) -> frozenset[str]:
    """The overrides that all points share, and that tell none apart."""
    sets = [frozenset(point.overrides) for point in points]
    return frozenset.intersection(*sets) if len(sets) > 1 else frozenset()


def varying(point: Point, shared: frozenset[str]) -> str:
    """A point's overrides without the shared ones."""
    return " ".join(text for text in point.overrides if text not in shared)


def _metrics(outcome: Outcome) -> str:
    parts = []
    if outcome.last:  # what is to be judged by its validation accuracy is not shown by another
        held_out = outcome.last[3:5] != outcome.last[5:7]
        parts.append(f"valid {outcome.last.valid_acc:.2f} %" if held_out else f"test {outcome.last.test_acc:.2f} %")
    if outcome.reused:
        parts.append("already there")
    elif outcome.seconds:
        parts.append(f"{outcome.seconds:.1f} s")
    return "  ".join(parts)


def summary(items: Iterable[Ended]) -> None:
    """Best runs first (validation accuracy at the last epoch); what did not finish is never left out."""
    items = list(items)
    console = _console()
    if not console.is_terminal:
        console.width = 160
    good = [item for item in items if item.outcome.state == "finished"]
    bad = [item for item in items if item.outcome.state != "finished"]
    good.sort(key=lambda item: -(item.outcome.last.valid_acc if item.outcome.last else 0.0))
    shared = common(item.point for item in items)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name, justify in (("run", "left"), ("state", "left"), ("epoch", "right"), ("test %", "right"),
                          ("best %", "right"), ("at", "right"), ("overrides", "left")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for item in [*good[:_SHOWN], *bad[:_SHOWN]]:
        outcome = item.outcome
        table.add_row(
            escape(item.point.run_id),
            Text(outcome.state, _STYLES.get(outcome.state, "")),
            str(outcome.epoch),
            f"{outcome.last.test_acc:.2f}" if outcome.last else "",
            f"{outcome.best.test_acc:.2f}" if outcome.best else "",
            str(outcome.best.epoch) if outcome.best else "",
            escape(varying(item.point, shared)),
        )
    if len(items) > 1 or bad:
        console.print(table)
    hidden = len(good[_SHOWN:]) + len(bad[_SHOWN:])
    if hidden:
        console.print(f"… and {hidden} more: python -m sweeps ls")
