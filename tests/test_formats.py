"""The parsers against damaged, lying and unsuitable files."""

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import PLAIN, Options, arrays, idx, record, run, small

from mlp import data
from mlp.datasets import Npz
from sweeps.runs.errors import InputError

cache, npz = samples.cache, samples.npz
idx_folder, cifar_folder = samples.idx_folder, samples.cifar_folder

X = arrays()["x_train"]


# --------------------------------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (idx(small(20, 2, 3)[0])[:-1], "promises 20 × 2 × 3 bytes, but holds only 119"),
        (idx(small(20, 2, 3)[0]) + b"x", "promises 20 × 2 × 3 bytes, but holds more"),
        (b"\1" + idx(small(20, 2, 3)[0])[1:], "is no IDX file"),
        (idx(small(20)[1]), "is no IDX file of unsigned bytes in 3 dimensions"),
        (idx(small(20, 2, 3)[0], (10**4, 10**4, 10**4)), "promises .* but holds only 120"),
        (idx(small(20, 2, 3)[0], (20, 3, 2)), None),  # the same number of bytes: no fault to be found
        (idx(small(20, 2, 2)[0]), "x_test has 6 features per row, but x_train has 4"),
        (idx(small(19, 2, 3)[0]), "x_train has 19 rows, but y_train has 20"),
        (idx(small(20, 2, 3)[0][:0]), "x_train has the shape .*at least one row"),
    ],
)
def test_idx_files_are_checked(cache: Path, idx_folder: Path, content: bytes, message: str | None) -> None:
    (idx_folder / "train-images-idx3-ubyte").write_bytes(content)
    options = {**PLAIN, "path": str(idx_folder)}
    if message is None:
        assert data.load("fashion_mnist", options).features == 6
        return
    with pytest.raises(InputError, match=message) as error:
        data.load("fashion_mnist", options)
    assert str(error.value).startswith(f"data.path={idx_folder}: ")


def test_a_header_that_claims_a_trillion_bytes_allocates_nothing(cache: Path, idx_folder: Path) -> None:
    (idx_folder / "train-images-idx3-ubyte").write_bytes(idx(small(1)[0], (10**4, 10**4, 10**4)))
    code = (
        "import resource, sys\n"
        "from mlp import data\nfrom sweeps.runs import errors\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n"
        "    data.load('fashion_mnist', {'holdout': 0, 'holdout_seed': 0, 'path': sys.argv[1]})\n"
        "except errors.InputError as error:\n"
        "    print(error)\n"
    )
    result = run(code, str(idx_folder))
    assert "10000 × 10000 × 10000 bytes, but holds only 1" in result


def test_labels_beyond_the_known_classes(cache: Path, idx_folder: Path) -> None:
    (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(20, 10, np.uint8))))
    with pytest.raises(InputError, match=r"y_train holds labels from 10 to 10; must be within 0 … 9"):
        data.load("fashion_mnist", {**PLAIN, "path": str(idx_folder)})


def test_a_damaged_gzip_file(cache: Path, idx_folder: Path) -> None:
    path = idx_folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="Compressed file ended"):
        data.load("fashion_mnist", {**PLAIN, "path": str(idx_folder)})


# ---------------------------------------------------------------------------------------------------- CIFAR's records


@pytest.mark.parametrize("content", [b"", record(3)[:-1], record(1) * 10_001], ids=["empty", "cut", "long"])
def test_cifar_records_are_checked(cache: Path, cifar_folder: Path, content: bytes) -> None:
    (cifar_folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"data.path=.*test_batch.bin must hold 1 to 10000 records of 3073 bytes"):
        data.load("cifar10", {**PLAIN, "path": str(cifar_folder)})


