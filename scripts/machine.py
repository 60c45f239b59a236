"""What figures were measured on."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.runs import provenance
from sweeps.runs.provenance import cores


def machine() -> dict[str, Any]:
    """Machine, load, versions and date, as the programs beside this one print and publish them."""
    facts = provenance.collect(Path(__file__).parent)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": facts["cpu"],
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "platform": facts["platform"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "git_commit": facts["git_commit"],
    }
