"""``python -m sweeps``, which is ``mlp-sweeps``."""

import sys

import sweeps.runs.quiet  # noqa: F401
from sweeps.cli import main

if __name__ == "__main__":
    sys.exit(main())
