"""Every error that this package raises on purpose.

SweepsError
├── InputError      bad input: field, value, what is allowed (also a ValueError)
│   └── Pruned      a run's checkpoint is needed, but was removed
├── DamagedRun      a file of a run is not what it should be
├── Diverged        raised by a training function whose numbers are no longer finite
└── Busy            another process trains this run
Interrupted         a signal or a stopping sweep ended the training (a BaseException, like KeyboardInterrupt)
"""

import signal
from typing import Any


def brief(text: str) -> str:
    """Its beginning, if the text is too long for a message."""
    return text if len(text) <= 200 else text[:200] + "…"


class SweepsError(Exception):
    """Base class of the errors below."""


class InputError(SweepsError, ValueError):
    """A value that was given cannot be used; the message fits on one screen and needs no traceback."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        try:
            shown = value if isinstance(value, str) else repr(value)
        except ValueError:  # Python writes no whole number of more than 4300 digits
            shown = f"a huge {type(value).__name__}"
        super().__init__(f"{field}={brief(shown)}: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:  # it crosses process borders in sweeps
        return type(self), (self.field, self.value, self.allowed)


class Pruned(InputError):
    """A run's checkpoint was removed by ``mlp-sweeps prune``."""


class DamagedRun(SweepsError):
    """A file of a run directory cannot be read as what it should be; the message names file and reason, on one line.

    Both may come from files of others, and go to terminals and logs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Diverged(SweepsError):
    """Loss or parameters are no longer finite. Raise it to end a run as "diverged", which is a result."""


class Busy(SweepsError):
    """Another process trains this run at the moment."""


class Interrupted(BaseException):
    """A signal, or the sweep, asked the training to end. Not an Exception, so that user code does not swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"by {signal.Signals(signum).name}")
        self.signum = signum

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.signum,)


def printable(value: str) -> str:
    """The text on one line, control characters written out: what a run directory holds may be hostile."""
    return value if value.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
