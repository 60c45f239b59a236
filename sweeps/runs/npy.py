"""Arrays from zip archives (.npz) that are not trusted."""

import math
import tokenize
import zipfile
import zlib
from typing import Any

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
"""Whatever the bytes of an archive can make its parser raise."""


def read_npy(
    archive: zipfile.ZipFile, key: str, limit: int, kinds: str = "iuf", *, allowed: str = "numbers"
) -> NDArray[Any]:
    """One array, of at most ``limit`` bytes; trusts no size before it fits the other sizes.

    Args:
        kinds: of its dtype; ``allowed`` says them in words.

    Raises:
        KeyError: there is none of this name.
        others of :data:`UNREADABLE`: it cannot be read.
    """
    member = archive.getinfo(key + ".npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{key} is in version {version} of the .npy format; must be 1.0 or 2.0")
        try:
            shape, _, dtype = readers[version](stream)
        except (ArithmeticError, LookupError, SyntaxError, TypeError, tokenize.TokenError) as error:
            raise ValueError(f"{key} has a garbled header: {error}") from error
        if dtype.hasobject or dtype.kind not in kinds:
            raise ValueError(f"{key} is {dtype}; must be {allowed}")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or stream.tell() + size != member.file_size or size > limit:
            raise ValueError(f"{key} is damaged: its header promises {shape} of {dtype}, which is not what is there")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)  # at its end zipfile compares the CRC
