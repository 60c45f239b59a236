"""The same training step in other libraries, for ``scripts/bench.py training``: same network, data, order and batches.

Every peer gets what suits it: pixels scaled to float32 beforehand (ours scales uint8 in each step), its compiled or
fused form where it has one, and a separate process, so that no two thread pools share one.
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LR, WD, MO, BATCH = 0.01, 0.001, 0.9, 200

Weights = list[NDArray[Any]]
"""W1, b1, W2, …: (fan_in, fan_out) and (fan_out,)."""

Measured = tuple[float, float]


class Peer(Protocol):
    """A network in training. ``build`` starts from given weights; ``lap`` makes a step on each row of ``batches``.

    Like a run, a lap measures what it trains on: mean loss, and accuracy in percent, before each update.
    """

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        """Raises NotImplementedError for an activation that the library does not offer."""

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        """batches: (steps, batch) positions in the training set."""

    def test(self) -> float:
        """Accuracy on the test set, in percent."""

    def describe(self) -> str:
        """Version and BLAS."""


def serve(name: str, threads: int, pipe: Connection) -> None:
    """The body of a peer's process: build, then laps on request, each answered by its seconds."""
    try:
        peer = PEERS[name](threads)
        pipe.send(peer.describe())
    except ImportError as error:
        pipe.send(error)
        return
    while (request := pipe.recv()) is not None:
        try:
            if isinstance(request, tuple):
                pipe.send(peer.build(*request))
            elif isinstance(request, np.ndarray):
                start = time.perf_counter()
                measured = peer.lap(request)
                pipe.send((time.perf_counter() - start, *measured))
            elif request == "test":
                pipe.send(peer.test())
            else:
                pipe.send(gemm_flops(threads))
        except Exception as error:
            pipe.send(error)


def initial_weights(sizes: Sequence[int]) -> Weights:
    """N(0, 0.05²) and zeros: large enough that a few steps show whether two libraries do the same."""
    rng = np.random.default_rng(0)
    weights: Weights = []
    for fan_in, fan_out in pairwise(sizes):
        weights += [rng.normal(0, 0.05, (fan_in, fan_out)).astype(np.float32), np.zeros(fan_out, np.float32)]
    return weights


def gemm_flops(threads: int) -> float:
    """The machine's matrix multiply in float32 on so many threads, FLOP/s, by NumPy's BLAS (1024 × 1024)."""
    from threadpoolctl import threadpool_limits

    a, out = np.ones((1024, 1024), np.float32), np.empty((1024, 1024), np.float32)
    laps = []
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(8):
            start = time.perf_counter()
            np.matmul(a, a, out=out)
            laps.append(time.perf_counter() - start)
    return 2 * 1024**3 / sorted(laps)[2]


def _mnist(part: str = "train") -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    from mlp.data import load

    split = getattr(load("mnist", {"holdout": 0, "holdout_seed": 0}), part)
    return (split.x.astype(np.float32) - 128) / np.float32(255), split.y


def _blas() -> str:
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip() for pool in pools
    )


class Ours:
    """:class:`mlp.trainer.Trainer`, as a run uses it."""

    def __init__(self, threads: int) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, user_api="blas")
        self._threads = threads
        self._trainer: Any = None

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        from mlp.composition import compose
        from mlp.data import load
        from mlp.trainer import Trainer

        if self._trainer:
            self._trainer.close()
        hidden = ",".join(str(len(b)) for b in weights[1:-1:2])
        config = compose(f"model.hidden=[{hidden}]", f"activ={activ}", f"lr={lr}", f"wd={wd}", f"mo={MO}")
        self._data = load("mnist", dict(config.data.options))
        self._trainer = Trainer(config, self._data, self._threads)
        self._trainer.network.theta[:] = np.concatenate([array.ravel() for array in weights])

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        loss, correct = self._trainer.train(batches.ravel())
        return loss / batches.size, 100 * correct / batches.size

    def test(self) -> float:
        return float(self._trainer.evaluate(self._data.test)[1])

    def describe(self) -> str:
        return f"NumPy {np.__version__}, {_blas()}"


