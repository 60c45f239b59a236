"""Shared by all commands: streams and signals, errors on one screen, and exit status."""

import contextlib
import io
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeps.runs.errors import DamagedRun, InputError, printable


@contextlib.contextmanager
def working(*, lasting: bool = False) -> Iterator[None]:
    """A command's own work: streams as :func:`use_streams` makes them, and Ctrl-C is KeyboardInterrupt.

    Before and after it, while modules are imported and while Python shuts down, Ctrl-C ends the process silently if
    :mod:`sweeps.runs.quiet` has been imported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    is_quiet = is_main and signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    try:
        if is_quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        use_streams(lasting=lasting)
        yield
    finally:
        if is_quiet:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def use_streams(*, lasting: bool = False) -> None:
    """Make the standard streams take any text, also if they are closed, Latin-1 or a pipe.

    Args:
        lasting: continue without output if the reader has gone (``| head``) or the disk is full.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take its place, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    _replace("stdout", 1, lasting)
    _replace("stderr", 2, True)


def _replace(name: str, number: int, lasting: bool) -> None:
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper | None):
        return  # a notebook's, a test's
    raw = (_Lasting if lasting else io.FileIO)(number, "wb", closefd=False)
    encoding, by_line = ("utf-8", False) if stream is None else (stream.encoding, stream.line_buffering)
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    # Line by line, to stay in order with logs to the earlier stream.
    new = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=by_line or lasting
    )
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


class _Lasting(io.FileIO):
    """Accepts everything, even if its reader has gone, the disk is full or the terminal was closed."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def run(command: Callable[[], int | None]) -> int:
    """Exit status: the command's own or 0 if it is done, 1 a run or file cannot be read or written, 2 unusable input,
    130 interrupted by Ctrl-C.
    """
    try:
        with working():
            status = command() or 0
            sys.stdout.flush()
    except InputError as error:
        return fail(str(error), 2)
    except DamagedRun as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has gone, as with | head, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered must not fail again at exit
        return 0
    except OSError as error:
        if error.filename is None:  # standard output's, on a full disk
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    return status


def fail(message: str, status: int) -> int:
    """Print it, and return the status."""
    print("error:", "\n".join(printable(line.expandtabs(4)) for line in message.split("\n")), file=sys.stderr)
    return status


def started_with() -> list[str]:
    """The command line of this process."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return ["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    script = Path(sys.argv[0])
    if script.suffix == ".py":
        return ["python", sys.argv[0], *sys.argv[1:]]
    return [script.name, *sys.argv[1:]]


_SCRIPTS = {"mlp-train": "mlp.train", "mlp-sweeps": "sweeps"}


def printed(words: Sequence[str]) -> str:
    """A command as the user's shell takes it: by its path where PATH has none or another of the name.

    So it is where this Python was called by its path, and its environment was not activated.
    """
    if not words:
        return ""
    first, *rest = words
    here = Path(sys.executable).parent
    found = shutil.which(first)
    if found and Path(os.path.abspath(found)).parent == here:
        return shlex.join(words)
    if first in ("python", "python3"):
        return shlex.join([sys.executable, *rest])
    if first in _SCRIPTS:
        path = here / first
        return shlex.join([str(path), *rest] if path.exists() else [sys.executable, "-m", _SCRIPTS[first], *rest])
    return shlex.join(words)


def tree(out: Path) -> list[str]:
    """The words that name a results tree to a command of ``mlp-sweeps``."""
    return [] if os.path.abspath(out) == os.path.abspath("outputs") else ["--out", str(out)]


def aligned(rows: Iterable[Iterable[object]]) -> str:
    """Columns of texts, the first to the left and the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in texts
    )


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def human_size(count: float) -> str:
    """``3.4 MB`` of a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
