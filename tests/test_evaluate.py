"""``python -m mlp.evaluate``: the numbers of the training itself, taken apart by class."""

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mlp import data, load, train
from mlp.composition import compose
from mlp.data import Split
from mlp.evaluate import Evaluation, choose_data, evaluate
from mlp.inspect.misclassified import most_confident
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError


def test_the_run_s_own_test_set_gives_the_last_row_exactly(command, real):
    out, run_id = real
    done = command(run_id, "--out", out, module="mlp.evaluate", OPENBLAS_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, "")
    row = RunDir(out / "runs" / run_id).read_metrics()[-1]
    folder = out / "evaluations" / run_id
    report = json.loads((folder / "mnist.json").read_text())
    assert (report["accuracy"], report["loss"]) == (row.test_acc, row.test_loss)
    assert report["recorded"] == {"accuracy": row.test_acc, "loss": row.test_loss}
    assert report["data"]["own"]
    assert f"accuracy {row.test_acc:.2f} %  loss {row.test_loss:.6g}\nas recorded\n" in done.stdout

    confusion = np.array(report["confusion"])
    assert np.trace(confusion) / 100 == row.test_acc
    test = data.load("mnist", {"holdout": 0, "holdout_seed": 0}).test
    assert confusion.sum(axis=1).tolist() == np.bincount(test.y).tolist() == report["classes"]["images"]
    with (folder / "mnist-confusion.csv").open(newline="") as file:
        assert [[int(x) for x in line[1:]] for line in list(csv.reader(file))[1:]] == confusion.tolist()
    with (folder / "mnist-classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(line["f1"]) for line in rows] == report["classes"]["f1"]
    assert done.stdout.splitlines()[-3:] == [str(folder / name) for name in
                                             ("mnist.json", "mnist-confusion.csv", "mnist-classes.csv")]  # fmt: skip


def test_numbers_by_class_worked_by_hand():
    """Three classes; the third is neither shown nor said."""
    labels = np.array([0, 0, 0, 1, 1])
    result = Evaluation(labels, np.eye(3)[[0, 0, 1, 1, 0]], 0.0)
    assert result.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert result.accuracy == 60
    by_class = {key: values.tolist() for key, values in result.by_class.items()}
    assert by_class["precision"][:2] == [2 / 3, 1 / 2]
    assert by_class["recall"][:2] == [2 / 3, 1 / 2]
    assert by_class["f1"][:2] == [2 / 3, 1 / 2]
    assert by_class["images"] == [3, 2, 0]
    assert all(np.isnan(by_class[key][2]) for key in ("precision", "recall", "f1"))


@pytest.fixture
def other(small_npz, tmp_path):
    """The clouds' test set with all labels 0, so that a class is never right."""
    with np.load(small_npz) as file:
        arrays = dict(file)
    arrays["y_test"] = np.zeros_like(arrays["y_test"])
    np.savez(tmp_path / "other.npz", **arrays)
    return tmp_path / "other.npz"


def test_own_files_and_others(command, small, small_npz, other):
    result = train(compose(*small))
    words = ("--out", "elsewhere")  # the run lies in a tree of its own, where its evaluations go
    done = command(str(result.path), f"data.path={small_npz}", *words, module="mlp.evaluate")
    assert (done.returncode, done.stderr) == (0, "")
    assert "as recorded" in done.stdout
    done = command(str(result.path), "data=npz", f"data.path={other}", *words, module="mlp.evaluate")
    assert "200 test images of npz, which the run was not trained on" in done.stdout
    assert "recorded" not in done.stdout
    assert "–" in done.stdout
    reports = [json.loads(path.read_text()) for path in (result.path.parents[1] / "evaluations").rglob("*.json")]
    assert sorted(report["data"]["own"] for report in reports) == [False, True]
    assert [report["classes"]["recall"][1:] for report in reports if not report["data"]["own"]] == [[None, None]]


def test_another_dataset_in_mnist_s_form(command, real, tmp_path):
    """Digits upside down, as files of Fashion-MNIST's format."""
    out, run_id = real
    mnist = data.load("mnist", {"holdout": 0, "holdout_seed": 0})
    folder = tmp_path / "idx"
    folder.mkdir()
    for name, split in (("train", mnist.train), ("t10k", mnist.test)):
        pixels, labels = split.x[:2000, ::-1], split.y[:2000]
        header = struct.pack(">4BIII", 0, 0, 8, 3, len(pixels), 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    done = command(run_id, "data=fashion_mnist", f"data.path={folder}", "--out", out, module="mlp.evaluate")
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = (out / "evaluations" / run_id).glob("fashion_mnist-*.json")
    report = json.loads(report.read_text())
    assert (report["images"], report["data"]["own"], report["recorded"]) == (2000, False, None)
    confusion = np.array(report["confusion"])
    assert confusion[6, 9] + confusion[9, 6] > confusion[6, 6] + confusion[9, 9]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data=mnist",), "784 features: must have 20 per image"),
        (("lr=0.1",), "argument=lr=0.1: must choose data"),
        ((), "data.path=???: is missing"),
        (("data=npz",), "data.path=???: is missing"),
        (("data=minst",), "data=minst: must be one of cifar10, fashion_mnist, mnist, npz (did you mean mnist?)"),
        (("data.bogus=1",), "data.bogus=1: no such key; known: name"),
        (("data=[",), "arguments=data=["),
        (("data.path=/nowhere",), "No such file"),
    ],
)
def test_unusable_words_are_one_line(small, words, said):
    model = load(train(compose(*small)).path)
    with pytest.raises(InputError) as caught:
        evaluate(model, choose_data(model, words)[1])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_s_errors_are_one_line_and_status_2(command, real):
    done = command(real[1], "lr=0.1", "--out", real[0], module="mlp.evaluate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: argument=lr=0.1: must choose data, as data=fashion_mnist or data.path=mine.npz\n"


def test_more_classes_than_the_network_has(small, small_npz, tmp_path):
    model = load(train(compose(*small)).path)
    with np.load(small_npz) as file:
        arrays = dict(file)
    arrays["y_train"][0] = 7
    np.savez(tmp_path / "more.npz", **arrays)
    with pytest.raises(InputError, match="8 classes: must have 3 at most"):
        evaluate(model, choose_data(model, [f"data.path={tmp_path / 'more.npz'}"])[1])


@pytest.mark.heavy
def test_mistakes_are_drawn(command, real, small):
    out, run_id = real
    done = command("mistakes", run_id, "--out", out, module="sweeps")
    assert (done.returncode, done.stderr) == (0, "")
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [file.name for file in files] == [
        f"mnist-{name}.{kind}" for name in ("confusion", "mistakes") for kind in ("png", "svg", "pdf")
    ]
    assert all(file.parent == out / "evaluations" / run_id and file.stat().st_size > 1000 for file in files)
    run = train(compose(*small)).path
    done = command("mistakes", str(run), f"data.path={compose(*small).data.options['path']}", module="sweeps")
    assert [Path(line).name[10:] for line in done.stdout.splitlines()] == [
        f"-confusion.{kind}" for kind in ("png", "svg", "pdf")
    ]
    assert command("mistakes", "none", module="sweeps").returncode == 2


def test_the_surest_mistakes_come_first():
    labels = np.array([0, 1, 1, 0, 1])
    logits = np.array([[0, 1], [9, 0], [0, 5], [1, 3], [2, 2.5]], float)  # wrong: 0, 1, 3; surest: 1, 3, 0
    pixels = np.arange(5, dtype=np.uint8)[:, None].repeat(4, axis=1)
    test = Split(pixels, labels, np.arange(5))
    figure = most_confident(Evaluation(labels, logits, 0.0), test, "t", lambda x: x.reshape(2, 2))
    assert [int(axes.images[0].get_array()[0, 0]) for axes in figure.axes] == [1, 3, 0]
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["1, not 0", "0, not 1", "0, not 1"]
    perfect = Evaluation(labels, np.eye(2)[labels], 0.0)
    assert most_confident(perfect, test, "t", lambda x: x).axes == []
