"""A trained network, loaded from its run directory to be used: ``load("relu-ce-360-b89f").predict(images)``."""

import itertools
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlp.activations import ACTIVATIONS, Floats
from mlp.config import Choice, network_parts
from mlp.data import Batches, Split
from mlp.layers import Softmax
from mlp.network import Network
from mlp.training import parameters as parameters_of
from sweeps.runs import checkpoint
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError, Pruned, printable
from sweeps.runs.reading import brief, find, read_identity
from sweeps.runs.status import State

ROWS = 1000  # as many as the trainer evaluates at once: the same logits and losses, bit for bit
_PIXELS = ("mnist", "fashion_mnist", "cifar10")  # datasets of uint8
_FARTHEST = 128 / 255  # of a scaled pixel from 0


@final
class Model:
    """A trained network, with the parameters of a run's last checkpoint.

    Attributes:
        run: its directory.
        identity: everything that decided its parameters, as in config.yaml.
        epoch: how many epochs trained them.
        state: of the run when it was loaded, e.g. finished or interrupted.
        classes: number of classes; a class is a label of the training data, 0 to classes − 1.
        features: numbers in an image, e.g. 784.
        parameters: ``W1`` (features, fan_out), ``b1`` (fan_out,), ``W2``, …, read-only.
    """

    def __init__(
        self,
        run: RunDir,
        identity: Mapping[str, Any],
        parameters: Mapping[str, NDArray[Any]],
        *,
        epoch: int,
        state: State,
    ) -> None:
        """Raises InputError for the identity, and DamagedRun for parameters that do not fit it."""
        parts = network_parts(identity)
        activation, self._dtype = parts["activ"], np.dtype(parts["dtype"])
        shapes = [array.shape for array in parameters.values()]
        sizes = (*shapes[0][:1], *parts["model"]["hidden"], *shapes[-1][:1]) if shapes else ()
        expected = [shape for a, b in pairwise(sizes) for shape in ((a, b), (b,))]
        if shapes != expected or {array.dtype for array in parameters.values()} != {self._dtype}:
            raise DamagedRun(f"{run.checkpoint}: not the network of {run.config.name}")
        network = network_of(parameters, activation, parts["dtype"])
        self.run, self.identity, self.epoch, self.state = run, identity, epoch, state
        self.features, self.classes = sizes[0], sizes[-1]
        self.parameters = parameters_of(network)
        for array in self.parameters.values():
            array.flags.writeable = False
        self._network = network

    @property
    def run_id(self) -> str:
        return self.run.path.name

    @property
    def on_pixels(self) -> bool | None:
        """Whether it was trained on uint8 pixels; None if config.yaml does not say (data=npz)."""
        return True if self.identity["data"]["name"] in _PIXELS else None

    def logits(self, images: ArrayLike) -> Floats:
        """The network's outputs, (n, classes), as training evaluates them.

        Args:
            images: (n, 784) or (n, 28, 28), for networks of other data (n, …) likewise. uint8 pixels are scaled as
                in training, to (pixel − 128) / 255; floats are used as they are, so must be scaled like that already.

        Raises:
            InputError: wrong shape, type or range.
        """
        return forward(self._network, self._flat(images), self._dtype)

    def predict_proba(self, images: ArrayLike) -> Floats:
        """Softmax of the logits, (n, classes): probabilities if the loss was cross entropy, otherwise scores."""
        return Softmax().forward(self.logits(images))

    def predict(self, images: ArrayLike) -> NDArray[np.intp]:
        """The class of the highest logit, (n,)."""
        labels: NDArray[np.intp] = self.logits(images).argmax(axis=1)
        return labels

    def _flat(self, images: ArrayLike) -> NDArray[Any]:
        """(n, features) uint8 or float."""
        x = np.asarray(images)
        if x.ndim < 2 or x.size != len(x) * self.features:
            example = "(n, 784) or (n, 28, 28)" if self.features == 784 else f"(n, {self.features})"
            raise InputError("images", f"an array of shape {x.shape}", f"must have the shape {example}")
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise InputError("images", f"an array of {x.dtype}", "must be uint8 pixels, or floats that are scaled")
        if x.dtype != np.uint8 and not np.isfinite(x).all():
            raise InputError("images", "an array with NaN or infinity", "must hold finite numbers")
        if self.on_pixels and x.dtype != np.uint8 and x.size and np.abs(x).max() > _FARTHEST + 1e-3:
            raise InputError(
                "images",
                f"floats from {x.min():g} to {x.max():g}",
                "must be uint8 pixels, or scaled as in training: (pixel − 128) / 255",
            )
        return x.reshape(len(x), self.features)

    def __repr__(self) -> str:
        sizes = "–".join(str(array.shape[0]) for name, array in self.parameters.items() if name[0] == "W")
        return f"<Model {printable(self.run_id)}: {sizes}–{self.classes}, epoch {self.epoch}, {self.state}>"


