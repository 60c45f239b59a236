"""items.npz: a value for each item, such as each image of a test set, in the epoch that was saved last.

Members: ``epoch``; ``numbers/<name>`` as logged; of booleans ``bits/<name>``, eight to a byte, and ``count/<name>``.
It is written before the checkpoint of its epoch, so that a finished run has its items.
"""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import opened, write_atomic
from sweeps.runs.metrics import NAME
from sweeps.runs.npy import UNREADABLE, opened_npz, read_npy

LARGEST = 2**25
"""Bytes of all items of a run."""
_MEMBERS = ("numbers", "bits", "count")

Array = NDArray[Any]


class Outcomes(NamedTuple):
    """Of one epoch."""

    epoch: int
    arrays: dict[str, Array]
    """Name → (items,) booleans or numbers."""


def checked(values: Mapping[str, object]) -> dict[str, Array]:
    """Copies of the arrays.

    Raises:
        InputError: one is not (items,) of booleans or numbers, or a name is none.
    """
    return {name: _array(name, value) for name, value in values.items()}


def _array(name: str, value: object) -> Array:
    if not NAME.fullmatch(name):
        raise InputError("items", name, "must be letters, digits and _ . / -")
    try:
        array = np.array(value.detach() if hasattr(value, "detach") else value)  # PyTorch's
    except (ValueError, TypeError, RuntimeError):
        array = np.array(None)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(f"items {name}", f"{array.dtype}{array.shape}", "must be a list of booleans or numbers")
    if array.nbytes > LARGEST:
        raise InputError(f"items {name}", f"{array.nbytes} bytes", f"must have at most {LARGEST}")
    return array


def save(run: RunDir, epoch: int, arrays: Mapping[str, Array], *, durable: bool = True) -> None:
    """Replace the file.

    Args:
        durable: False saves the fsync, where a later epoch will replace the file again.

    Raises:
        InputError: together they are larger than :data:`LARGEST`.
    """
    members: dict[str, Array] = {"epoch": np.array(epoch, np.int64)}
    for name, array in arrays.items():
        if array.dtype == bool:
            members |= {f"bits/{name}": np.packbits(array), f"count/{name}": np.array(len(array), np.int64)}
        else:
            members[f"numbers/{name}"] = array
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
    if buffer.tell() > LARGEST:
        raise InputError("items", ", ".join(arrays), f"must have at most {LARGEST} bytes together")
    write_atomic(run.items, buffer.getvalue(), durable=durable)


def load(run: RunDir) -> Outcomes | None:
    """The last saved items, or None; everything in the file is checked.

    Raises:
        DamagedRun: it cannot be read, or is not such a file.
    """
    try:
        with opened(run.items, LARGEST) as file, opened_npz(file, LARGEST) as archive:
            if any(member.comment or member.extra for member in archive.infolist()):  # in which others might vanish
                raise ValueError("a member with a comment")
            arrays = {}
            for member in archive.namelist():
                kind, _, name = member.removesuffix(".npy").partition("/")
                if not (NAME.fullmatch(name) and kind in _MEMBERS) and member != "epoch.npy":
                    raise ValueError(f"a member {member!r}")
                if kind == "bits":
                    count = _whole(read_npy(archive, f"count/{name}"))
                    arrays[name] = _unpacked(read_npy(archive, f"bits/{name}"), count)
                elif kind == "numbers":
                    arrays[name] = read_npy(archive, f"numbers/{name}")
            if any(array.ndim != 1 for array in arrays.values()):
                raise ValueError("an array that is not a list")
            return Outcomes(_whole(read_npy(archive, "epoch")), arrays)
    except FileNotFoundError:
        return None
    except DamagedRun:
        raise
    except (*UNREADABLE, LookupError, TypeError, OverflowError) as error:
        raise DamagedRun(f"{run.items}: not a file of items ({error})") from None


def _whole(array: Array) -> int:
    if array.shape != () or array.dtype != np.int64 or array < 0:
        raise ValueError(f"a count that is {array.dtype}{array.shape}")
    return int(array)


def _unpacked(bits: Array, count: int) -> Array:
    if bits.dtype != np.uint8 or bits.shape != ((count + 7) // 8,):
        raise ValueError(f"{bits.dtype}{bits.shape} for {count} bits")
    return np.unpackbits(bits, count=count).astype(bool)
