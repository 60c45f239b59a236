"""The console script ``mlp-train``: ``python -m mlp.train``, and its imports as quiet."""

import sweeps.runs.quiet  # noqa: F401
from mlp.train import main as main
