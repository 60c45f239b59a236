"""The sources: what each reads, from where, and what stands for it in a run's identity."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import samples
from samples import PLAIN, Options, arrays, small

from mlp import data, datasets
from mlp.formats import sha256
from sweeps.runs.errors import InputError

mnist, cache, npz = samples.mnist, samples.cache, samples.npz
idx_folder, cifar_folder = samples.idx_folder, samples.cifar_folder


def test_every_dataset_has_its_yaml_and_the_common_options() -> None:
    conf = Path(__file__).parents[1] / "conf" / "data"
    assert {path.stem for path in conf.glob("*.yaml")} == set(datasets.DATASETS)
    for name in datasets.DATASETS:
        lines = (conf / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        keys = {line.partition(":")[0] for line in lines if line and not line.startswith("#")}
        assert keys == {"name", *datasets.options(name)} >= set(datasets.COMMON)
        assert f"name: {name}" in lines


# ------------------------------------------------------------------------------------------------------------ MNIST


def test_mnist_checksums_are_those_of_the_files(mnist: data.Dataset) -> None:
    folder = Path(datasets.__file__).with_name("mnist")
    actual = {
        path.stem: "sha256:" + hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in folder.glob("*.gz")
    }
    assert mnist.checksums == actual
    licence = (folder / "LICENSE.md").read_text(encoding="utf-8")
    for file, checksum in actual.items():
        assert f"{checksum.removeprefix('sha256:')}  {file}" in licence


def test_mnist_checksums_need_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets, "_PACKAGED_MNIST", tmp_path / "nowhere")
    assert len(datasets.source("mnist", PLAIN).checksums()) == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "lying header"])
def test_a_damaged_package_is_named(damage: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = "t10k-labels-idx1-ubyte.gz"
    for original in datasets._PACKAGED_MNIST.glob("*.gz"):
        (tmp_path / original.name).symlink_to(original)
    monkeypatch.setattr(datasets, "_PACKAGED_MNIST", tmp_path)
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


# ------------------------------------------------------------------------------------------- Fashion-MNIST, CIFAR-10


def test_fashion_reads_small_files_of_its_format(cache: Path, idx_folder: Path) -> None:
    loaded = data.load("fashion_mnist", {**PLAIN, "path": str(idx_folder)})
    x, y = small(20, 2, 3)
    assert np.array_equal(loaded.train.x, x.reshape(20, 6))
    assert np.array_equal(loaded.train.y, y)
    assert (loaded.classes, loaded.features, len(loaded.test)) == (10, 6, 10)
    assert loaded.checksums == {
        path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for path in idx_folder.iterdir()
    }


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


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_folder_without_the_files(cache: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"data.path=.* holds neither .* nor .*\.gz"):
        data.load(name, {**PLAIN, "path": str(tmp_path)})


@pytest.mark.skipif(not datasets._DEBIAN_FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_fashion_from_debian(cache: Path) -> None:
    loaded = data.load("fashion_mnist", {**PLAIN, "path": None})
    assert np.bincount(loaded.train.y).tolist() == [6000] * 10
    assert loaded.train.x.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # the published mean
    assert loaded.train.y[:5].tolist() == [9, 0, 0, 3, 0]


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_offline_says_where_it_looked(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(datasets, "_DEBIAN_FASHION", tmp_path / "no-debian")
    for url in ("_FASHION_URL", "_CIFAR10_URL"):
        monkeypatch.setattr(datasets, url, "http://127.0.0.1:9/")  # the port of "discard": refused at once
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
    monkeypatch.setattr(datasets, "_DEBIAN_FASHION", tmp_path / "no-debian")
    monkeypatch.setattr(datasets, "_FASHION_URL", url)
    known = {}
    for path in idx_folder.iterdir():
        content = gzip.decompress(path.read_bytes()) if path.suffix else path.read_bytes()
        known[path.name.removesuffix(".gz")] = "sha256:" + hashlib.sha256(content).hexdigest()
        (folder / (path.name.removesuffix(".gz") + ".gz")).write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"data=fashion_mnist: .* is damaged"):  # not the true ones
        data.load("fashion_mnist", {**PLAIN, "path": None})
    monkeypatch.setattr(datasets, "_FASHION", known)
    assert np.array_equal(data.load("fashion_mnist", {**PLAIN, "path": None}).train.y, small(20)[1])


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
    monkeypatch.setattr(datasets, "_CIFAR10_URL", url)
    options = {**PLAIN, "path": None}
    name = "cifar-10-binary.tar.gz"

    (folder / name).write_bytes(archive(cifar_folder))
    with pytest.raises(InputError, match="does not match the known hash"):
        data.load("cifar10", options)

    monkeypatch.setattr(datasets, "_CIFAR10", {name: sha256(folder / name)})
    assert np.array_equal(data.load("cifar10", options).test.x, small(10, 3072)[0])

    (folder / name).write_bytes(archive(cifar_folder, without="data_batch_3.bin"))
    monkeypatch.setattr(datasets, "_CIFAR10", {name: sha256(folder / name)})
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
    before = datasets.source("npz", options).checksums()
    assert before == {"npz": "sha256:" + hashlib.sha256((tmp_path / "mine.npz").read_bytes()).hexdigest()}
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    assert datasets.source("npz", {**options, "path": str(tmp_path / "moved.npz")}).checksums() == before
    assert datasets.source("npz", npz(y_test=np.zeros(6, int))).checksums() != before
