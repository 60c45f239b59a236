"""Sweeps of any training function: grids that resume, never repeat work and survive crashes; read back as tables.

Names are imported when they are first used, so that ``import sweeps`` costs nothing.
"""

from sweeps.runs.lazy import attributes

TYPE_CHECKING = False  # to a type checker it is True; the module typing takes longer than all else here
if TYPE_CHECKING:
    from sweeps.judge.compare import Difference as Difference
    from sweeps.judge.compare import compare as compare
    from sweeps.launch.main import main as main
    from sweeps.launch.sweep import sweep as sweep
    from sweeps.read.collect import Collection as Collection
    from sweeps.read.collect import load as load
    from sweeps.runs.errors import Diverged as Diverged
    from sweeps.runs.errors import InputError as InputError
    from sweeps.runs.errors import SweepsError as SweepsError
    from sweeps.runs.program import Program as Program
    from sweeps.runs.program import program as program
    from sweeps.runs.session import Run as Run
    from sweeps.runs.session import current_run as current_run
    from sweeps.runs.session import run as run
    from sweeps.runs.status import Result as Result

    __version__: str

_EXPORTS = {
    "Collection": "sweeps.read.collect",
    "Difference": "sweeps.judge.compare",
    "Diverged": "sweeps.runs.errors",
    "InputError": "sweeps.runs.errors",
    "Program": "sweeps.runs.program",
    "Result": "sweeps.runs.status",
    "Run": "sweeps.runs.session",
    "SweepsError": "sweeps.runs.errors",
    "compare": "sweeps.judge.compare",
    "current_run": "sweeps.runs.session",
    "load": "sweeps.read.collect",
    "main": "sweeps.launch.main",
    "program": "sweeps.runs.program",
    "run": "sweeps.runs.session",
    "sweep": "sweeps.launch.sweep",
}

__all__ = list(_EXPORTS)
__getattr__ = attributes(__name__, _EXPORTS)
