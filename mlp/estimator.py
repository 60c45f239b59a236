"""A run's network as a scikit-learn estimator, trained on arrays in memory: the same numbers, without files."""

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from mlp.activations import Floats
from mlp.composition import compose
from mlp.config import RunConfig
from mlp.data import Dataset, Split
from mlp.ink import find_ink
from mlp.layers import Softmax
from mlp.model import forward, network_of
from mlp.trainer import Trainer
from mlp.training import parameters
from sweeps.runs import extras
from sweeps.runs.provenance import cores

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"{error}; {extras.install('sklearn')}") from None

_KINDS = [np.float32, np.float64, np.uint8]  # other dtypes become the first


@final
class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron in scikit-learn's conventions.

    With a whole ``random_state`` and the same data, ``fit`` gives the same weights as ``mlp-train`` with
    that seed, on the same BLAS and number of threads.

    Args:
        hidden: widths of the hidden layers.
        activ, loss, optim, lr, wd, mo, bsz, epochs, dtype: the command line's keys of these names.
        random_state: the seed. None uses another one for each fit; a RandomState is drawn from.
        words: for other settings, as on the command line: ``("activ.approximate=none", "model.init_std=0.1")``.

    Attributes:
        classes_: (n_classes,) the classes in ``y``, sorted.
        n_features_in_: features that ``fit`` saw.
        n_iter_: epochs.
        loss_curve_: (epochs,) running mean of the training loss in each epoch.
        config_: the whole configuration.
        parameters_: ``W1`` (features, fan_out), ``b1`` (fan_out,), ``W2``, …
    """

    def __init__(
        self,
        hidden: Sequence[int] = (360,),
        *,
        activ: str = "relu",
        loss: str = "ce",
        optim: str = "sgd",
        lr: float = 0.01,
        wd: float = 0.001,
        mo: float = 0.9,
        bsz: int = 200,
        epochs: int = 100,
        dtype: str = "float32",
        random_state: int | np.random.RandomState | None = 0,
        words: Sequence[str] = (),
    ) -> None:
        self.hidden = hidden
        self.activ = activ
        self.loss = loss
        self.optim = optim
        self.lr = lr
        self.wd = wd
        self.mo = mo
        self.bsz = bsz
        self.epochs = epochs
        self.dtype = dtype
        self.random_state = random_state
        self.words = words

    def fit(self, X: ArrayLike, y: ArrayLike) -> "NetworkClassifier":  # noqa: N803
        """Train from scratch.

        Args:
            X: (n, features); uint8 is scaled as pixels are, to (x − 128) / 255, other dtypes are used as they are.
            y: (n,) classes, of any kind.

        Raises:
            InputError: a parameter cannot be used.
            Diverged: a loss or parameter is no longer finite.
        """
        x, y = validate_data(self, X, y, dtype=_KINDS, order="C")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        rows = np.arange(len(x))
        train = Split(x, labels.astype(np.intp), rows, find_ink(x))
        first = Split(x, train.y[:1], rows[:1])  # the evaluation at the end of an epoch is not needed
        config = self._config()
        dataset = Dataset(train, first, first, len(self.classes_), x.shape[1], {})
        with (  # as in a run
            threadpool_limits(1, user_api="blas"),
            contextlib.closing(Trainer(config, dataset, config.threads or cores())) as trainer,
        ):
            self.loss_curve_ = [trainer.epoch(number).train_loss for number in range(1, config.epochs + 1)]
        self.n_iter_ = config.epochs
        self.config_ = config
        self.parameters_ = parameters(trainer.network)
        return self

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """(n, n_classes) logits; for two classes (n,), the second's minus the first's."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """(n, n_classes) softmax of the logits: probabilities if the loss is cross entropy, otherwise scores."""
        return Softmax().forward(self._logits(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """(n,) of ``classes_``."""
        logits = self._logits(X)
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _logits(self, X: ArrayLike) -> Floats:  # noqa: N803
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=_KINDS, order="C")
        network = network_of(self.parameters_, self.config_.activ, self.config_.dtype)
        return forward(network, x, network.theta.dtype)

    def _config(self) -> RunConfig:
        """A whole configuration; settings without a parameter here have conf/'s defaults."""
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        keys = ("activ", "loss", "optim", "lr", "wd", "mo", "bsz", "epochs", "dtype")
        words = [
            f"model.hidden=[{','.join(map(str, self.hidden))}]",
            *(f"{key}={getattr(self, key)}" for key in keys),
            f"seed={seed}",
        ]
        return _compose(*words, *self.words)


_compose = lru_cache(maxsize=1024)(compose)  # some 50 ms
