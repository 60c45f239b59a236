"""The files that datasets come in (IDX, CIFAR-10's records, .npz), and the common form that they are converted to.

No parser believes a size before it has seen the bytes; :func:`blame` turns its exceptions into an InputError.
"""

import gzip
import hashlib
import math
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sweeps.runs import npy
from sweeps.runs.errors import InputError

Arrays = dict[str, NDArray[Any]]
"""``x_*``: (n, d) uint8, float32 or float64, C-contiguous; ``y_*``: (n,) intp, each 0 … classes − 1."""

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_VALID = ("x_valid", "y_valid")
_MAX_CLASSES = 2**16

UNREADABLE = (*npy.UNREADABLE, struct.error, tarfile.TarError)
"""What a parser can raise on damaged bytes."""


@contextmanager
def blame(field: str, value: str, advice: str = "") -> Iterator[None]:
    """Turn exceptions inside into an InputError about ``field``."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(field, value, f"{error or type(error).__name__}{advice}") from error


def canonical(raw: Mapping[str, NDArray[Any]], classes: int | None) -> Arrays:
    """Flatten, convert to native byte order, and check what the rest of the program relies on."""
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


# --------------------------------------------------------------------------------------------------------------- IDX

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def read_idx_files(folder: Path, known: Mapping[str, str] | None = None) -> Arrays:
    """The four files of MNIST's format, plain or gzipped; compared with ``known`` checksums if given."""
    paths = {key: find(folder, file) for key, file in IDX_FILES.items()}
    return {
        key: _read_idx(path, 3 if key.startswith("x") else 1, known[IDX_FILES[key]] if known else None)
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


# ---------------------------------------------------------------------------------------------------- CIFAR's records

CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_RECORD, _MAX_RECORDS = 1 + 3 * 32 * 32, 10_000


def read_record_files(folder: Path) -> Arrays:
    """The six files of CIFAR-10's binary form, plain or gzipped."""
    paths = {file: find(folder, file) for file in CIFAR10_FILES}
    records = {}
    for file, path in paths.items():
        with _open(path) as stream:
            records[file] = _read_records(stream, str(path))
    return _from_records(records)


def read_record_tar(path: Path) -> Arrays:
    """The same six, as members of the published archive: by their exact names, in one pass, none extracted to disk."""
    names = {f"cifar-10-batches-bin/{file}": file for file in CIFAR10_FILES}
    records = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name in names and member.isreg() else None
            if stream is not None:
                records[names[member.name]] = _read_records(stream, member.name)
    if missing := set(names.values()) - set(records):
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
    return _from_records(records)


def _read_records(stream: IO[bytes], file: str) -> NDArray[np.uint8]:
    """(n, 3073): a label and 3072 pixels each."""
    body = _read_at_most(stream, _MAX_RECORDS * _RECORD + 1)
    if len(body) % _RECORD or not 0 < len(body) <= _MAX_RECORDS * _RECORD:
        raise ValueError(f"{file} must hold 1 to {_MAX_RECORDS} records of {_RECORD} bytes, without a rest")
    return np.frombuffer(body, np.uint8).reshape(-1, _RECORD)


def _from_records(records: Mapping[str, NDArray[np.uint8]]) -> Arrays:
    train, test = np.concatenate([records[file] for file in CIFAR10_FILES[:-1]]), records[CIFAR10_FILES[-1]]
    return {"x_train": train[:, 1:], "y_train": train[:, 0], "x_test": test[:, 1:], "y_test": test[:, 0]}


# --------------------------------------------------------------------------------------------------------------- npz


def read_npz(path: Path) -> Arrays:
    """The required arrays, and those of a validation set if there is one; others are ignored."""
    if not zipfile.is_zipfile(path):
        raise ValueError("is not an .npz file, or is cut short; write it with np.savez")
    with path.open("rb") as file, npy.opened_npz(file, path.stat().st_size) as archive:
        present = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
        wanted = REQUIRED + (_VALID if present & set(_VALID) else ())
        if missing := [key for key in wanted if key not in present]:
            raise ValueError(
                f"lacks {', '.join(missing)}; it must hold {', '.join(REQUIRED)}, and may hold {' and '.join(_VALID)}"
            )
        allowed = "uint8, float32 or float64 (x) or integers (y)"
        return {key: npy.read_npy(archive, key, ratio=npy.DEFLATED, allowed=allowed) for key in wanted}


# -------------------------------------------------------------------------------------------------------------- files


def find(folder: Path, file: str) -> Path:
    """The file, or else its gzipped form."""
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} holds neither {file} nor {file}.gz")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_at_most(stream: IO[bytes], size: int) -> bytes:
    """Like ``stream.read(size)``, but in pieces, since ``size`` may come from a false header."""
    pieces = bytearray()
    while len(pieces) < size and (piece := stream.read(min(size - len(pieces), 2**20))):
        pieces += piece
    return bytes(pieces)


def sha256(path: Path) -> str:
    """``sha256:…`` of the bytes as they are on disk."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