def load(run: str | Path | RunDir, out: str | Path = "outputs") -> Model:
    """The network of a run, from its last checkpoint, also of an unfinished run; see ``epoch``.

    Args:
        run: its id, or the beginning of its id, in ``out``; or its directory.
        out: the results tree.

    Raises:
        InputError: there is no such run, it has completed no epoch, or its checkpoint was removed.
        DamagedRun: a file cannot be read, or is not what it should be.
    """
    if not isinstance(run, RunDir):
        path = Path(run).absolute()
        run = RunDir(path.resolve()) if isinstance(run, Path) and path.is_dir() else find(Path(out), str(run))
    name = printable(run.path.name)
    try:
        identity, status = read_identity(run), run.read_status()
        if status is None:
            raise DamagedRun(f"no {run.status.name}: not a run, or one that never began")
        parameters, epoch = read_parameters(run.checkpoint)
        return Model(run, identity, parameters, epoch=epoch, state=status.state)
    except FileNotFoundError:
        raise InputError("run", name, "has no checkpoint: not one epoch is complete") from None
    except Pruned:
        raise
    except InputError as error:
        raise DamagedRun(f"{name}: {run.config.name}: {printable(str(error))}") from None
    except DamagedRun as damage:
        raise DamagedRun(f"{name}: {printable(str(brief(damage, run)))}") from None


def read_parameters(path: Path) -> tuple[dict[str, NDArray[Any]], int]:
    """``{"W1": …, "b1": …, "W2": …}`` and their number of epochs; everything in the file is checked.

    Raises:
        FileNotFoundError: there is none yet.
        DamagedRun: it is damaged, or not a network's.
    """
    tree, history = checkpoint.load(path)
    try:
        layers = next(i for i in itertools.count() if f"W{i + 1}" not in tree)
        return {f"{kind}{i}": tree[f"{kind}{i}"] for i in range(1, layers + 1) for kind in "Wb"}, len(history)
    except (KeyError, TypeError) as error:
        raise DamagedRun(f"{path}: damaged checkpoint ({error})") from None


def network_of(parameters: Mapping[str, NDArray[Any]], activ: Choice, dtype: str) -> Network:
    """A new network with these parameters: ``W1`` (fan_in, fan_out), ``b1`` (fan_out,), ``W2``, …"""
    weights = [array for array in parameters.values() if array.ndim == 2]
    sizes = [weights[0].shape[0], *(weight.shape[1] for weight in weights)]
    network = Network(sizes, lambda: ACTIVATIONS[activ.name].build(**activ.options), dtype=dtype)
    for name, target in parameters_of(network).items():
        target[...] = parameters[name]
    return network


def forward(network: Network, images: NDArray[Any], dtype: np.dtype[Any]) -> Floats:
    """Logits (n, classes) of images (n, features), uint8 or float, block by block as the trainer evaluates."""
    count = len(images)
    batches = Batches(Split(images, np.zeros(count, np.intp), np.arange(count)), min(ROWS, max(count, 1)), dtype)
    logits = np.empty((count, len(network.linears[-1].bias)), dtype)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        x, _ = batches.take(rows)
        logits[rows[0] : rows[-1] + 1] = network.forward(x)
    return logits
