"""A search's output before and after."""

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps.search.record import Search, TrialState

_SHOWN = 10


def before(known: Search) -> str:
    """``12 trials finished already``."""
    states = Counter(trial.state for trial in known.trials)
    parts = [f"{states['finished'] + states['diverged']} trials finished already"]
    if known.method == "halving":  # each as far as needed by then
        parts = [f"{known.epochs()} epochs trained already"]
    parts += [f"{states['failed']} to try again"] if states["failed"] else []
    return ", ".join(parts)


def after(search: Search, trained: int, manifest: Path) -> None:
    """The best trials, the failed ones, and the epochs spent.

    Args:
        trained: epochs of this session.
    """
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 160
    ranked = search.ranked()
    bad = [trial for trial in search.trials if trial.state in ("failed", "diverged")]
    rungs = any(trial.rungs for trial in search.trials)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    table.add_column("state")
    for metric in search.metrics:
        table.add_column(metric, justify="right")
    if rungs:
        table.add_column("epochs", justify="right")
    for axis in search.space:
        table.add_column(escape(axis["key"]))
    table.add_column("runs", overflow="fold")
    for trial in [*ranked[:_SHOWN], *bad[:_SHOWN]]:
        values = [f"{value:.6g}" for value in trial.values or ()] or [""] * len(search.metrics)
        came = [str(max((epochs for _, epochs in trial.runs), default=0))] if rungs else []
        point = [escape(_word(trial.params[axis["key"]])) for axis in search.space]
        runs = " ".join(run for run, _ in trial.runs[:3]) + (" …" if len(trial.runs) > 3 else "")
        table.add_row(str(trial.number), trial.state, *values, *came, *point, escape(runs))
    if ranked or bad:
        front = len(search.metrics) > 1
        console.print(f"the Pareto front ({len(ranked)} of {len(search.finished)} finished):" if front else "the best:")
        console.print(table)
    for trial in bad[:_SHOWN]:
        console.print(escape(f"trial {trial.number} {trial.state}: {trial.error}"))
    print(_closing(search, trained, manifest))


def _closing(search: Search, trained: int, manifest: Path) -> str:
    states = Counter(trial.state for trial in search.trials)
    order: tuple[TrialState, ...] = ("finished", "diverged", "failed", "running")
    counts = ", ".join(f"{states[state]} {state}" for state in order if states[state]) or "nothing yet"
    spent = search.epochs()
    runs = len({run for trial in search.trials for run, _ in trial.runs})
    return (
        f"{counts} of {search.total} trials; {spent} epochs of {runs} runs, {trained} of them trained now; {manifest}"
    )


def _word(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
