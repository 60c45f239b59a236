"""What commands share: their errors on one screen, and their exit status."""

import os
import sys
from collections.abc import Callable, Iterable

from sweeps.runs.errors import DamagedRun, InputError


def run(command: Callable[[], int | None]) -> int:
    """Exit status: the command's own or 0 if it is done, 1 a run or file cannot be read or written, 2 unusable input,
    130 interrupted by Ctrl-C.
    """
    try:
        status = command() or 0
        sys.stdout.flush()
    except InputError as error:
        return fail(str(error), 2)
    except DamagedRun as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as with | head: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered must not fail again at exit
        return 0
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or ''}", 1)
    return status


def fail(message: str, status: int) -> int:
    """Say it, and return the status."""
    from sweeps.runs.reading import printable

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
