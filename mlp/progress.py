"""How one run shows itself: a live bar in a terminal, one plain line per epoch elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlp.runs import Epoch, Result


@contextlib.contextmanager
def epochs(total: int) -> Iterator[Callable[[Epoch], None]]:
    """Gives the function to call after each of ``total`` epochs."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        yield lambda row: print(f"epoch {row.epoch}/{total}  {describe(row)}", flush=True)
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


def describe(row: Epoch) -> str:
    """An epoch's metrics on one line."""
    return (
        f"train {row.train_loss:.4f} {row.train_acc:.2f} %  "
        f"valid {row.valid_loss:.4f} {row.valid_acc:.2f} %  {row.seconds:.2f} s"
    )


def summary(result: Result, epochs: int) -> str:
    """How the run ended, its metrics at the last and the best epoch, and where it is."""
    lines = [f"{result.state}{' already' if result.reused else ''}: {len(result.history)}/{epochs} epochs"]
    if result.error:
        lines[0] += f" ({result.error})"
    for name, row in (("last", result.last), ("best", result.best)):
        if row:
            lines.append(f"{name}  epoch {row.epoch:<4} {describe(row)}")
    return "\n".join([*lines, f"in    {result.path}"])
