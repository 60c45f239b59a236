"""What the commands that use a trained network share: their errors on one line, and their exit status."""

import os
import sys
from collections.abc import Callable, Iterable

from mlp.reading import printable
from mlp.runs import DamagedRun
from mlp.schema import InputError


def run(command: Callable[[], None]) -> int:
    """Exit status: 0 done, 1 a run or file cannot be read or written, 2 unusable input, 130 interrupted by Ctrl-C."""
    try:
        command()
        sys.stdout.flush()
    except InputError as error:
        return _fail(str(error), 2)
    except DamagedRun as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as with | head: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered must not fail again at exit
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}", 1)
    return 0


def _fail(message: str, status: int) -> int:
    print("error:", "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return status


def aligned(rows: Iterable[Iterable[object]]) -> str:
    """Columns of texts, the first to the left and the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in texts
    )
