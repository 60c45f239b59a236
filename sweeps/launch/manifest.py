"""<out>/sweeps/<name>/manifest.json: the list of a sweep's runs and their overrides."""

import json
import os
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.launch.job import Job
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import folder, lock, read_if_there, read_json, set_aside, write_atomic
from sweeps.runs.status import now


def sweep_name(field: str, value: object) -> str | None:
    """A check as in :mod:`sweeps.runs.schema`: what may name a sweep, a date like 20261124 too; null for a default."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise InputError(field, value, "must be a text; quote it")
    return value


class Manifest:
    """One sweep's folder. A second sweep of the same name adds its runs to the first's.

    Raises:
        InputError: the name cannot be a folder's.
    """

    def __init__(self, out: Path, name: str) -> None:
        if not name or name in (".", "..") or not all(c.isalnum() or c in "._-" for c in name) or len(name) > 100:
            raise InputError("hydra.sweeper.name", name, "must be letters, digits, dots, dashes and underscores")
        self.name, self.out = name, out
        self.folder = out / "sweeps" / name
        self.path = self.folder / "manifest.json"
        # Of this process alone: the same sweep may run elsewhere. Containers have the same host name and pid again.
        self.stop_file = self.folder / f"stop-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._word = self._stop_word()

    def stop(self) -> None:
        """Ask everything that works on this sweep now, on any machine, to stop.

        Writes a new word, which processes that start later take for the old one: those continue, and no clocks
        are compared.
        """
        folder(self.out, "sweeps", self.name)
        write_atomic(self._word_file, uuid.uuid4().hex.encode())

    def halt(self) -> str | None:
        """The reason to stop, if :meth:`stop` was called after this object was created."""
        word = self._stop_word()
        if self._word is None:
            self._word = word
        return None if word in (None, b"", self._word) else "stopping at a checkpoint, since sweeps stop was called"

    @property
    def _word_file(self) -> Path:
        return self.folder / "stop"

    def _stop_word(self) -> bytes | None:
        """Empty if there is none; None if it cannot be read."""
        try:
            return read_if_there(self._word_file) or b""
        except (OSError, DamagedRun):
            return None

    def add(self, jobs: Sequence[Job], command: Sequence[str]) -> None:
        """Record the jobs before the first one starts."""
        folder(self.folder.parent.parent, "sweeps", self.name)
        with lock(self.folder / ".lock"):
            known = self._read()
            runs = {run["run_id"]: run for run in known.get("runs", [])}
            for job in jobs:
                entry: dict[str, Any] = {
                    "run_id": job.run_id,
                    "overrides": list(job.overrides),
                    "epochs": job.spec.epochs,
                }
                earlier = runs.get(job.run_id)
                if earlier is None or earlier["epochs"] < entry["epochs"]:
                    runs[job.run_id] = entry
            content = {
                "name": self.name,
                "created": known.get("created", now()),
                "updated": now(),
                "command": list(command),
                "runs": list(runs.values()),
            }
            write_atomic(self.path, json.dumps(content, indent=1).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self.path)
            for run in content["runs"]:
                hash(run["run_id"]), run["epochs"] + 0
        except FileNotFoundError:
            return {}
        except (DamagedRun, TypeError, LookupError):
            set_aside(self.path)
            return {}
        return dict(content)
