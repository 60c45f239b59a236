"""``python -m mlp.train``: compose a run's configuration from conf/ with Hydra, train it, and exit with its status.

Exit status: 0 finished or diverged (both are results), 1 failed, 2 unusable input, 130 / 143 interrupted by
SIGINT / SIGTERM.
"""

import sys
from types import ModuleType

if __name__ == "__main__":
    import sweeps.runs.quiet  # noqa: F401

from mlp.composition import compose as compose
from mlp.training import CONF, program, train
from sweeps.launch.main import command_line

main = command_line(
    program,
    config_path=str(CONF),
    config_name="config",
    own_directory=True,
    name="mlp-train",
)


class _Callable(ModuleType):
    """Importing this module puts it where ``from mlp import train`` finds the function; so it can be called as well."""

    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
