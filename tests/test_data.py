"""The datasets: their parsers against damaged files, the cache against crowds and decay, and the batches."""

import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlp import data
from mlp.schema import InputError

Options = dict[str, Any]
PLAIN: Options = {"holdout": 0, "holdout_seed": 0}
RNG_SEED = 7


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared_cache")


@pytest.fixture
def mnist(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    monkeypatch.setenv("MLP_CACHE", str(shared_cache))
    return data.load("mnist", PLAIN)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the process forgets what it has open."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MLP_CACHE", str(folder))
    monkeypatch.setattr(data, "_open_arrays", {})
    return folder


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would know."""
    monkeypatch.setattr(data, "_open_arrays", {})


# ------------------------------------------------------------------------------------------------------ small files


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


# ------------------------------------------------------------------------------------------------------------ MNIST


def test_mnist_is_the_published_one(mnist: data.Dataset) -> None:
    assert (mnist.classes, mnist.features) == (10, 784)
    assert mnist.train.x.shape == (60_000, 784)
    assert mnist.test.x.shape == (10_000, 784)
    assert mnist.train.x.dtype == np.uint8
    assert mnist.train.y.dtype == np.intp
    assert mnist.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # published
    assert np.bincount(mnist.train.y).tolist() == counts
    # The well-known mean brightness, 0.1307 of 255.
    assert mnist.train.x.mean() / 255 == pytest.approx(0.1306604762738429, rel=1e-12)
    assert mnist.train.x.sum(dtype=np.int64) == 1_567_298_545


def test_mnist_checksums_are_those_of_the_files(mnist: data.Dataset) -> None:
    folder = Path(data.__file__).with_name("mnist")
    actual = {
        path.stem: "sha256:" + hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in folder.glob("*.gz")
    }
    assert mnist.checksums == actual
    licence = (folder / "LICENSE.md").read_text(encoding="utf-8")
    for file, checksum in actual.items():
        assert f"{checksum.removeprefix('sha256:')}  {file}" in licence


def test_mnist_checksums_need_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "_PACKAGED_MNIST", tmp_path / "nowhere")
    assert len(data.source("mnist", PLAIN).checksums()) == 4


def test_without_a_holdout_valid_is_the_test_set(mnist: data.Dataset) -> None:
    assert mnist.valid is mnist.test
    assert mnist.train.rows.tolist() == list(range(60_000))


def test_arrays_are_mapped_and_read_only(mnist: data.Dataset, shared_cache: Path) -> None:
    assert type(mnist.train.x) is np.ndarray
    assert isinstance(mnist.train.x.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mnist.train.x[0, 0] = 1
    assert data.load("mnist", PLAIN).train.x is mnist.train.x  # one map per process


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "lying header"])
def test_a_damaged_package_is_named(damage: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = "t10k-labels-idx1-ubyte.gz"
    for original in data._PACKAGED_MNIST.glob("*.gz"):
        (tmp_path / original.name).symlink_to(original)
    monkeypatch.setattr(data, "_PACKAGED_MNIST", tmp_path)
    content = gzip.decompress((tmp_path / file).read_bytes())
    (tmp_path / file).unlink()
    if damage == "flip":
        (tmp_path / file).write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    elif damage == "truncate":
        (tmp_path / file).write_bytes(gzip.compress(content)[:-100])
    elif damage == "lying header":
        (tmp_path / file).write_bytes(gzip.compress(content[:4] + struct.pack(">I", 2**32 - 1) + content[8:]))
    with pytest.raises(InputError, match=r"data=mnist: .*install the package again") as error:
        data.load("mnist", PLAIN)
    if damage != "truncate":  # zlib cannot name it
        assert "t10k-labels-idx1-ubyte" in str(error.value)


# ---------------------------------------------------------------------------------------------------------- holdout


@pytest.mark.parametrize("count", [1, 7, 5000, 59_999])
def test_holdout_keeps_the_proportions_of_the_classes(mnist: data.Dataset, count: int) -> None:
    split = data.load("mnist", {"holdout": count, "holdout_seed": 3})
    assert (len(split.train), len(split.valid), len(split.test)) == (60_000 - count, count, 10_000)
    assert np.array_equal(np.sort(np.concatenate([split.train.rows, split.valid.rows])), np.arange(60_000))
    for part in (split.train, split.valid):
        assert np.array_equal(part.y, mnist.train.y[part.rows])
        exact = np.bincount(mnist.train.y) * len(part) / 60_000
        assert np.abs(np.bincount(part.y, minlength=10) - exact).max() < 1


def test_holdout_rounds_by_the_largest_remainder(cache: Path, npz: Callable[..., Options]) -> None:
    # 7, 4, 1 of 12 examples; 5 of them: 2.917, 1.667, 0.417 -> 3, 2, 0
    options = npz(y_train=np.repeat([0, 1, 2], [7, 4, 1])) | {"holdout": 5}
    assert np.bincount(data.load("npz", options).valid.y, minlength=3).tolist() == [3, 2, 0]


def test_holdout_follows_its_seed(mnist: data.Dataset) -> None:
    rows = [data.load("mnist", {"holdout": 5000, "holdout_seed": seed}).valid.rows for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1])
    # Two draws of 5000 from 60 000 share about 417.
    assert 300 < len(np.intersect1d(rows[0], rows[2])) < 550


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 60_000, "holdout_seed": 0}, "data.holdout=60000: must be < 60000"),
        ({"holdout": -1, "holdout_seed": 0}, "data.holdout=-1: must be a whole number ≥ 0"),
        ({"holdout": 0}, "data.holdout_seed.*is missing"),
        ({"holdout": 0, "holdout_seed": 0, "path": "x"}, "data.path=x: no such field"),
    ],
)
def test_wrong_options(mnist: data.Dataset, options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load("mnist", options)


def test_an_unknown_dataset_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"data.name=minst: must be one of mnist, .*did you mean mnist"):
        data.load("minst", PLAIN)


# ---------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_scale_pixels(mnist: data.Dataset, dtype: str) -> None:
    split = data.load("mnist", {"holdout": 5000, "holdout_seed": 0}).valid
    batches = data.Batches(split, 200, dtype)
    index = np.random.default_rng(0).permutation(5000)[:150]
    x, y = batches.take(index)
    assert x.dtype == dtype
    assert x.shape == (150, 784)
    expected = (mnist.train.x[split.rows[index]].astype(np.float64) - 128) / 255
    np.testing.assert_allclose(x, expected, rtol=4 * float(np.finfo(dtype).eps), atol=0)
    assert np.array_equal(y, mnist.train.y[split.rows[index]])
    assert y.dtype == np.intp
    again, _ = batches.take(index[:10])
    assert np.shares_memory(x, again)


@pytest.mark.parametrize("index", [[60_000], [0] * 201])
def test_batches_check_positions(mnist: data.Dataset, index: list[int]) -> None:
    with pytest.raises((IndexError, ValueError)):
        data.Batches(mnist.train, 200, np.float32).take(np.array(index))


@pytest.mark.parametrize("stored", [">f4", "<f4", "<f8"])
def test_floats_are_kept_as_they_are(cache: Path, npz: Callable[..., Options], stored: str) -> None:
    x = {f"x_{part}": np.linspace(-3, 3, rows * 4).reshape(rows, 4).astype(stored) for part, rows in SIZES}
    loaded = data.load("npz", npz(**x))
    assert loaded.train.x.dtype == np.dtype(stored).newbyteorder("=")
    assert np.array_equal(loaded.train.x, x["x_train"])
    for dtype in ("float32", "float64"):
        batch, _ = data.Batches(loaded.train, 12, dtype).take(np.arange(12)[::-1])
        assert np.array_equal(batch, x["x_train"][::-1].astype(dtype))


SIZES = (("train", 12), ("test", 6))


# ------------------------------------------------------------------------------------------------------ other files


def test_fashion_reads_small_files_of_its_format(cache: Path, idx_folder: Path) -> None:
    loaded = data.load("fashion_mnist", {**PLAIN, "path": str(idx_folder)})
    x, y = small(20, 2, 3)
    assert np.array_equal(loaded.train.x, x.reshape(20, 6))
    assert np.array_equal(loaded.train.y, y)
    assert (loaded.classes, loaded.features, len(loaded.test)) == (10, 6, 10)
    assert loaded.checksums == {
        path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for path in idx_folder.iterdir()
    }


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
        "from mlp import data\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n"
        "    data.load('fashion_mnist', {'holdout': 0, 'holdout_seed': 0, 'path': sys.argv[1]})\n"
        "except data.InputError as error:\n"
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


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_folder_without_the_files(cache: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"data.path=.* holds neither .* nor .*\.gz"):
        data.load(name, {**PLAIN, "path": str(tmp_path)})


@pytest.mark.skipif(not data._DEBIAN_FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_fashion_from_debian(cache: Path) -> None:
    loaded = data.load("fashion_mnist", {**PLAIN, "path": None})
    assert np.bincount(loaded.train.y).tolist() == [6000] * 10
    assert loaded.train.x.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # the published mean
    assert loaded.train.y[:5].tolist() == [9, 0, 0, 3, 0]


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_offline_says_where_it_looked(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(data, "_DEBIAN_FASHION", tmp_path / "no-debian")
    for url in ("_FASHION_URL", "_CIFAR10_URL"):
        monkeypatch.setattr(data, url, "http://127.0.0.1:9/")  # the port of "discard": refused at once
    with pytest.raises(InputError) as error:
        data.load(name, {**PLAIN, "path": None})
    message = str(error.value)
    assert message.startswith(f"data={name}: downloading http://127.0.0.1:9/")
    assert str(cache) in message
    assert "data=npz" in message
    assert "data.path" in message
    assert name == "cifar10" or ("no-debian" in message and "apt-get install dataset-fashion-mnist" in message)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that serves it."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_fashion_is_downloaded_and_checked(
    cache: Path, tmp_path: Path, server: tuple[Path, str], idx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = server
    monkeypatch.setattr(data, "_DEBIAN_FASHION", tmp_path / "no-debian")
    monkeypatch.setattr(data, "_FASHION_URL", url)
    known = {}
    for path in idx_folder.iterdir():
        content = gzip.decompress(path.read_bytes()) if path.suffix else path.read_bytes()
        known[path.name.removesuffix(".gz")] = "sha256:" + hashlib.sha256(content).hexdigest()
        (folder / (path.name.removesuffix(".gz") + ".gz")).write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"data=fashion_mnist: .* is damaged"):  # not the true ones
        data.load("fashion_mnist", {**PLAIN, "path": None})
    monkeypatch.setattr(data, "_FASHION", known)
    assert np.array_equal(data.load("fashion_mnist", {**PLAIN, "path": None}).train.y, small(20)[1])


def test_cifar_reads_small_files_of_its_format(cache: Path, cifar_folder: Path) -> None:
    loaded = data.load("cifar10", {**PLAIN, "path": str(cifar_folder)})
    assert (len(loaded.train), len(loaded.test), loaded.classes, loaded.features) == (65, 10, 10, 3072)
    x, y = small(12, 3072)
    assert np.array_equal(loaded.train.x[11:23], x)
    assert np.array_equal(loaded.train.y[11:23], y)
    assert set(loaded.checksums) == {
        "data_batch_1.bin.gz",
        "test_batch.bin",
        *(f"data_batch_{i}.bin" for i in (2, 3, 4, 5)),
    }


@pytest.mark.parametrize("content", [b"", record(3)[:-1], record(1) * 10_001], ids=["empty", "cut", "long"])
def test_cifar_records_are_checked(cache: Path, cifar_folder: Path, content: bytes) -> None:
    (cifar_folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"data.path=.*test_batch.bin must hold 1 to 10000 records of 3073 bytes"):
        data.load("cifar10", {**PLAIN, "path": str(cifar_folder)})


def archive(folder: Path, *, without: str = "") -> bytes:
    """The small files as the published archive has them, among others that must not be touched."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        members = {path.name.removesuffix(".gz"): path for path in sorted(folder.iterdir())}
        for name, path in members.items():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            if name != without:
                add(tar, f"cifar-10-batches-bin/{name}", content)
        add(tar, "../../test_batch.bin", b"not this one")
    return target.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_cifar_is_downloaded_and_checked(
    cache: Path, server: tuple[Path, str], cifar_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = server
    monkeypatch.setattr(data, "_CIFAR10_URL", url)
    options = {**PLAIN, "path": None}
    name = "cifar-10-binary.tar.gz"

    (folder / name).write_bytes(archive(cifar_folder))
    with pytest.raises(InputError, match="does not match the known hash"):
        data.load("cifar10", options)

    monkeypatch.setattr(data, "_CIFAR10", {name: data._sha256(folder / name)})
    assert np.array_equal(data.load("cifar10", options).test.x, small(10, 3072)[0])

    (folder / name).write_bytes(archive(cifar_folder, without="data_batch_3.bin"))
    monkeypatch.setattr(data, "_CIFAR10", {name: data._sha256(folder / name)})
    with pytest.raises(InputError, match=r"cifar-10-binary.tar.gz lacks data_batch_3.bin"):
        data.load("cifar10", options)


# -------------------------------------------------------------------------------------------------------------- npz


def test_npz_flattens_and_counts_the_classes(
    cache: Path, npz: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npz(y_test=np.array([0, 1, 2, 3, 4, 0], np.uint64), x_train=np.asfortranarray(arrays()["x_train"]))
    monkeypatch.chdir(tmp_path)
    loaded = data.load("npz", {**PLAIN, "path": "mine.npz"})
    assert (loaded.classes, loaded.features) == (5, 4)
    assert np.array_equal(loaded.train.x, arrays()["x_train"].reshape(12, 4))
    assert loaded.train.y.dtype == np.intp


def test_npz_identity_is_the_content(cache: Path, npz: Callable[..., Options], tmp_path: Path) -> None:
    options = npz()
    before = data.source("npz", options).checksums()
    assert before == {"npz": "sha256:" + hashlib.sha256((tmp_path / "mine.npz").read_bytes()).hexdigest()}
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    assert data.source("npz", {**options, "path": str(tmp_path / "moved.npz")}).checksums() == before
    assert data.source("npz", npz(y_test=np.zeros(6, int))).checksums() != before


def test_a_changed_npz_is_read_anew(cache: Path, npz: Callable[..., Options]) -> None:
    first = data.load("npz", npz())
    second = data.load("npz", npz(y_train=np.arange(12) % 2))
    assert first.train.y.max() == 2
    assert second.train.y.max() == 1


def test_npz_may_bring_a_validation_set(cache: Path, npz: Callable[..., Options]) -> None:
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    options = npz(x_valid=x, y_valid=np.array([1, 2]))
    loaded = data.load("npz", options)
    assert np.array_equal(loaded.valid.x, x)
    assert loaded.valid is not loaded.test
    with pytest.raises(InputError, match=r"data.holdout=3: must be 0, for the file brings a validation set"):
        data.load("npz", {**options, "holdout": 3})


X = arrays()["x_train"]


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
    with pytest.raises(InputError, match=r"x_train is damaged: its header promises \(.*\) of uint8"):
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
        read = data.Npz(str(path)).read()
    except InputError:
        return
    # What the CRC does not cover changed: dates, or nothing at all.
    assert all(np.array_equal(read[key].ravel(), value.ravel()) for key, value in arrays().items())


# -------------------------------------------------------------------------------------------------------- the cache


def run(code: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_processes_that_start_together_unpack_once(cache: Path) -> None:
    code = (
        "import mlp.data as d, sys\n"
        "read = d.Mnist.read\n"
        "d.Mnist.read = lambda self: (print('unpacked'), read(self))[1]\n"
        "sys.stdin.read(1)\n"  # all are let go at once
        "data = d.load('mnist', {'holdout': 0, 'holdout_seed': 0})\n"
        "print(int(data.train.x.sum()), type(data.train.x.base).__name__)\n"
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


def test_a_filled_cache_serves_who_may_not_write(
    cache: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options], caplog: pytest.LogCaptureFixture
) -> None:
    options = npz()
    data.load("npz", options)
    forget(monkeypatch)
    monkeypatch.setattr(data, "_fill_folder", None)  # would lock and write
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
    assert data._sha256(victim) == json.loads(record.read_text())["x_train"]
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]


def test_a_source_that_changes_while_it_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch, npz: Callable[..., Options]
) -> None:
    options = npz()
    read = data.Npz.read

    def overtaken(self: data.Npz) -> data.Arrays:
        arrays = read(self)
        npz(y_train=np.arange(12) % 2)
        return arrays

    monkeypatch.setattr(data.Npz, "read", overtaken)
    with pytest.raises(InputError, match="changed while it was being read"):
        data.load("npz", options)
    assert not list(cache.glob("*/cache.json"))


def test_the_cache_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data.cache_dir() == Path("/somewhere/mlp-sweeps")


# ------------------------------------------------------------------------------------------------------ the registry


def test_importing_is_cheap() -> None:
    heavy = ["pandas", "matplotlib", "hydra", "omegaconf", "pooch", "platformdirs", "requests"]
    assert run(f"import sys, mlp.data; print([m for m in {heavy} if m in sys.modules])") == "[]\n"


def test_every_dataset_has_its_yaml_and_the_common_options() -> None:
    conf = Path(__file__).parents[1] / "conf" / "data"
    assert {path.stem for path in conf.glob("*.yaml")} == set(data.DATASETS)
    for name in data.DATASETS:
        lines = (conf / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        keys = {line.partition(":")[0] for line in lines if line and not line.startswith("#")}
        assert keys == {"name", *data.options(name)} >= set(data.COMMON)
        assert f"name: {name}" in lines
