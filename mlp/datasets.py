"""Where datasets come from: a source per name in :data:`DATASETS`.

A source reads one kind of file into plain arrays, and knows the checksums without reading them.
"""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from mlp.cache import Source, cache_dir
from mlp.formats import (
    CIFAR10_FILES,
    IDX_FILES,
    UNREADABLE,
    Arrays,
    blame,
    canonical,
    find,
    read_idx_files,
    read_npz,
    read_record_files,
    read_record_tar,
    sha256,
)
from sweeps.runs.schema import Check, Entry, entry, integer, one_of, optional, text

log = logging.getLogger(__name__)

# Of the unpacked files: gzip's output differs between compressors.
_MNIST = {
    "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION = {
    "train-images-idx3-ubyte": "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_CIFAR10 = {"cifar-10-binary.tar.gz": "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}

_PACKAGED_MNIST = Path(__file__).with_name("mnist")
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/"


@final
class Mnist:
    """Handwritten digits (Y. LeCun, C. Cortes, C. Burges), 60 000 + 10 000 of 28 × 28, shipped with the package."""

    classes = 10

    def checksums(self) -> dict[str, str]:
        return dict(_MNIST)

    def read(self) -> Arrays:
        with blame("data", "mnist", "; the installation is damaged, so install the package again"):
            return canonical(read_idx_files(_PACKAGED_MNIST, _MNIST), self.classes)


@final
@dataclass(frozen=True)
class FashionMnist:
    """Zalando's articles (arXiv:1708.07747), in MNIST's format: from ``path``, or Debian's package, or a download."""

    path: str | None
    classes = 10

    def checksums(self) -> dict[str, str]:
        return dict(_FASHION) if self.path is None else _file_checksums(self.path, IDX_FILES.values())

    def read(self) -> Arrays:
        if self.path is not None:
            with blame("data.path", self.path):
                return canonical(read_idx_files(Path(self.path)), self.classes)
        try:
            arrays = read_idx_files(_DEBIAN_FASHION, _FASHION)
        except UNREADABLE as unpackaged:
            with (
                blame(
                    "data",
                    "fashion_mnist",
                    f"; nor is it in {cache_dir()}, nor in Debian's package ({unpackaged}). Install that package "
                    "(apt-get install dataset-fashion-mnist), set data.path to a directory that holds the four IDX "
                    "files, or use data=npz",
                ),
                tempfile.TemporaryDirectory() as folder,
            ):
                for file in _FASHION:
                    _download(_FASHION_URL, file + ".gz", folder)
                arrays = read_idx_files(Path(folder), _FASHION)
        return canonical(arrays, self.classes)


@final
@dataclass(frozen=True)
class Cifar10:
    """Photographs (A. Krizhevsky, 2009), 50 000 + 10 000 of 3 × 32 × 32, colour planes one after another.

    The published form without pickles: records of a label byte and 3072 pixels.
    """

    path: str | None
    classes = 10

    def checksums(self) -> dict[str, str]:
        return dict(_CIFAR10) if self.path is None else _file_checksums(self.path, CIFAR10_FILES)

    def read(self) -> Arrays:
        if self.path is not None:
            with blame("data.path", self.path):
                return canonical(read_record_files(Path(self.path)), self.classes)
        with (
            blame(
                "data",
                "cifar10",
                f"; nor is it in {cache_dir()}. Set data.path to a directory that holds data_batch_1.bin … "
                "data_batch_5.bin and test_batch.bin, or use data=npz",
            ),
            tempfile.TemporaryDirectory() as folder,
        ):
            ((archive, checksum),) = _CIFAR10.items()
            return canonical(read_record_tar(_download(_CIFAR10_URL, archive, folder, checksum)), self.classes)


@final
@dataclass(frozen=True)
class Npz:
    """The user's own arrays, in a file as ``np.savez`` or ``np.savez_compressed`` writes it."""

    path: str
    classes = None

    def checksums(self) -> dict[str, str]:
        with blame("data.path", self.path):
            return {"npz": _file_sha256(Path(self.path))}

    def read(self) -> Arrays:
        with blame("data.path", self.path):
            return canonical(read_npz(Path(self.path)), None)


COMMON: dict[str, Check] = {"holdout": integer(ge=0), "holdout_seed": integer(ge=0)}
"""Options of every dataset: ``holdout`` training examples become the validation set."""

DATASETS: dict[str, Entry[Source]] = {
    "mnist": entry(Mnist, **COMMON),
    "fashion_mnist": entry(FashionMnist, **COMMON, path=optional(text())),
    "cifar10": entry(Cifar10, **COMMON, path=optional(text())),
    "npz": entry(Npz, **COMMON, path=text()),
}


def options(name: str) -> Mapping[str, Check]:
    """The checks of every option of the dataset ``name``: its own, and those in :data:`COMMON`."""
    return DATASETS[one_of(*DATASETS)("data.name", name)].options


def source(name: str, values: Mapping[str, Any]) -> Source:
    """Where the dataset ``name`` comes from; ``values`` are its options, already checked."""
    return DATASETS[name].build(**{key: value for key, value in values.items() if key not in COMMON})


def _download(base: str, file: str, folder: str, checksum: str | None = None) -> Path:
    import pooch

    log.info("downloading %s%s", base, file)
    pooch.get_logger().setLevel(logging.WARNING)  # its advice is about our arguments, not the user's
    try:
        return Path(pooch.retrieve(base + file, checksum, fname=file, path=folder))
    except (OSError, ValueError) as error:
        raise OSError(f"downloading {base}{file} failed: {error}") from error


def _file_checksums(folder: str, files: Iterable[str]) -> dict[str, str]:
    with blame("data.path", folder):
        paths = [find(Path(folder), file) for file in files]
        return {path.name: _file_sha256(path) for path in paths}


def _file_sha256(path: Path) -> str:
    """``sha256:…``; computed again only if the file looks changed."""
    stat = path.stat()
    if not path.is_file():
        raise OSError(f"{path} is not a file")
    return _remembered_sha256(path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1024)
def _remembered_sha256(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return sha256(path)