class Plain:
    """The report's way: NumPy in float64, a fresh array for every intermediate result, layer by layer."""

    def __init__(self, threads: int) -> None:
        self._x, self._y = _mnist()
        self._x64 = self._x.astype(np.float64)

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        self._weights = [array.astype(np.float64) for array in weights]
        self._velocities = [np.zeros_like(array) for array in self._weights]
        self._activ, self._slope = _PLAIN[activ]
        self._lr, self._wd = lr, wd

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        loss, correct = 0.0, 0
        for index in batches:
            x, y = self._x64[index], np.eye(10)[self._y[index]]
            inputs, sums = self._forward(x)
            e = np.exp(sums[-1] - sums[-1].max(axis=1, keepdims=True))
            p = e / e.sum(axis=1, keepdims=True)
            loss -= np.log((p * y).sum(axis=1)).sum()
            correct += (sums[-1].argmax(axis=1) == self._y[index]).sum()
            delta = (p - y) / len(x)
            gradients: Weights = []
            for layer in reversed(range(len(sums))):
                gradients[:0] = [inputs[layer].T @ delta, delta.sum(axis=0)]
                if layer:
                    delta = delta @ self._weights[2 * layer].T * self._slope(sums[layer - 1])
            for i, gradient in enumerate(gradients):
                self._velocities[i] = MO * self._velocities[i] + gradient + self._wd * self._weights[i]
                self._weights[i] = self._weights[i] - self._lr * self._velocities[i]
        return loss / batches.size, 100 * correct / batches.size

    def test(self) -> float:
        x, y = _mnist("test")
        return 100 * float((self._forward(x.astype(np.float64))[1][-1].argmax(axis=1) == y).mean())

    def _forward(self, x: NDArray[Any]) -> tuple[Weights, Weights]:
        """Inputs of each layer and the last one's output; sums of each layer."""
        inputs, sums = [x], []
        for w, b in zip(self._weights[::2], self._weights[1::2], strict=True):
            sums.append(inputs[-1] @ w + b)
            inputs.append(self._activ(sums[-1]))
        return inputs, sums

    def describe(self) -> str:
        return f"NumPy {np.__version__} float64, {_blas()}"


def _sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-z))


def _gelu_inner(z: NDArray[Any]) -> NDArray[Any]:
    return np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))


def _gelu_slope(z: NDArray[Any]) -> NDArray[Any]:
    t = _gelu_inner(z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)


_PLAIN: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: z > 0),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "gelu": (lambda z: 0.5 * z * (1 + _gelu_inner(z)), _gelu_slope),
}


SKLEARN = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}
"""Ours → scikit-learn's name."""


class Sklearn:
    """scikit-learn's ``MLPClassifier.partial_fit``, which makes one pass over the rows it is given."""

    def __init__(self, threads: int) -> None:
        import sklearn

        self._version = sklearn.__version__
        self._x, self._y = _mnist()

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        from sklearn.neural_network import MLPClassifier

        if activ not in SKLEARN:
            raise NotImplementedError(activ)
        self._net = MLPClassifier(
            tuple(len(b) for b in weights[1:-1:2]),
            activation=SKLEARN[activ],
            solver="sgd",
            alpha=wd * BATCH,  # its penalty is divided by the batch size, and spares the biases
            batch_size=BATCH,
            learning_rate_init=lr,
            momentum=MO,
            nesterovs_momentum=False,
            shuffle=False,
        )
        self._net.partial_fit(self._x[:BATCH], self._y[:BATCH], classes=np.arange(10))  # allocates
        self._net.coefs_[:] = [array.copy() for array in weights[::2]]
        self._net.intercepts_[:] = [array.copy() for array in weights[1::2]]
        for velocity in self._net._optimizer.velocities:
            velocity[:] = 0

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        rows = batches.ravel()
        self._net.partial_fit(self._x[rows], self._y[rows])
        return float(self._net.loss_), float("nan")  # with its penalty; it measures no accuracy

    def test(self) -> float:
        return 100 * float(self._net.score(*_mnist("test")))

    def describe(self) -> str:
        return f"scikit-learn {self._version}, {_blas()}"


class Torch:
    """PyTorch as its tutorials write it: ``nn.Sequential``, cross entropy, SGD."""

    compiled = fused = False

    def __init__(self, threads: int) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(threads)
        x, y = _mnist()
        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        torch = self._torch
        kinds = {
            "relu": torch.nn.ReLU,
            "sigmoid": torch.nn.Sigmoid,
            "tanh": torch.nn.Tanh,
            "gelu": lambda: torch.nn.GELU("tanh"),
        }
        layers: list[Any] = []
        for w, b in zip(weights[::2], weights[1::2], strict=True):
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, kinds[activ]()]
        net = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.SGD(net.parameters(), lr, MO, weight_decay=wd, fused=self.fused)

        def measure(x: Any, y: Any) -> Any:
            logits = net(x)
            return torch.nn.functional.cross_entropy(logits, y), (logits.argmax(dim=1) == y).sum()

        if self.compiled:
            torch.compiler.reset()  # each network has its own code
            measure = torch.compile(measure)

        def step(index: Any) -> tuple[float, int]:
            optimizer.zero_grad()
            loss, correct = measure(self._x[index], self._y[index])
            loss.backward()
            optimizer.step()
            return loss.item(), correct.item()

        self._step, self._net = step, net

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        losses, corrects = zip(*map(self._step, self._torch.from_numpy(batches)), strict=True)
        return sum(losses) / len(batches), 100 * sum(corrects) / batches.size

    def test(self) -> float:
        x, y = map(self._torch.tensor, _mnist("test"))
        with self._torch.no_grad():
            return 100 * float((self._net(x).argmax(dim=1) == y).double().mean())

    def describe(self) -> str:
        blas = "MKL" if self._torch.backends.mkl.is_available() else "another BLAS"
        return f"PyTorch {self._torch.__version__}, {blas}, {self._torch.backends.cpu.get_cpu_capability()}"