# -------------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test; it must hold x_train, y_train, x_test, y_test"),
        ({"x_valid": X}, "lacks y_valid"),
        ({"x_train": X.astype(np.float16)}, "x_train is float16; must be uint8"),
        ({"x_train": X.astype(np.int64)}, "x_train is int64; must be uint8"),
        ({"x_train": np.array([{}] * 12)}, "x_train is object; must be"),
        ({"x_train": np.array(["a"] * 12)}, "x_train is <U1; must be"),
        ({"x_train": np.zeros(12, np.uint8)}, "x_train has the shape"),
        ({"x_train": np.uint8(1)}, "x_train has the shape"),
        ({"x_train": np.zeros((12, 0), np.uint8)}, "at least one row and one feature"),
        ({"x_train": X[:, :1]}, "x_test has 4 features per row, but x_train has 2"),
        ({"x_train": X.astype(np.float32)}, "x_test is uint8, but x_train is float32"),
        ({"x_train": np.where(np.eye(12, 4), np.nan, 1.0)}, "x_train holds NaN, infinity"),
        ({"x_train": np.where(np.eye(12, 4), -np.inf, 1.0)}, "x_train holds NaN, infinity"),
        ({"x_train": np.full((12, 4), 1e39)}, "what float32 cannot hold"),
        ({"y_train": np.arange(11) % 3}, "x_train has 12 rows, but y_train has 11"),
        ({"y_train": (np.arange(12) % 3).astype(float)}, "y_train is float64; must be whole numbers"),
        ({"y_train": np.arange(12) - 1}, "y_train holds labels from -1 to 10"),
        ({"y_train": np.full(12, 2**63, np.uint64)}, "must be within 0 … 65535"),
        ({"y_train": np.zeros((12, 1), int)}, r"y_train has the shape \(12, 1\); must be \(rows,\)"),
        ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "at least two classes"),
    ],
)
def test_npz_arrays_are_checked(
    cache: Path, npz: Callable[..., Options], changes: dict[str, Any], message: str
) -> None:
    options = npz(**changes)
    with pytest.raises(InputError, match=message) as error:
        data.load("npz", options)
    assert str(error.value).startswith(f"data.path={options['path']}: ")
    assert not list(cache.glob("*/cache.json"))


def test_files_that_are_no_npz(cache: Path, tmp_path: Path, npz: Callable[..., Options]) -> None:
    whole = Path(npz()["path"]).read_bytes()
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "renamed.npz")
    (tmp_path / "truncated.npz").write_bytes(whole[:-30])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    for file, message in {
        "renamed": "is not an .npz file",
        "truncated": "is cut short",
        "empty": "is not an .npz file",
        "folder": "is not a file",
        "pipe": "is not a file",
        "missing": "No such file",
    }.items():
        path = str(tmp_path / f"{file}.npz")
        with pytest.raises(InputError, match=message) as error:
            data.load("npz", {**PLAIN, "path": path})
        assert str(error.value).startswith(f"data.path={path}: ")


@pytest.mark.parametrize(
    ("promised", "listed"),
    [
        ((10**6, 10**6), None),  # more than the archive lists
        ((11, 4), None),  # less: the last row would be lost without a word
        ((2**31, 1), 2**31),  # the archive's own list lies too
        ((-12, -4), None),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_of_another_size_than_promised(
    cache: Path, npz: Callable[..., Options], promised: tuple[int, int], listed: int | None, compression: int
) -> None:
    options = npz()
    with zipfile.ZipFile(options["path"]) as good:
        members = {name: good.read(name) for name in good.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": promised})
    members["x_train.npy"] = header.getvalue() + bytes(48)
    with zipfile.ZipFile(options["path"], "w", compression) as bad:
        for name, content in members.items():
            bad.writestr(name, content)
        if listed is not None:
            bad.getinfo("x_train.npy").file_size = len(header.getvalue()) + listed
    with pytest.raises(InputError, match=r"x_train (is damaged: |has a garbled header)"):
        data.load("npz", options)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_whose_bytes_have_changed(cache: Path, npz: Callable[..., Options], compression: int) -> None:
    options = npz()
    with zipfile.ZipFile(options["path"]) as good:
        members = {name: good.read(name) for name in good.namelist()}
    with zipfile.ZipFile(options["path"], "w", compression) as bad:
        for name, content in members.items():
            bad.writestr(name, content)
        bad.getinfo("x_test.npy").CRC ^= 1
    with pytest.raises(InputError, match=r"Bad CRC-32 for file 'x_test.npy'"):
        data.load("npz", options)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draw=st.data(), compressed=st.booleans())
def test_no_damage_to_an_npz_escapes_as_another_error(tmp_path: Path, draw: st.DataObject, compressed: bool) -> None:
    target = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(target, **arrays())
    content = bytearray(target.getvalue())
    for _ in range(draw.draw(st.integers(1, 3))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.npz"
    path.write_bytes(content)
    try:
        read = Npz(str(path)).read()
    except InputError:
        return
    # What the CRC does not cover changed: dates, or nothing at all.
    assert all(np.array_equal(read[key].ravel(), value.ravel()) for key, value in arrays().items())
