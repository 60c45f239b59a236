"""A run's provenance: code, packages, processor, BLAS. Recorded once per session."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info


def collect(package: Path | None = None) -> dict[str, Any]:
    """Plain data for provenance.json; unknown values are None.

    Args:
        package: the folder of the program's sources, for Git.
    """
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return _constant(package or Path.cwd()) | {
        "blas": [{key: pool.get(key) for key in ("internal_api", "version", "architecture")} for pool in pools],
    }


@functools.cache
def _constant(package: Path) -> dict[str, Any]:
    commit = _git(package, "rev-parse", "HEAD")
    return {
        "git_commit": commit,
        "git_dirty": commit and bool(_git(package, "status", "--porcelain", "--", str(package))),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES if _is_there(name)},
        "platform": platform.platform(),
        "cpu": _cpu(),
    }


_PACKAGES = ("numpy", "torch", "jax", "scikit-learn")


def _is_there(name: str) -> bool:
    """Numpy's version always counts; another library's where the program has imported it."""
    return name == "numpy" or {"scikit-learn": "sklearn"}.get(name, name) in sys.modules


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def cores() -> int:
    """Processors that this process may use: its affinity, and a container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        pass
    return available