class TorchCompiled(Torch):
    """The same through ``torch.compile``."""

    compiled = True


class TorchFused(Torch):
    """The same with the optimizer's fused form."""

    fused = True


class Jax:
    """JAX with the whole lap in one jitted ``scan``, buffers donated."""

    def __init__(self, threads: int) -> None:  # the number follows from the processors that it may use
        import jax

        self._jax = jax
        x, y = _mnist()
        self._x, self._y = jax.numpy.asarray(x), jax.numpy.asarray(y)

    def build(self, weights: Weights, activ: str, lr: float = LR, wd: float = WD) -> None:
        jax, jnp = self._jax, self._jax.numpy
        functions = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "gelu": jax.nn.gelu}
        activation, data, labels = functions[activ], self._x, self._y

        def forward(parameters: list[Any], x: Any) -> Any:
            for w, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
                x = activation(x @ w + b)
            return x @ parameters[-2] + parameters[-1]

        def loss(parameters: list[Any], x: Any, y: Any) -> Any:
            logits = forward(parameters, x)
            losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
            return losses.mean(), (logits.argmax(axis=1) == y).mean()

        def step(carry: Any, index: Any) -> Any:
            parameters, velocities = carry
            measured, gradients = jax.value_and_grad(loss, has_aux=True)(parameters, data[index], labels[index])
            velocities = [MO * v + g + wd * w for v, g, w in zip(velocities, gradients, parameters, strict=True)]
            return ([w - lr * v for w, v in zip(parameters, velocities, strict=True)], velocities), measured

        self._state = [jnp.asarray(w) for w in weights], [jnp.zeros_like(w) for w in weights]
        self._forward = forward
        self._lap = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)

    def lap(self, batches: NDArray[np.intp]) -> Measured:
        self._state, (losses, accuracies) = self._lap(self._state, self._jax.numpy.asarray(batches))
        return float(losses.mean()), 100 * float(accuracies.mean())

    def test(self) -> float:
        x, y = _mnist("test")
        return 100 * float((self._forward(self._state[0], x).argmax(axis=1) == y).mean())

    def describe(self) -> str:
        return f"JAX {self._jax.__version__}, XLA's own kernels"


def fit_sklearn(point: dict[str, Any], epochs: int) -> float:
    """A point of ``bench.py sweeps`` by scikit-learn, in a worker of joblib's; accuracy on the test set, in percent."""
    from sklearn.neural_network import MLPClassifier

    (x, y), (x_test, y_test) = _mnist(), _mnist("test")
    net = MLPClassifier(
        point["hidden"],
        activation=SKLEARN[point["activ"]],
        solver="sgd",
        alpha=point["wd"] * BATCH,  # as above
        batch_size=BATCH,
        learning_rate_init=point["lr"],
        momentum=point["mo"],
        nesterovs_momentum=False,
    )
    for _ in range(epochs):
        net.partial_fit(x, y, classes=np.arange(10))
        score = net.score(x_test, y_test)
    return 100 * score


def save_mnist(path: Path) -> None:
    """As the files that a plain script reads: pixels are bytes."""
    from mlp.data import load

    data = load("mnist", {"holdout": 0, "holdout_seed": 0})
    arrays = {f"{axis}_{part}": getattr(getattr(data, part), axis) for axis in "xy" for part in ("train", "test")}
    np.savez(path, **arrays)


PEERS: dict[str, Callable[[int], Peer]] = {
    "ours": Ours,
    "JAX jit": Jax,
    "scikit-learn": Sklearn,
    "PyTorch": Torch,
    "PyTorch compiled": TorchCompiled,
    "PyTorch fused": TorchFused,
    "plain float64": Plain,
}

SHORT = {
    "jax": "JAX jit",
    "sklearn": "scikit-learn",
    "torch": "PyTorch",
    "compiled": "PyTorch compiled",
    "fused": "PyTorch fused",
    "plain": "plain float64",
}
"""What may be said instead."""
