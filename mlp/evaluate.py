"""``python -m mlp.evaluate RUN [data=NAME …]``: evaluate a trained network on a test set, class by class.

evaluate     Model, Dataset → Evaluation
choose_data  the run's own dataset, or the one named by overrides
"""

if __name__ == "__main__":
    import sweeps.runs.quiet  # noqa: F401

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mlp import data
from mlp.activations import Floats
from mlp.config import Choice
from mlp.data import Dataset
from mlp.losses import LOSSES
from mlp.model import ROWS, Model, load
from sweeps.runs import command, files
from sweeps.runs.errors import InputError, printable
from sweeps.runs.files import write_atomic
from sweeps.runs.identity import digest
from sweeps.runs.metrics import Row


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's outputs on a test set of n images.

    Attributes:
        labels: (n,) the true classes.
        logits: (n, classes).
        loss: mean per image, of the kind that the run was trained with.
    """

    labels: NDArray[np.intp]
    logits: Floats
    loss: float

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """(n,)"""
        classes: NDArray[np.intp] = self.logits.argmax(axis=1)
        return classes

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * int(np.count_nonzero(self.predicted == self.labels)) / len(self.labels)

    @cached_property
    def confusion(self) -> NDArray[np.intp]:
        """(classes, classes): how many images of class ``row`` were predicted as class ``column``."""
        classes = self.logits.shape[1]
        counts = np.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        return counts.reshape(classes, classes)

    @property
    def by_class(self) -> dict[str, NDArray[Any]]:
        """``precision``, ``recall``, ``f1`` (0 to 1, NaN where the denominator is 0) and ``images`` of each class."""
        right, shown, said = self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        with np.errstate(invalid="ignore"):
            return {
                "precision": right / said,
                "recall": right / shown,
                "f1": 2 * right / (shown + said),
                "images": shown,
            }


def evaluate(model: Model, dataset: Dataset) -> Evaluation:
    """The network on the test set, in training's blocks: accuracy and loss are the recorded ones, bit for bit.

    Raises:
        InputError: the dataset's images or classes are not the network's.
    """
    if dataset.features != model.features:
        raise InputError(
            "data",
            f"{dataset.features} features",
            f"must have {model.features} per image, as {model.run_id} was trained on",
        )
    if dataset.classes > model.classes:
        raise InputError("data", f"{dataset.classes} classes", f"must have {model.classes} at most, as the network has")
    test = dataset.test
    with threadpool_limits(1, user_api="blas"):  # as in training: products rounded alike
        logits = model.logits(test.x[test.rows])
    chosen = model.identity["loss"]
    loss = LOSSES[chosen["name"]].build(**{key: value for key, value in chosen.items() if key != "name"})
    total = 0.0
    for start in range(0, len(test), ROWS):
        block = logits[start : start + ROWS].copy(order="F")  # the network's memory order: the same sums, bit for bit
        total += loss.forward(block, test.y[start : start + ROWS])
    return Evaluation(test.y, logits, total / len(test))


def choose_data(model: Model, words: Sequence[str] = ()) -> tuple[Choice, Dataset]:
    """The run's own dataset, or another: ``("data=npz", "data.path=mine.npz")``.

    Raises:
        InputError: an override is not about data, or the data cannot be used.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    from mlp.composition import compose

    for word in words:
        if word.partition("=")[0] != "data" and not word.startswith("data."):
            raise InputError("argument", word, "must choose data, as data=fashion_mnist or data.path=mine.npz")
    own = model.identity["data"]
    if not any(word.startswith("data=") for word in words):
        options = [f"data.{key}={own[key]}" for key in ("holdout", "holdout_seed") if key in own]
        words = [f"data={own['name']}", *options, *words]
    try:
        chosen = compose(*words).data
    except MissingMandatoryValue:
        raise InputError("data.path", "???", "is missing; a run records only the checksum of its data") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError("arguments", " ".join(words), str(error).splitlines()[0]) from None
    return chosen, data.load(chosen.name, chosen.options)


