"""checkpoint.npz: everything from which training goes on, bit for bit.

Shuffles follow from seed and epoch, so this is parameters, optimizer state, epoch and the metrics so far. The
metrics are there too (they are tiny) so that metrics.csv can be cut back or rebuilt from one consistent file.

The archive's comment ends the file: the run's id, and the SHA-256 of every byte before it. Checkpoints without a
comment, as they were written before, are still read; they have the zip's CRC-32 alone.
"""

import hashlib
import io
import itertools
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np

from mlp.files import LARGEST, DamagedRun, read_file, set_aside, write_atomic
from mlp.formats import UNREADABLE, read_npy
from mlp.network import Network
from mlp.optim import Optimizer
from mlp.runs import Epoch, RunDir

log = logging.getLogger(__name__)

_LARGEST_NETWORK = 2**36  # bytes
_FINITE = [name != "test_loss" for name in Epoch._fields]  # which, beside a validation set, stops no run


def save(run: RunDir, network: Network, optimizer: Optimizer, history: list[Epoch]) -> None:
    """Replace the checkpoint atomically; the one before it stays, under a name of its own.

    Arrays: ``W1, b1, W2, …`` (fan_in, fan_out) and (fan_out,); ``optim.<name>`` flat, in the order W1, b1, W2, …;
    ``history`` (epochs, columns of :class:`mlp.runs.Epoch`) float64.

    Raises:
        OSError: it cannot be written, or does not read back; the last one is as it was.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, history=np.array(history, np.float64), **_arrays(network, optimizer))
    write_atomic(run.checkpoint, _seal(buffer.getvalue(), run.path.name), keep=run.checkpoint_before)


def restore(run: RunDir, network: Network, optimizer: Optimizer) -> list[Epoch]:
    """Network, optimizer and history from the checkpoint, or else from the one before it, or as they are: no epochs.

    A damaged one is named in the log and set aside.

    Raises:
        PermissionError: one is there, but not for us.
    """
    for path in (run.checkpoint, run.checkpoint_before):
        try:
            return load(path, network, optimizer)
        except FileNotFoundError:
            continue
        except DamagedRun as damage:
            log.warning("%s; set aside as %s, going on from the one before, if any", damage, set_aside(path).name)
    return []


def load(path: Path, network: Network, optimizer: Optimizer) -> list[Epoch]:
    """Restore network and optimizer in place and return the history.

    Raises:
        FileNotFoundError: there is none yet.
        DamagedRun: the file is truncated, altered, or of another run or network; nothing was restored.
    """
    targets = _arrays(network, optimizer)
    content = read_file(path, LARGEST + sum(target.nbytes for target in targets.values()))
    try:
        _check_seal(content, path.parent.name)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {name: read_npy(archive, name, len(content)) for name in (*targets, "history")}
        for name, target in targets.items():
            if arrays[name].shape != target.shape or arrays[name].dtype != target.dtype:
                raise ValueError(
                    f"{name} is {arrays[name].dtype}{arrays[name].shape}, not {target.dtype}{target.shape}"
                )
            if np.isnan(arrays[name]).any():
                raise ValueError(f"{name} holds NaN")
        history = _check_history(arrays["history"])
    except MemoryError:  # which is not the file's fault
        raise
    except (*UNREADABLE, LookupError, TypeError, OverflowError) as error:
        raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None
    for name, target in targets.items():
        target[...] = arrays[name]
    return history


def read_parameters(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """``{"W1": …, "b1": …, "W2": …}`` and the number of epochs that made them; nothing in the file is believed.

    Raises:
        FileNotFoundError: there is none yet.
        DamagedRun: it is damaged, or no network's.
    """
    content = read_file(path, _LARGEST_NETWORK)
    try:
        _check_seal(content, path.parent.name)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
            layers = next(i for i in itertools.count() if f"W{i + 1}.npy" not in names)
            wanted = [f"{kind}{i}" for i in range(1, layers + 1) for kind in "Wb"]
            arrays = {name: read_npy(archive, name, len(content)) for name in (*wanted, "history")}
        return arrays, len(arrays.pop("history"))
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None


def parameters(network: Network) -> dict[str, np.ndarray]:
    """``{"W1": …, "b1": …, "W2": …}``: views of the network's parameters."""
    named = {}
    for i, linear in enumerate(network.linears, start=1):
        named[f"W{i}"], named[f"b{i}"] = linear.weight, linear.bias
    return named


def _arrays(network: Network, optimizer: Optimizer) -> dict[str, np.ndarray]:
    return parameters(network) | {f"optim.{name}": value for name, value in optimizer.state.items()}


def _check_history(table: np.ndarray) -> list[Epoch]:
    if table.ndim != 2 or table.shape[1] != len(Epoch._fields) or table.dtype != np.float64:
        raise ValueError(f"history is {table.dtype}{table.shape}")
    if not np.array_equal(table[:, 0], np.arange(1, len(table) + 1)) or not np.isfinite(table[:, _FINITE]).all():
        raise ValueError("history is not of the epochs 1, 2, 3, …")
    return [Epoch(int(row[0]), *map(float, row[1:])) for row in table]


def _seal(archive: bytes, run_id: str) -> bytes:
    """The zip file with the comment; its length is the last field of one that has none."""
    label = _label(run_id)
    head = archive[:-2] + struct.pack("<H", len(label) + 64) + label
    return head + hashlib.sha256(head).hexdigest().encode()


def _check_seal(content: bytes, run_id: str) -> None:
    """Nothing to check in a file without a comment.

    Raises:
        ValueError: it is not as it was written, or another run's.
    """
    mark = content.find(_label(""), -200)
    if mark < 0:
        return
    if hashlib.sha256(memoryview(content)[:-64]).hexdigest().encode() != content[-64:]:
        raise ValueError("not as it was written, by its SHA-256")
    if not content.endswith(_label(run_id), 0, -64):
        raise ValueError("another run's")


def _label(run_id: str) -> bytes:
    return f"{run_id} sha256:".encode()
