"""The remaining jobs of a sweep, on disk: everything for workers that start elsewhere or later.

<out>/sweeps/<name>/plan-<digest>.jobs: a line of JSON, then a pickle of program, jobs and policy. It is the one file of
a results tree that can run code, so it is signed with a key that only the user has, and not unpickled without it.
"""

import contextlib
import hashlib
import hmac
import json
import os
import pickle
import platform
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.launch.job import Job, last_failure
from sweeps.launch.launch import Policy
from sweeps.launch.sending import Sent, dumps, unpacked
from sweeps.runs import code
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import listed, read_file, write_atomic
from sweeps.runs.program import Program

_LARGEST = 2**34  # bytes; some 2 kB for each job


@dataclass(frozen=True)
class Planned:
    """Jobs that are left, and how to run them."""

    program: Sent
    jobs: Sequence[Job]
    threads: int
    """Of each worker."""
    policy: Policy

    def write(self, folder: Path, points: Sequence[Job]) -> None:
        """Into a sweep's folder; it replaces an earlier plan of the same points."""
        names = "\n".join(sorted(f"{job.run_id} {job.spec.epochs}" for job in points))
        path = folder / f"plan-{hashlib.sha256(names.encode()).hexdigest()[:10]}.jobs"
        jobs = [replace(job, failure=last_failure(job.run)) for job in self.jobs]
        content = dumps((self.program, dumps(jobs), self.threads, vars(self.policy)))
        header = {"python": _python(), "package": code.package_digest("sweeps"), "seal": _seal(content)}
        write_atomic(path, json.dumps(header).encode() + b"\n" + content)


def plans(out: Path, name: str) -> list[Path]:
    """A sweep's plans, the newest first.

    Raises:
        InputError: its folder is a symbolic link.
    """
    with contextlib.suppress(OSError):
        found = [entry for entry in listed(out, "sweeps", name) if entry.name.startswith("plan-")]
        found.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns, reverse=True)
        return [Path(entry.path) for entry in found if entry.name.endswith(".jobs")]
    return []


@contextlib.contextmanager
def opened(path: Path, out: Path, *, trust: bool) -> Iterator[tuple[Program, Planned]]:
    """The program and its plan, in the planner's working directory if it exists.

    Args:
        out: the results tree's path here.
        trust: also what another user planned.

    Raises:
        InputError: the plan is another user's, of another version of Python or this package, or cannot be read.
    """
    try:
        header, content = _split(read_file(path, _LARGEST))
    except (OSError, DamagedRun, ValueError, TypeError) as error:
        raise InputError(
            "plan", str(path), f"cannot be read ({error}); repeat the sweep's own command to plan it again"
        ) from None
    if not trust and not _is_ours(header, content):
        raise InputError(
            "plan", str(path), "is not signed by your key, and working on it runs code from it: plan the "
            "sweep again by its own command, or say --trust"
        )  # fmt: skip
    if (header.get("python"), header.get("package")) != (_python(), code.package_digest("sweeps")):
        raise InputError(
            "plan", str(path), f"was made by another version of the sweeps package, or Python {header.get('python')}: "
            "install the same everywhere, or plan the sweep again by its own command"
        )  # fmt: skip
    try:
        sent, jobs, threads, policy = pickle.loads(content)
        with unpacked(sent) as program:
            found = [_seen_from(job, out) for job in pickle.loads(jobs)]
            yield program, Planned(sent, found, threads, Policy(**policy))
    except (ImportError, AttributeError) as error:
        raise InputError("plan", str(path), f"its program cannot be imported here ({error})") from None


def _seen_from(job: Job, out: Path) -> Job:
    return replace(job, spec=replace(job.spec, out=out))


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, rest = content.partition(b"\n")
    header = json.loads(line)
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, rest


def _python() -> str:
    """By value, functions go as bytecode, which only the same minor version reads."""
    return ".".join(platform.python_version_tuple()[:2])


def _seal(content: bytes) -> str:
    key = _key()
    return hmac.digest(key, content, "sha256").hex() if key else ""


def _is_ours(header: dict[str, Any], content: bytes) -> bool:
    seal = header.get("seal")
    return isinstance(seal, str) and seal != "" and hmac.compare_digest(seal.encode(), _seal(content).encode())


def _key() -> bytes | None:
    """The user's key, created when first needed; None if it cannot be created."""
    import platformdirs

    path = platformdirs.user_data_path("mlp-sweeps") / "plan.key"
    with contextlib.suppress(OSError, DamagedRun):
        with contextlib.suppress(FileNotFoundError):
            return read_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
        return read_file(path)
    return None
