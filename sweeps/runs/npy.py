"""Arrays from zip archives (.npz) that are not trusted."""

import contextlib
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,  # zipfile, of what it cannot decompress or decrypt
    zlib.error,
    zipfile.BadZipFile,
)
"""What a parser can raise on a damaged archive."""

DEFLATED = 1032
"""Bytes at most that deflate makes of one; of bzip2 and lzma no such number is known, so they are refused."""

_PIECE = 2**20  # bytes
_LONGEST_HEADER = 4096  # bytes; that of an array of 64 dimensions has 1500
_HEADER = re.compile(
    r"""\{(?:\s*+(?:
        ['"]descr['"]\s*+:\s*+['"](?P<descr>[<>|=]?[a-zA-Z]\d{0,9})['"]
      | ['"]fortran_order['"]\s*+:\s*+(?P<fortran>True|False)
      | ['"]shape['"]\s*+:\s*+\((?P<shape>(?:\s*+\d{1,18}\s*+,?)*+)\s*+\)
    )\s*+,?)*+\s*+\}\s*+""",
    re.VERBOSE,
)
"""The dictionary that is a header. NumPy parses it as Python, and what Python's parser makes of hostile text (a
MemoryError, say) could not be told from the machine's own trouble."""


@contextlib.contextmanager
def opened_npz(file: BinaryIO, size: int) -> Iterator[zipfile.ZipFile]:
    """The archive in a file of ``size`` bytes, whose members do not lie upon one another.

    Raises:
        those of :data:`UNREADABLE`
    """
    with zipfile.ZipFile(file) as archive:
        if sum(member.compress_size for member in archive.infolist()) > size:
            raise ValueError("is damaged: its members are larger than the file")
        yield archive


def read_npy(
    archive: zipfile.ZipFile, key: str, kinds: str = "iuf", *, ratio: int = 1, allowed: str = "numbers"
) -> NDArray[Any]:
    """One array of an archive from :func:`opened_npz`; takes no memory for bytes that are not there.

    Args:
        kinds: of its dtype; ``allowed`` says them in words.
        ratio: bytes of the array for each in the file: 1, or :data:`DEFLATED`.

    Raises:
        KeyError: there is none of this name.
        others of :data:`UNREADABLE`: it cannot be read.
    """
    member = archive.getinfo(key + ".npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{key} is neither stored nor deflated, as np.savez and np.savez_compressed do it")
    if member.file_size > ratio * member.compress_size:
        raise ValueError(f"{key} is damaged: it cannot become {member.file_size} bytes")
    with archive.open(member) as stream:
        shape, dtype, is_fortran, begin = _read_header(stream, key)
        if dtype.hasobject or dtype.kind not in kinds or not dtype.itemsize:
            raise ValueError(f"{key} is {dtype}; must be {allowed}")
        length = math.prod(shape) * dtype.itemsize
        if begin + length != member.file_size:
            raise ValueError(f"{key} is damaged: its header promises {shape} of {dtype}, which is not what is there")
        content = np.empty(length, np.uint8)
        for start in range(0, length, _PIECE):
            piece = stream.read(min(_PIECE, length - start))
            content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
            if len(piece) < min(_PIECE, length - start):
                raise EOFError(f"{key} is cut short")
        stream.read(1)  # at the end zipfile compares the CRC
    if not length:
        return np.empty(shape, dtype)
    return content.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_header(stream: IO[bytes], key: str) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, dtype, whether the first index varies fastest, and the bytes before the array's own."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY":
        raise ValueError(f"{key} is not in the .npy format")
    if start[6:] not in (b"\1\0", b"\2\0"):
        raise ValueError(f"{key} is in version {tuple(start[6:])} of the .npy format; must be 1.0 or 2.0")
    width = "<H" if start[6] == 1 else "<I"
    begin = stream.read(struct.calcsize(width))
    length = struct.unpack(width, begin)[0] if len(begin) == struct.calcsize(width) else 0
    header = _HEADER.fullmatch(stream.read(length).decode("latin-1")) if length <= _LONGEST_HEADER else None
    if header is None or None in header.group("descr", "fortran", "shape"):
        raise ValueError(f"{key} has a garbled header")
    try:
        dtype = np.dtype(header["descr"])
    except TypeError as error:
        raise ValueError(f"{key} has a garbled header: {error}") from None
    shape = tuple(int(number) for number in header["shape"].split(",") if number.strip())
    if len(shape) > 32:
        raise ValueError(f"{key} has {len(shape)} dimensions; must be 32 at most")
    return shape, dtype, header["fortran"] == "True", 8 + len(begin) + length
