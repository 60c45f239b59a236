"""The cache against crowds, full disks and decay."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import samples
from samples import PLAIN, Options, arrays, forget

from mlp import data
from mlp.cache import cache_dir
from mlp.datasets import Npz
from mlp.formats import Arrays, sha256
from sweeps.runs.errors import InputError

mnist, cache, npz = samples.mnist, samples.cache, samples.npz


def test_arrays_are_mapped_and_read_only(mnist: data.Dataset) -> None:
    assert type(mnist.train.x) is np.ndarray
    assert isinstance(mnist.train.x.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mnist.train.x[0, 0] = 1
    assert data.load("mnist", PLAIN).train.x is mnist.train.x  # one map per process


def test_a_changed_npz_is_read_again(cache: Path, npz: Callable[..., Options]) -> None:
    first = data.load("npz", npz())
    second = data.load("npz", npz(y_train=np.arange(12) % 2))
    assert first.train.y.max() == 2
    assert second.train.y.max() == 1


def test_processes_that_start_together_unpack_once(cache: Path) -> None:
    code = (
        "import sys\n"
        "from mlp import data, datasets\n"
        "read = datasets.Mnist.read\n"
        "datasets.Mnist.read = lambda self: (print('unpacked'), read(self))[1]\n"
        "sys.stdin.read(1)\n"  # all are let go at once
        "train = data.load('mnist', {'holdout': 0, 'holdout_seed': 0}).train\n"
        "print(int(train.x.sum()), type(train.x.base).__name__)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("x")
        worker.stdin.flush()
    results = [worker.communicate(timeout=60) for worker in workers]
    assert [error for _, error in results] == [""] * 5
    lines = [line for out, _ in results for line in out.splitlines()]
    assert sorted(lines) == ["1567298545 memmap"] * 5 + ["unpacked"]
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("a file where the folder should be: unwritable even for root")
    monkeypatch.setenv("MLP_CACHE", str(tmp_path / "file" / "cache"))
    options = npz()
    for _ in range(2):
        loaded = data.load("npz", options)
    assert np.array_equal(loaded.train.x, arrays()["x_train"].reshape(12, 4))
    assert not loaded.train.x.flags.writeable
    assert [record.message[:22] for record in caplog.records] == ["cannot write the cache"]


def test_a_full_disk(
    cache: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options], caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert len(data.load("npz", npz()).train) == 12
    assert "No space left" in caplog.text
    assert [path.suffix for path in cache.iterdir()] == [".lock"]  # nothing half-written


def test_a_filled_cache_serves_read_only_users(
    cache: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options], caplog: pytest.LogCaptureFixture
) -> None:
    options = npz()
    data.load("npz", options)
    forget(monkeypatch)
    monkeypatch.setattr("mlp.cache._fill_folder", None)  # would lock and write
    assert isinstance(data.load("npz", options).train.x.base, np.memmap)
    assert not caplog.records


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "record", "empty record", "half-written"])
def test_a_damaged_cache_is_rebuilt(
    damage: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    npz: Callable[..., Options],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = npz()
    data.load("npz", options)
    (folder,) = (path.parent for path in cache.glob("*/cache.json"))
    assert folder.name.startswith("npz-")
    assert len(folder.name) == 4 + 12
    victim, record = folder / "x_train.npy", folder / "cache.json"
    content = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        victim.write_bytes(content[:-1])
    elif damage == "remove":
        victim.unlink()
    elif damage == "record":
        record.write_text("[]")
    elif damage == "empty record":
        record.write_text("{}")
    else:  # a process was killed before its rename
        folder.rename(folder.with_name(folder.name + ".tmp"))
    forget(monkeypatch)
    assert np.array_equal(data.load("npz", options).train.x, arrays()["x_train"].reshape(12, 4))
    assert bool(caplog.records) == (damage != "half-written")
    assert victim.read_bytes() == content
    assert sha256(victim) == json.loads(record.read_text())["x_train"]
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]


def test_a_source_that_changes_while_it_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options]
) -> None:
    options = npz()
    read = Npz.read

    def overtaken(self: Npz) -> Arrays:
        arrays = read(self)
        npz(y_train=np.arange(12) % 2)
        return arrays

    monkeypatch.setattr(Npz, "read", overtaken)
    with pytest.raises(InputError, match="changed while it was being read"):
        data.load("npz", options)
    assert not list(cache.glob("*/cache.json"))


def test_the_cache_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/mlp-sweeps")
