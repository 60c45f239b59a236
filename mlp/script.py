"""The console script ``mlp-train``: as ``python -m mlp.train``, silent on Ctrl-C from the first import on."""

import sweeps.runs.quiet  # noqa: F401
from mlp.train import main as main
