"""checkpoint.npz: everything from which training goes on, bit for bit.

Shuffles follow from seed and epoch, so this is parameters, optimizer state, epoch and the metrics so far. The
metrics are there too (they are tiny) so that metrics.csv can be cut back or rebuilt from one consistent file.
"""

import io
import itertools
import zipfile
from pathlib import Path

import numpy as np

from mlp.formats import UNREADABLE, read_npy
from mlp.network import Network
from mlp.optim import Optimizer
from mlp.runs import DamagedRun, Epoch, write_atomic


def save(path: Path, network: Network, optimizer: Optimizer, history: list[Epoch]) -> None:
    """Replace the checkpoint atomically.

    Arrays: ``W1, b1, W2, …`` (fan_in, fan_out) and (fan_out,); ``optim.<name>`` flat, in the order W1, b1, W2, …;
    ``history`` (epochs, columns of :class:`mlp.runs.Epoch`) float64.
    """
    arrays = parameters(network)
    arrays |= {f"optim.{name}": value for name, value in optimizer.state.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, history=np.array(history, np.float64), **arrays)
    write_atomic(path, buffer.getvalue())


def load(path: Path, network: Network, optimizer: Optimizer) -> list[Epoch]:
    """Restore network and optimizer in place and return the history.

    Raises:
        FileNotFoundError: there is none yet.
        DamagedRun: the file is truncated, altered (the zip's CRC-32) or of another network; nothing was restored.
    """
    targets = parameters(network) | {f"optim.{name}": value for name, value in optimizer.state.items()}
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: read_npy(archive, name, path.stat().st_size) for name in (*targets, "history")}
        for name, target in targets.items():
            if arrays[name].shape != target.shape or arrays[name].dtype != target.dtype:
                raise ValueError(
                    f"{name} is {arrays[name].dtype}{arrays[name].shape}, not {target.dtype}{target.shape}"
                )
        history = [Epoch(int(row[0]), *map(float, row[1:])) for row in arrays["history"]]
    except FileNotFoundError:
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
    try:
        if not zipfile.is_zipfile(path):
            path.stat()
            raise ValueError("not an .npz file, or cut short")
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            layers = next(i for i in itertools.count() if f"W{i + 1}.npy" not in names)
            wanted = [f"{kind}{i}" for i in range(1, layers + 1) for kind in "Wb"]
            arrays = {name: read_npy(archive, name, path.stat().st_size) for name in (*wanted, "history")}
        return arrays, len(arrays.pop("history"))
    except FileNotFoundError:
        raise
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None


def parameters(network: Network) -> dict[str, np.ndarray]:
    """``{"W1": …, "b1": …, "W2": …}``: views of the network's parameters."""
    named = {}
    for i, linear in enumerate(network.linears, start=1):
        named[f"W{i}"], named[f"b{i}"] = linear.weight, linear.bias
    return named
