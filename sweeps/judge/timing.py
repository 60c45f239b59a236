"""timing.json: seconds per epoch under stated conditions, as ``mlp-sweeps timing`` measures them.

The claims about time rest on it alone, since times of a sweep's runs come from a busy pool.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import read_json

COMMAND = ("mlp-sweeps", "timing")

# Below this share of a core another process ran as well, and the clock measured it.
_UNDISTURBED = 0.9


@dataclass(frozen=True)
class Timing:
    """What ``timing.json`` holds."""

    seconds: Mapping[str, tuple[float, ...]]
    """Net, e.g. ``"gelu-ce-512x256"`` → seconds per training epoch in each round; all of one length."""
    conditions: Mapping[str, Any]
    """date, cpu, cores, blas, threads, load (averages at the start), cpu_share, rounds, steps, …"""

    @property
    def disturbed(self) -> bool:
        """Whether other processes took part of the core that measured."""
        return bool(self.conditions["cpu_share"] < _UNDISTURBED)

    def describe(self) -> str:
        """The conditions in one line."""
        c = self.conditions
        return (
            f"{c['rounds']} rounds of {c['steps']} steps, one process, one thread, {c['cpu']}, "
            f"{c['date'][:10]}, load average {c['load'][0]:.1f} on {c['cores']} cores at the start, "
            f"{100 * c['cpu_share']:.0f} % of a core obtained"
        )


def path(out: Path) -> Path:
    return out / "timing.json"


def load(out: Path) -> Timing | None:
    """The measurement, or None.

    Raises:
        InputError: the file is not one of ours.
    """
    try:
        content = read_json(path(out))
        seconds = {name: tuple(map(float, net["seconds"])) for name, net in content["nets"].items()}
        conditions = {key: printable(x) if isinstance(x, str) else x for key, x in content["conditions"].items()}
        timing = Timing(seconds, conditions)
        timing.describe()  # everything that is read later is there
        if len({len(values) for values in seconds.values()}) != 1:
            raise ValueError("unequal rounds")
        if not all(0 < value < math.inf for values in seconds.values() for value in values):
            raise ValueError("times must be positive")
    except FileNotFoundError:
        return None
    except (OSError, DamagedRun, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise InputError("timing", str(path(out)), f"is damaged ({error}); repeat `{shlex.join(COMMAND)}`") from None
    return timing
