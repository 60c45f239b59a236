"""The cache: the arrays of a source, unpacked once into a folder, and memory-mapped from there by every process.

The folder is named after the checksums of the source, so changed data get another one; its own files are checked too.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np

from mlp.formats import REQUIRED, Arrays, sha256
from mlp.ink import find_ink
from sweeps.runs.errors import InputError

log = logging.getLogger(__name__)

_FORMAT = 2  # raise it when the canonical form of the arrays changes
_open_arrays: dict[Path, Arrays] = {}


class Source(Protocol):
    """Where a dataset comes from; constructed with its own options."""

    @property
    def classes(self) -> int | None:
        """How many there are, or None: one more than the largest label."""

    def checksums(self) -> dict[str, str]:
        """File → ``sha256:…``: represents the data in a run's identity. Reads only what it needs.

        Raises:
            InputError: a file that the user named is missing or unreadable.
        """

    def read(self) -> Arrays:
        """Read and check everything.

        Raises:
            InputError: names the option, the file and what is allowed.
        """


def cache_dir() -> Path:
    """``$MLP_CACHE``, or the user's cache directory of the platform."""
    if folder := os.environ.get("MLP_CACHE"):
        return Path(folder).absolute()
    import platformdirs

    folder = platformdirs.user_cache_dir("mlp-sweeps")
    return Path(folder if os.path.isabs(folder) else os.devnull)  # without a home directory there is no cache


def cached(name: str, origin: Source, checksums: dict[str, str]) -> Arrays:
    """The arrays of a source with these checksums: from this process, the cache, or the source."""
    digest = hashlib.sha256(json.dumps([_FORMAT, checksums], sort_keys=True).encode()).hexdigest()
    folder = cache_dir() / f"{name}-{digest[:12]}"
    if folder not in _open_arrays:
        arrays = _map_folder(folder) or _fill_folder(folder, origin, checksums)
        for array in arrays.values():
            array.flags.writeable = False
        _open_arrays[folder] = arrays
    return _open_arrays[folder]


def _map_folder(folder: Path) -> Arrays | None:
    """The arrays, verified and mapped; None if they are absent or damaged.

    Needs no lock and no write access: a folder appears whole, by a rename.
    """
    if not folder.is_dir():
        return None
    try:
        expected = json.loads((folder / "cache.json").read_text())
        if not isinstance(expected, dict) or not set(REQUIRED) <= set(expected):
            raise ValueError("cache.json does not list the arrays")
        for key, checksum in expected.items():
            if sha256(folder / f"{key}.npy") != checksum:
                raise ValueError(f"{key}.npy has changed")
        # np.asarray sheds the memmap class, which makes every slice of it slower; the map stays open beneath.
        mapped = {
            key: np.asarray(np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)) for key in expected
        }
        return {key: np.array(array, np.intp) if key.startswith("y") else array for key, array in mapped.items()}
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s); unpacking it again", folder, error)
        return None


def _fill_folder(folder: Path, origin: Source, checksums: dict[str, str]) -> Arrays:
    """Read the source and write it to the cache, unless another process just did; keep it in memory if that fails."""
    from filelock import FileLock

    arrays: Arrays | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if mapped := _map_folder(folder):
                return mapped
            arrays = _read_unchanged(origin, checksums)
            _write_folder(folder, arrays)
            if mapped := _map_folder(folder):
                return mapped
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        log.warning("cannot write the cache in %s (%s): keeping the data in memory", folder.parent, error)
    return _read_unchanged(origin, checksums) if arrays is None else arrays


def _read_unchanged(origin: Source, checksums: dict[str, str]) -> Arrays:
    arrays = origin.read()
    if origin.checksums() != checksums:
        raise InputError("data.path", getattr(origin, "path", ""), "changed while it was being read; try again")
    if ink := find_ink(arrays["x_train"]):
        arrays |= {f"ink_{name}": array for name, array in ink._asdict().items()}
    return arrays


def _write_folder(folder: Path, arrays: Arrays) -> None:
    """Whole or not at all; the caller holds the lock, so half-written files are left from a crash."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        written = {}
        for key, array in arrays.items():
            path = temporary / f"{key}.npy"
            with path.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
            written[key] = sha256(path)
        with (temporary / "cache.json").open("w") as record:
            json.dump(written, record, indent=1)
            record.flush()
            os.fsync(record.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        parent = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
