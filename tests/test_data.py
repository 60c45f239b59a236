"""What is loaded: the splits, what is held out of them, and the batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import samples
from samples import PLAIN, Options, run

from mlp import data
from sweeps.runs.errors import InputError

mnist, cache, npz = samples.mnist, samples.cache, samples.npz

SIZES = (("train", 12), ("test", 6))


def test_mnist_is_the_published_one(mnist: data.Dataset) -> None:
    assert (mnist.classes, mnist.features) == (10, 784)
    assert mnist.train.x.shape == (60_000, 784)
    assert mnist.test.x.shape == (10_000, 784)
    assert mnist.train.x.dtype == np.uint8
    assert mnist.train.y.dtype == np.intp
    assert mnist.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # published
    assert np.bincount(mnist.train.y).tolist() == counts
    # The well-known mean brightness, 0.1307 of 255.
    assert mnist.train.x.mean() / 255 == pytest.approx(0.1306604762738429, rel=1e-12)
    assert mnist.train.x.sum(dtype=np.int64) == 1_567_298_545


def test_importing_is_cheap() -> None:
    heavy = ["pandas", "matplotlib", "hydra", "omegaconf", "pooch", "platformdirs", "requests"]
    assert run(f"import sys, mlp.data; print([m for m in {heavy} if m in sys.modules])") == "[]\n"


# ---------------------------------------------------------------------------------------------------------- holdout


def test_without_a_holdout_valid_is_the_test_set(mnist: data.Dataset) -> None:
    assert mnist.valid is mnist.test
    assert mnist.train.rows.tolist() == list(range(60_000))


@pytest.mark.parametrize("count", [1, 7, 5000, 59_999])
def test_holdout_keeps_the_proportions_of_the_classes(mnist: data.Dataset, count: int) -> None:
    split = data.load("mnist", {"holdout": count, "holdout_seed": 3})
    assert (len(split.train), len(split.valid), len(split.test)) == (60_000 - count, count, 10_000)
    assert np.array_equal(np.sort(np.concatenate([split.train.rows, split.valid.rows])), np.arange(60_000))
    for part in (split.train, split.valid):
        assert np.array_equal(part.y, mnist.train.y[part.rows])
        exact = np.bincount(mnist.train.y) * len(part) / 60_000
        assert np.abs(np.bincount(part.y, minlength=10) - exact).max() < 1


def test_holdout_rounds_by_the_largest_remainder(cache: Path, npz: Callable[..., Options]) -> None:
    # 7, 4, 1 of 12 examples; 5 of them: 2.917, 1.667, 0.417 -> 3, 2, 0
    options = npz(y_train=np.repeat([0, 1, 2], [7, 4, 1])) | {"holdout": 5}
    assert np.bincount(data.load("npz", options).valid.y, minlength=3).tolist() == [3, 2, 0]


def test_holdout_follows_its_seed(mnist: data.Dataset) -> None:
    rows = [data.load("mnist", {"holdout": 5000, "holdout_seed": seed}).valid.rows for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1])
    # Two draws of 5000 from 60 000 share about 417.
    assert 300 < len(np.intersect1d(rows[0], rows[2])) < 550


def test_npz_may_bring_a_validation_set(cache: Path, npz: Callable[..., Options]) -> None:
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    options = npz(x_valid=x, y_valid=np.array([1, 2]))
    loaded = data.load("npz", options)
    assert np.array_equal(loaded.valid.x, x)
    assert loaded.valid is not loaded.test
    with pytest.raises(InputError, match=r"data.holdout=3: must be 0, since the file has a validation set"):
        data.load("npz", {**options, "holdout": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 60_000, "holdout_seed": 0}, "data.holdout=60000: must be < 60000"),
        ({"holdout": -1, "holdout_seed": 0}, "data.holdout=-1: must be a whole number ≥ 0"),
        ({"holdout": 0}, "data.holdout_seed.*is missing"),
        ({"holdout": 0, "holdout_seed": 0, "path": "x"}, "data.path=x: no such field"),
    ],
)
def test_wrong_options(mnist: data.Dataset, options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load("mnist", options)


def test_an_unknown_dataset_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"data.name=minst: must be one of mnist, .*did you mean mnist"):
        data.load("minst", PLAIN)


# ---------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_scale_pixels(mnist: data.Dataset, dtype: str) -> None:
    split = data.load("mnist", {"holdout": 5000, "holdout_seed": 0}).valid
    batches = data.Batches(split, 200, dtype)
    index = np.random.default_rng(0).permutation(5000)[:150]
    x, y = batches.take(index)
    assert x.dtype == dtype
    assert x.shape == (150, 784)
    expected = (mnist.train.x[split.rows[index]].astype(np.float64) - 128) / 255
    np.testing.assert_allclose(x, expected, rtol=4 * float(np.finfo(dtype).eps), atol=0)
    assert np.array_equal(y, mnist.train.y[split.rows[index]])
    assert y.dtype == np.intp
    again, _ = batches.take(index[:10])
    assert np.shares_memory(x, again)


@pytest.mark.parametrize("index", [[60_000], [0] * 201])
def test_batches_check_positions(mnist: data.Dataset, index: list[int]) -> None:
    with pytest.raises((IndexError, ValueError)):
        data.Batches(mnist.train, 200, np.float32).take(np.array(index))


@pytest.mark.parametrize("stored", [">f4", "<f4", "<f8"])
def test_floats_are_kept_as_they_are(cache: Path, npz: Callable[..., Options], stored: str) -> None:
    x = {f"x_{part}": np.linspace(-3, 3, rows * 4).reshape(rows, 4).astype(stored) for part, rows in SIZES}
    loaded = data.load("npz", npz(**x))
    assert loaded.train.x.dtype == np.dtype(stored).newbyteorder("=")
    assert np.array_equal(loaded.train.x, x["x_train"])
    for dtype in ("float32", "float64"):
        batch, _ = data.Batches(loaded.train, 12, dtype).take(np.arange(12)[::-1])
        assert np.array_equal(batch, x["x_train"][::-1].astype(dtype))
