"""Datasets by name: loaded, divided into splits, and handed out in batches.

    load          source (:mod:`mlp.datasets`) → cache (:mod:`mlp.cache`) → :class:`Dataset` of three :class:`Split`
    Batches       gathers and scales one batch at a time, straight from the map that workers of a sweep share
    InkedBatches  the same for training on images that are mostly blank (:mod:`mlp.ink`)

Pixels stay uint8 until a batch is made of them: a fourth of the memory, and of the traffic, of float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlp.cache import cached
from mlp.datasets import options, source
from mlp.ink import Ink, InkedBatch, staircase
from sweeps.runs.errors import InputError
from sweeps.runs.schema import fields


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
    ink: Ink | None = None
    """Of ``x``, if it is mostly blank and used for training."""

    def __len__(self) -> int:
        return len(self.rows)


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """``valid`` is ``test`` itself, the same object, when nothing was held out (the course report's convention)."""

    train: Split
    valid: Split
    test: Split
    classes: int
    features: int
    checksums: dict[str, str]


@final
class Batches:
    """Gathers batches of a split into reused buffers, so that an epoch allocates nothing.

    uint8 pixels become ``(pixel − 128) / 255`` ; floats are used as they are.
    """

    def __init__(self, split: Split, capacity: int, dtype: DTypeLike) -> None:
        self._split = split
        self._raw = _Rows(split.x, capacity)
        self._x = np.empty((capacity, split.x.shape[1]), dtype)
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
        raw, x = self._raw.take(self._split.rows[index]), self._x[: len(index)]
        if self._is_pixels:
            raw ^= 128  # the byte of p becomes that of p − 128 as a signed number, four times faster than in floats
            np.copyto(x, raw.view(np.int8))
            x *= x.dtype.type(1) / x.dtype.type(255)  # a division is four times slower
        else:
            np.copyto(x, raw, casting="same_kind")
        return x, self._split.y[index]


@final
class InkedBatches:
    """:class:`Batches` of a split with ink: features in its order, pixels as they are, examples by their extents."""

    def __init__(self, split: Split, capacity: int, dtype: DTypeLike) -> None:
        assert split.ink
        self._split, self._ink = split, split.ink
        self._raw = _Rows(split.ink.x, capacity)
        self._x = np.full((1 + capacity, split.x.shape[1]), -128, dtype)

    def take(self, index: NDArray[np.intp]) -> tuple[InkedBatch, NDArray[np.intp]]:
        """The examples at ``index``, positions within the split, and their labels; as :meth:`Batches.take`."""
        rows, labels = self._split.rows[index], self._split.y[index]
        extents = self._ink.extents[rows]
        descending = np.argsort(-extents, kind="stable")
        raw, x = self._raw.take(rows[descending]), self._x[: 1 + len(index)]
        steps = staircase(extents[descending], x.shape[1])
        for count, start, stop in steps:
            np.copyto(x[1:count, start:stop], raw[: count - 1, start:stop])
        return InkedBatch(x, steps), labels[descending]


def load(name: str, values: Mapping[str, object]) -> Dataset:
    """The dataset ``name`` with its options, e.g. ``load("mnist", {"holdout": 5000, "holdout_seed": 0})``.

    The first call unpacks into :func:`mlp.cache.cache_dir` (MNIST: half a second); later ones map what is there.

    Raises:
        InputError: an option, or a file that it names, cannot be used.
    """
    values = fields(options(name), "data.", values)
    origin = source(name, values)
    checksums = origin.checksums()
    arrays = cached(name, origin, checksums)
    holdout = values["holdout"]

    train, test = (_whole(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    valid = test
    if "x_valid" in arrays:
        if holdout:
            raise InputError("data.holdout", holdout, "must be 0, since the file has a validation set, x_valid")
        valid = _whole(arrays["x_valid"], arrays["y_valid"])
    elif holdout:
        if holdout >= len(train):
            raise InputError("data.holdout", holdout, f"must be < {len(train)}, the number of training examples")
        train, valid = _hold_out(train, holdout, values["holdout_seed"])
    if "ink_x" in arrays:
        train = replace(train, ink=Ink(*(arrays[f"ink_{name}"] for name in Ink._fields)))
    classes = origin.classes or 1 + max(int(y.max()) for key, y in arrays.items() if key.startswith("y"))
    return Dataset(train, valid, test, classes, train.x.shape[1], checksums)


class _Rows:
    """Copies rows of x, at most ``capacity`` at once, into its own memory."""

    def __init__(self, x: NDArray[Any], capacity: int) -> None:
        self._source = _items(np.ascontiguousarray(x))
        self._taken = np.empty((capacity, x.shape[1]), x.dtype)
        self._items = _items(self._taken)

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """``x[rows]``, valid until the next call; rows beyond the ends become those at the ends."""
        # Without "clip" NumPy checks the bounds through a copy of the output.
        self._source.take(rows, out=self._items[: len(rows)], mode="clip")
        return self._taken[: len(rows)]


def _items(x: NDArray[Any]) -> NDArray[np.void]:
    """The rows of a contiguous array as one opaque item each: NumPy copies those twice as fast as rows."""
    return x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]


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
