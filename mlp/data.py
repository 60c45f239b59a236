"""Datasets by name in :data:`DATASETS`: read, checked, unpacked once into a cache, and memory-mapped from there.

    source   reads one kind of files into plain arrays, and knows their checksums without reading them
    load     source → cache → :class:`Dataset` of three :class:`Split`; workers of a sweep share the mapped pages
    Batches  gathers and scales one batch at a time, straight from the map

Pixels stay uint8 until a batch is made of them: a fourth of the memory, and of the traffic, of float32.
"""

import gzip
import hashlib
import json
import logging
import math
import os
import shutil
import struct
import tarfile
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlp.schema import Check, Entry, InputError, entry, fields, integer, one_of, optional, text

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
"""``x_*``: (n, d) uint8, float32 or float64, C-contiguous; ``y_*``: (n,) intp, each 0 … classes − 1."""

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_VALID = ("x_valid", "y_valid")
_MAX_CLASSES = 2**16


# ---------------------------------------------------------------------------------------------------- what is loaded


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one purpose: row ``x[rows[i]]`` has the label ``y[i]``, for i from 0 to ``len(split) − 1``."""

    x: NDArray[Any]
    """(N, d) uint8 or float, read-only and mapped from disk; a split may use only some of its rows."""
    y: NDArray[np.intp]
    """(n,)"""
    rows: NDArray[np.intp]
    """(n,) positions in ``x``, ascending."""

    def __len__(self) -> int:
        return len(self.rows)


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """``valid`` is ``test`` itself, the same object, when nothing was held out (the report's convention)."""

    train: Split
    valid: Split
    test: Split
    classes: int
    features: int
    checksums: dict[str, str]


@final
class Batches:
    """Gathers batches of a split into buffers of its own, so that an epoch allocates nothing.

    uint8 pixels become ``(pixel − 128) / 255`` (DESIGN §5); floats are used as they are.
    """

    def __init__(self, split: Split, capacity: int, dtype: DTypeLike) -> None:
        shape = capacity, split.x.shape[1]
        self._split = split
        self._raw = np.empty(shape, split.x.dtype)
        self._x = np.empty(shape, dtype)
        self._is_pixels = split.x.dtype == np.uint8

    def take(self, index: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """The examples at ``index``, positions within the split.

        Returns:
            x: (len(index), d) of the wanted dtype, valid until the next call and free to be overwritten till then.
            y: (len(index),) labels.

        Raises:
            IndexError: a position is outside the split.
            ValueError: more positions than ``capacity``.
        """
        raw, x = self._raw[: len(index)], self._x[: len(index)]
        # rows[index] has checked the bounds; the default mode would check again, through a copy of the output.
        np.take(self._split.x, self._split.rows[index], axis=0, out=raw, mode="clip")
        np.copyto(x, raw, casting="same_kind")
        if self._is_pixels:
            x -= 128
            x *= x.dtype.type(1) / x.dtype.type(255)  # a division is four times slower
        return x, self._split.y[index]


def load(name: str, values: Mapping[str, object]) -> Dataset:
    """The dataset ``name`` with its options, e.g. ``load("mnist", {"holdout": 5000, "holdout_seed": 0})``.

    The first call unpacks into :func:`cache_dir` (MNIST: half a second); later ones map what is there.

    Raises:
        InputError: an option, or a file that it names, cannot be used.
    """
    values = fields(options(name), "data.", values)
    origin = source(name, values)
    arrays = _cached(name, origin)
    holdout = values["holdout"]

    train, test = (_whole(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    valid = test
    if "x_valid" in arrays:
        if holdout:
            raise InputError("data.holdout", holdout, "must be 0, for the file brings a validation set, x_valid")
        valid = _whole(arrays["x_valid"], arrays["y_valid"])
    elif holdout:
        if holdout >= len(train):
            raise InputError("data.holdout", holdout, f"must be < {len(train)}, the number of training examples")
        train, valid = _hold_out(train, holdout, values["holdout_seed"])
    classes = origin.classes or 1 + max(int(y.max()) for key, y in arrays.items() if key.startswith("y"))
    return Dataset(train, valid, test, classes, train.x.shape[1], origin.checksums())


def options(name: str) -> Mapping[str, Check]:
    """The checks of every option of the dataset ``name``: its own, and those in :data:`COMMON`."""
    return DATASETS[one_of(*DATASETS)("data.name", name)].options


def source(name: str, values: Mapping[str, Any]) -> "Source":
    """Where the dataset ``name`` comes from; ``values`` are its options, already checked."""
    return DATASETS[name].build(**{key: value for key, value in values.items() if key not in COMMON})


def _whole(x: NDArray[Any], y: NDArray[np.intp]) -> Split:
    return Split(x, y, np.arange(len(x)))


def _hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Divide into (all but ``count`` rows, ``count`` rows), with the class proportions of the whole in both.

    A class's share is rounded by the largest remainder, the lower class first among equals.
    """
    sizes = np.bincount(split.y)
    shares, remainders = np.divmod(sizes * count, len(split))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1

    # The tag keeps this stream apart from the trainer's, whose seeds are small numbers too.
    rng = np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(b"holdout")]))
    order = rng.permutation(len(split))
    order = order[np.argsort(split.y[order], kind="stable")]  # by class, shuffled within
    rank = np.arange(len(split)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0, 1, … within each class
    held = np.zeros(len(split), np.bool_)
    held[order[rank < np.repeat(shares, sizes)]] = True
    kept, taken = (Split(split.x, split.y[mask], split.rows[mask]) for mask in (~held, held))
    return kept, taken


# ----------------------------------------------------------------------------------------------------------- sources


class Source(Protocol):
    """One way to come by a dataset; constructed with its own options."""

    @property
    def classes(self) -> int | None:
        """How many there are, or None: one more than the largest label."""

    def checksums(self) -> dict[str, str]:
        """File → ``sha256:…``: what stands for the data in a run's identity. Reads nothing that it need not.

        Raises:
            InputError: a file that the user named is missing or unreadable.
        """

    def read(self) -> Arrays:
        """Read and check everything.

        Raises:
            InputError: names the option, the file and what is allowed.
        """


_IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

# Of the unpacked files: gzip's output differs between those who packed them.
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
        with _blame("data", "mnist", "; the installation is damaged, so install the package again"):
            return _canonical(_read_idx_files(_PACKAGED_MNIST, _MNIST), self.classes)


@final
@dataclass(frozen=True)
class FashionMnist:
    """Zalando's articles (arXiv:1708.07747), in MNIST's format: from ``path``, or Debian's package, or a download."""

    path: str | None
    classes = 10

    def checksums(self) -> dict[str, str]:
        return dict(_FASHION) if self.path is None else _file_checksums(self.path, _IDX_FILES.values())

    def read(self) -> Arrays:
        if self.path is not None:
            with _blame("data.path", self.path):
                return _canonical(_read_idx_files(Path(self.path)), self.classes)
        try:
            arrays = _read_idx_files(_DEBIAN_FASHION, _FASHION)
        except _UNREADABLE as unpackaged:
            with (
                _blame(
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
                arrays = _read_idx_files(Path(folder), _FASHION)
        return _canonical(arrays, self.classes)


@final
@dataclass(frozen=True)
class Cifar10:
    """Photographs (A. Krizhevsky, 2009), 50 000 + 10 000 of 3 × 32 × 32, colour planes one after another.

    Of the published forms this is the one without pickles: records of a label byte and 3072 pixels.
    """

    path: str | None
    classes = 10

    def checksums(self) -> dict[str, str]:
        return dict(_CIFAR10) if self.path is None else _file_checksums(self.path, _CIFAR10_FILES)

    def read(self) -> Arrays:
        if self.path is not None:
            with _blame("data.path", self.path):
                files = {file: _find(Path(self.path), file) for file in _CIFAR10_FILES}
                records = {}
                for file, found in files.items():
                    with _open(found) as stream:
                        records[file] = _read_records(stream, str(found))
                return _canonical(_from_records(records), self.classes)
        with (
            _blame(
                "data",
                "cifar10",
                f"; nor is it in {cache_dir()}. Set data.path to a directory that holds data_batch_1.bin … "
                "data_batch_5.bin and test_batch.bin, or use data=npz",
            ),
            tempfile.TemporaryDirectory() as folder,
        ):
            ((archive, checksum),) = _CIFAR10.items()
            return _canonical(_from_records(_read_tar(_download(_CIFAR10_URL, archive, folder, checksum))), 10)


@final
@dataclass(frozen=True)
class Npz:
    """The user's own arrays, in a file as ``np.savez`` or ``np.savez_compressed`` writes it."""

    path: str
    classes = None

    def checksums(self) -> dict[str, str]:
        with _blame("data.path", self.path):
            return {"npz": _file_sha256(Path(self.path))}

    def read(self) -> Arrays:
        with _blame("data.path", self.path):
            return _canonical(_read_npz(Path(self.path)), None)


COMMON: dict[str, Check] = {"holdout": integer(ge=0), "holdout_seed": integer(ge=0)}
"""What every dataset can be asked: ``holdout`` training examples become the validation set."""

DATASETS: dict[str, Entry[Source]] = {
    "mnist": entry(Mnist, **COMMON),
    "fashion_mnist": entry(FashionMnist, **COMMON, path=optional(text())),
    "cifar10": entry(Cifar10, **COMMON, path=optional(text())),
    "npz": entry(Npz, **COMMON, path=text()),
}


# -------------------------------------------------------------------------------------------------------- the formats

_UNREADABLE = (
    OSError,  # among them gzip's BadGzipFile and what requests raises when offline
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,  # zipfile, of what it cannot decompress or decrypt
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    tokenize.TokenError,  # numpy, of a garbled header
)
"""Whatever the bytes of a file can make its parser raise."""


@contextmanager
def _blame(field: str, value: str, advice: str = "") -> Iterator[None]:
    """Turn what goes wrong inside into an InputError about the value of ``field``."""
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(field, value, f"{error or type(error).__name__}{advice}") from error


def _canonical(raw: Mapping[str, NDArray[Any]], classes: int | None) -> Arrays:
    """Flatten, bring to native byte order, and check what the rest of the program relies on."""
    arrays: Arrays = {}
    for key, array in raw.items():
        if key.startswith("x"):
            arrays[key] = _canonical_images(key, array)
        else:
            arrays[key] = _canonical_labels(key, array, classes or _MAX_CLASSES)
    train = arrays["x_train"]
    for part in [key[2:] for key in arrays if key.startswith("x")]:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise ValueError(f"x_{part} has {len(x)} rows, but y_{part} has {len(y)}")
        if x.shape[1] != train.shape[1]:
            raise ValueError(f"x_{part} has {x.shape[1]} features per row, but x_train has {train.shape[1]}")
        if x.dtype != train.dtype:  # one would be scaled as pixels and the other not
            raise ValueError(f"x_{part} is {x.dtype}, but x_train is {train.dtype}")
    if all(y.max() == 0 for key, y in arrays.items() if key.startswith("y")):
        raise ValueError("every label is 0; at least two classes are needed")
    return arrays


def _canonical_images(key: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.newbyteorder("=") not in (np.uint8, np.float32, np.float64):
        raise ValueError(f"{key} is {x.dtype}; must be uint8 (pixels, which are scaled), float32 or float64")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{key} has the shape {x.shape}; must be (rows, …), with at least one row and one feature")
    x = np.ascontiguousarray(x.reshape(len(x), -1), x.dtype.newbyteorder("="))
    if x.dtype != np.uint8:
        bound = np.finfo(np.float32).max  # a NaN fails either comparison
        if not (x.min() >= -bound and x.max() <= bound):
            raise ValueError(f"{key} holds NaN, infinity or what float32 cannot hold; must be finite numbers")
    return x


def _canonical_labels(key: str, y: NDArray[Any], limit: int) -> NDArray[np.intp]:
    if y.dtype.kind not in "iu":
        raise ValueError(f"{key} is {y.dtype}; must be whole numbers, of an integer dtype")
    if y.ndim != 1 or y.size == 0:
        raise ValueError(f"{key} has the shape {y.shape}; must be (rows,), with at least one row")
    if y.min() < 0 or y.max() >= limit:
        raise ValueError(f"{key} holds labels from {y.min()} to {y.max()}; must be within 0 … {limit - 1}")
    return y.astype(np.intp)


def _read_idx_files(folder: Path, known: Mapping[str, str] | None = None) -> Arrays:
    """The four files of MNIST's format, plain or gzipped; checked against ``known`` checksums if there are any."""
    paths = {key: _find(folder, file) for key, file in _IDX_FILES.items()}
    return {
        key: _read_idx(path, 3 if key.startswith("x") else 1, known[_IDX_FILES[key]] if known else None)
        for key, path in paths.items()
    }


def _read_idx(path: Path, dimensions: int, checksum: str | None) -> NDArray[np.uint8]:
    """The IDX format: 0, 0, 8 for unsigned bytes, the number of dimensions; each as a big-endian uint32; the bytes."""
    with _open(path) as stream:
        header = stream.read(4 + 4 * dimensions)
        if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) != 4 + 4 * dimensions:
            raise ValueError(f"{path} is no IDX file of unsigned bytes in {dimensions} dimensions")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        size = math.prod(shape)
        body = _read_at_most(stream, size + 1)
    if len(body) != size:
        holds = f"holds only {len(body)}" if len(body) < size else "holds more"
        raise ValueError(f"{path} promises {' × '.join(map(str, shape))} bytes, but {holds}")
    if checksum and checksum != "sha256:" + hashlib.sha256(header + body).hexdigest():
        raise ValueError(f"{path} is damaged: once unpacked it should have the checksum {checksum}")
    return np.frombuffer(body, np.uint8).reshape(shape)


_CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_RECORD, _MAX_RECORDS = 1 + 3 * 32 * 32, 10_000


def _read_records(stream: IO[bytes], file: str) -> NDArray[np.uint8]:
    """(n, 3073): a label and 3072 pixels each."""
    body = _read_at_most(stream, _MAX_RECORDS * _RECORD + 1)
    if len(body) % _RECORD or not 0 < len(body) <= _MAX_RECORDS * _RECORD:
        raise ValueError(f"{file} must hold 1 to {_MAX_RECORDS} records of {_RECORD} bytes, without a rest")
    return np.frombuffer(body, np.uint8).reshape(-1, _RECORD)


def _from_records(records: Mapping[str, NDArray[np.uint8]]) -> Arrays:
    train, test = np.concatenate([records[file] for file in _CIFAR10_FILES[:-1]]), records[_CIFAR10_FILES[-1]]
    return {"x_train": train[:, 1:], "y_train": train[:, 0], "x_test": test[:, 1:], "y_test": test[:, 0]}


def _read_tar(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the six members by their exact names, in one pass; nothing is extracted to disk."""
    names = {f"cifar-10-batches-bin/{file}": file for file in _CIFAR10_FILES}
    records = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name in names and member.isreg() else None
            if stream is not None:
                records[names[member.name]] = _read_records(stream, member.name)
    if missing := set(names.values()) - set(records):
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
    return records


def _read_npz(path: Path) -> Arrays:
    if not zipfile.is_zipfile(path):
        raise ValueError("is not an .npz file, or is cut short; write it with np.savez")
    with zipfile.ZipFile(path) as archive:
        present = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
        wanted = _REQUIRED + (_VALID if present & set(_VALID) else ())
        if missing := [key for key in wanted if key not in present]:
            raise ValueError(
                f"lacks {', '.join(missing)}; it must hold {', '.join(_REQUIRED)}, and may hold {' and '.join(_VALID)}"
            )
        return {key: _read_npy(archive, key, path.stat().st_size) for key in wanted}


def _read_npy(archive: zipfile.ZipFile, key: str, packed: int) -> NDArray[Any]:
    """One array of an archive of ``packed`` bytes; trusts no size before it fits the other sizes."""
    member = archive.getinfo(key + ".npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{key} is in version {version} of the .npy format; must be 1.0 or 2.0")
        shape, _, dtype = readers[version](stream)
        if dtype.hasobject or dtype.kind not in "iuf":
            raise ValueError(f"{key} is {dtype}; must be uint8, float32 or float64 (x) or integers (y)")
        size = math.prod(shape) * dtype.itemsize
        # Deflate packs at most 1032 : 1, so a small file cannot make us allocate much.
        if min(shape, default=0) < 0 or stream.tell() + size != member.file_size or size > 1032 * packed:
            raise ValueError(f"{key} is damaged: its header promises {shape} of {dtype}, which is not what is there")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)  # at its end zipfile compares the CRC


def _find(folder: Path, file: str) -> Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} holds neither {file} nor {file}.gz")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_at_most(stream: IO[bytes], size: int) -> bytes:
    """Like ``stream.read(size)``, but piece by piece: that would allocate ``size``, which may be a header's lie."""
    pieces = bytearray()
    while len(pieces) < size and (piece := stream.read(min(size - len(pieces), 2**20))):
        pieces += piece
    return bytes(pieces)


def _download(base: str, file: str, folder: str, checksum: str | None = None) -> Path:
    import pooch

    log.info("downloading %s%s", base, file)
    pooch.get_logger().setLevel(logging.WARNING)  # it would advise the user about our arguments
    try:
        return Path(pooch.retrieve(base + file, checksum, fname=file, path=folder))
    except (OSError, ValueError) as error:
        raise OSError(f"downloading {base}{file} failed: {error}") from error


def _file_checksums(folder: str, files: Iterable[str]) -> dict[str, str]:
    with _blame("data.path", folder):
        paths = [_find(Path(folder), file) for file in files]
        return {path.name: _file_sha256(path) for path in paths}


def _file_sha256(path: Path) -> str:
    """``sha256:…``; computed anew only when the file looks changed."""
    stat = path.stat()
    if not path.is_file():
        raise OSError(f"{path} is not a file")
    return _remembered_sha256(path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1024)
def _remembered_sha256(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------------------- the cache

_FORMAT = 1  # of the cache; raise it when the canonical form of the arrays changes
_open_arrays: dict[Path, Arrays] = {}


def cache_dir() -> Path:
    """``$MLP_CACHE``, or the user's cache directory of the platform."""
    if folder := os.environ.get("MLP_CACHE"):
        return Path(folder).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mlp-sweeps"))


def _cached(name: str, origin: Source) -> Arrays:
    """The arrays of a source: from this process, or from the cache, or read and put there."""
    checksums = origin.checksums()
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

    Needs no lock and no right to write: a folder appears whole, by a rename.
    """
    if not folder.is_dir():
        return None
    try:
        expected = json.loads((folder / "cache.json").read_text())
        if not isinstance(expected, dict) or not set(_REQUIRED) <= set(expected):
            raise ValueError("cache.json does not list the arrays")
        for key, checksum in expected.items():
            if _sha256(folder / f"{key}.npy") != checksum:
                raise ValueError(f"{key}.npy has changed")
        # np.asarray sheds the memmap class, which makes every slice of it slower; the map stays open beneath.
        mapped = {key: np.asarray(np.load(folder / f"{key}.npy", mmap_mode="r")) for key in expected}
        return {key: np.array(array, np.intp) if key.startswith("y") else array for key, array in mapped.items()}
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s), and is unpacked again", folder, error)
        return None


def _fill_folder(folder: Path, origin: Source, checksums: dict[str, str]) -> Arrays:
    """Read the source and put it into the cache, unless another process just did; in memory if it cannot be put."""
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
        log.warning("cannot write the cache in %s (%s): the data stay in this process's memory", folder.parent, error)
    return _read_unchanged(origin, checksums) if arrays is None else arrays


def _read_unchanged(origin: Source, checksums: dict[str, str]) -> Arrays:
    arrays = origin.read()
    if origin.checksums() != checksums:
        raise InputError("data.path", getattr(origin, "path", ""), "changed while it was being read; try again")
    return arrays


def _write_folder(folder: Path, arrays: Arrays) -> None:
    """Whole or not at all; the caller holds the lock, so what an earlier crash left half-written is nobody's."""
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
            written[key] = _sha256(path)
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
