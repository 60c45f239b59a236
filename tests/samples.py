"""What the tests of datasets share: small files of every format, and a cache of the test's own.

pytest finds a fixture by its name in the test's module, so a module takes over those that it needs by assignment.
"""

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlp.data import Dataset, load

Options = dict[str, Any]
PLAIN: Options = {"holdout": 0, "holdout_seed": 0}
RNG_SEED = 7


@pytest.fixture
def mnist() -> Dataset:
    return load("mnist", PLAIN)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the process forgets what it has open."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MLP_CACHE", str(folder))
    monkeypatch.setattr("mlp.cache._open_arrays", {})
    return folder


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would know."""
    monkeypatch.setattr("mlp.cache._open_arrays", {})


def idx(array: NDArray[np.uint8], shape: tuple[int, ...] | None = None) -> bytes:
    shape = shape or array.shape
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def small(rows: int, *shape: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(rows)
    return rng.integers(0, 256, (rows, *shape), np.uint8), (np.arange(rows) % 10).astype(np.uint8)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """20 + 10 images of 2 × 3 in MNIST's format, half of the files gzipped."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, rows in (("train", 20), ("t10k", 10)):
        x, y = small(rows, 2, 3)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(x))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    return folder


def record(rows: int) -> bytes:
    x, y = small(rows, 3072)
    return np.column_stack([y, x]).tobytes()


@pytest.fixture
def cifar_folder(tmp_path: Path) -> Path:
    """Batches of 11, 12, …, 15 and a test batch of 10 records, the first gzipped."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(record(10 + i))
    first = folder / "data_batch_1.bin"
    (folder / "data_batch_1.bin.gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    (folder / "test_batch.bin").write_bytes(record(10))
    return folder


def arrays(**changes: Any) -> dict[str, Any]:
    """Good arrays for an .npz file, with changes; None takes a key away."""
    rng = np.random.default_rng(RNG_SEED)
    good: dict[str, Any] = {}
    for part, rows in (("train", 12), ("test", 6)):
        good[f"x_{part}"] = rng.integers(0, 256, (rows, 2, 2), np.uint8)
        good[f"y_{part}"] = np.arange(rows) % 3
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Options]:
    """Write an .npz file and give the options that name it."""

    def write(**changes: Any) -> Options:
        path = tmp_path / "mine.npz"
        np.savez(path, allow_pickle=True, **arrays(**changes))
        return {**PLAIN, "path": str(path)}

    return write


def run(code: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout
