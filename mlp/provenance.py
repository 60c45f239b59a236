"""What trained a run: code, packages, processor, BLAS. Recorded once for each session of a run."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info


def collect() -> dict[str, Any]:
    """Plain data for provenance.json; what cannot be found out is None."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return _constant() | {
        "blas": [{key: pool.get(key) for key in ("internal_api", "version", "architecture")} for pool in pools],
    }


@functools.cache
def _constant() -> dict[str, Any]:
    package = Path(__file__).parent
    commit = _git(package, "rev-parse", "HEAD")
    return {
        "source_sha256": _fingerprint(package),
        "git_commit": commit,
        "git_dirty": commit and bool(_git(package, "status", "--porcelain", "--", str(package))),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in ("numpy",)},
        "platform": platform.platform(),
        "cpu": _cpu(),
    }


def _fingerprint(package: Path) -> str:
    """SHA-256 over the package's own sources: tells whether two runs were trained by the same code."""
    total = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


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