def recorded(model: Model) -> Row | None:
    """The row of metrics.csv for the model's epoch; None if there is none."""
    rows = model.run.read_metrics()
    return rows[model.epoch - 1] if 0 < model.epoch <= len(rows) else None


def folder(model: Model, out: Path) -> Path:
    """Where evaluations of this run are kept: in its results tree, or in ``out`` if it is outside one.

    Raises:
        InputError: it is a symbolic link.
    """
    runs = model.run.path.parent
    return files.folder(runs.parent if runs.name == "runs" else out, "evaluations", model.run_id)


def stem(choice: Choice, dataset: Dataset) -> str:
    """The name of files about a dataset; for the user's files it includes their checksums."""
    given = choice.options.get("path") is not None
    return f"{choice.name}-{digest(dataset.checksums)[:6]}" if given else choice.name


def main() -> None:
    """The command line; see :func:`sweeps.runs.command.run` for the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mlp.evaluate",
        description="Evaluate a trained network on the test set of its own data, or of others.",
    )
    parser.add_argument("run", metavar="RUN", help="id, its beginning, or a path")
    parser.add_argument("words", metavar="data=NAME data.KEY=VALUE", nargs="*", help="other data than the run's own")
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="results tree (outputs)")
    sys.exit(command.run(lambda: _evaluate(parser.parse_args())))


def _evaluate(args: argparse.Namespace) -> None:
    model = load(args.run, args.out)
    choice, dataset = choose_data(model, args.words)
    result = evaluate(model, dataset)
    own = dataset.checksums == model.identity["data"].get("checksums")
    row = recorded(model) if own else None
    classes = {key: values.tolist() for key, values in result.by_class.items()}

    print(model)
    print(f"{len(result.labels)} test images of {choice.name}{'' if own else ', which the run was not trained on'}")
    print(f"accuracy {result.accuracy:.2f} %  loss {result.loss:.6g}")
    if row:
        # The BLAS sums in another order with another number of threads.
        same = result.accuracy == row.test_acc and math.isclose(result.loss, row.test_loss, rel_tol=1e-6)
        print("as recorded" if same else f"recorded {row.test_acc:.2f} %  loss {row.test_loss:.6g}")
    print("\nconfusion: rows are the true class, columns the predicted one")
    print(command.aligned([["", *range(model.classes)], *([k, *counts] for k, counts in enumerate(result.confusion))]))
    print()
    print(command.aligned([["class", *classes], *_class_rows(classes)]))

    target = folder(model, args.out) / stem(choice, dataset)
    report = {
        "run": model.run_id,
        "epoch": model.epoch,
        "state": model.state,
        "data": choice.as_dict() | {"checksums": dataset.checksums, "own": own},
        "images": len(result.labels),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "recorded": {"accuracy": row.test_acc, "loss": row.test_loss} if row else None,
        "classes": {key: [x if x == x else None for x in values] for key, values in classes.items()},
        "confusion": result.confusion.tolist(),
    }
    numbered = [["class", *range(model.classes)], *([k, *counts] for k, counts in enumerate(result.confusion))]
    by_class = [["class", *classes], *([k, *row] for k, row in enumerate(zip(*classes.values(), strict=True)))]
    contents = {
        ".json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "-confusion.csv": _csv(numbered),
        "-classes.csv": _csv(by_class),
    }
    print()
    for suffix, content in contents.items():
        path = target.with_name(target.name + suffix)
        write_atomic(path, content.encode())
        print(printable(str(path)))


def _class_rows(classes: Mapping[str, Sequence[float]]) -> list[list[object]]:
    return [
        [k, *("–" if x != x else f"{x:.4f}" for x in row[:-1]), row[-1]]
        for k, row in enumerate(zip(*classes.values(), strict=True))
    ]


def _csv(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
