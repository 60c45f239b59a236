"""``python -m sweeps``, which is ``mlp-sweeps``."""

import sys

if __name__ == "__main__":
    import sweeps.runs.quiet  # noqa: F401

from sweeps.cli import main

if __name__ == "__main__":
    sys.exit(main())
