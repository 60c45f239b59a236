"""``python -m sweeps``."""

import sys

from sweeps.runs import command

if __name__ == "__main__":
    command.importing()

from sweeps.cli import main

if __name__ == "__main__":
    sys.exit(main())
