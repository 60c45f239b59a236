"""The output of one run: a live bar in a terminal, one plain line per epoch elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweeps.runs.metrics import Row
from sweeps.runs.status import Result

Describe = Callable[[Row], str]


@contextlib.contextmanager
def epochs(total: int, describe: Describe) -> Iterator[Callable[[Row], None]]:
    """Gives the function to call after each of ``total`` epochs."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        yield lambda row: print(f"epoch {row.epoch}/{max(total, row.epoch)}  {describe(row)}", flush=True)
        return
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda row: progress.update(task, completed=row.epoch, description=describe(row))


def summary(result: Result, epochs: int, describe: Describe) -> str:
    """How the run ended, its metrics at the last and the best epoch, and where it is."""
    lines = [f"{result.state}{' already' if result.reused else ''}: {result.epoch}/{max(epochs, result.epoch)} epochs"]
    if result.error:
        lines[0] += f" ({result.error})"
    for name, row in (("last", result.last), ("best", result.best)):
        if row:
            lines.append(f"{name}  epoch {row.epoch:<4} {describe(row)}")
    return "\n".join([*lines, f"in    {result.path}"])
