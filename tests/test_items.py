"""What came of each test image: from the evaluation that happens anyway, kept with the last epoch, read back."""

import io
import os
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from test_damage import flip

import sweeps
from mlp.composition import compose
from mlp.evaluate import choose_data, evaluate
from mlp.model import load
from mlp.training import train
from sweeps.runs import outcomes
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError


@pytest.mark.parametrize("words", [("threads=1",), ("threads=2",), ("threads=1", "data.holdout=5000")])
def test_the_bits_of_mnist_are_its_accuracy_and_those_of_the_kept_network(command, tmp_path, words):
    done = command("model.hidden=[64]", "epochs=2", "lr=0.1", *words, f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    collection = sweeps.load(tmp_path / "out")
    (run,) = collection.runs["run"]
    bits = collection.items("test_correct")
    assert bits.shape == (1, 10_000)
    assert set(bits.dtypes) == {np.dtype(bool)}
    assert 100 * bits.loc[run].sum() / 10_000 == collection.runs["test_acc"][0]
    model = load(run, tmp_path / "out")
    evaluation = evaluate(model, choose_data(model)[1])
    np.testing.assert_array_equal(bits.loc[run], evaluation.predicted == evaluation.labels)
    assert RunDir.of(tmp_path / "out", run).items.stat().st_size < 2200


def test_seeds_by_images_of_a_sweep(command, tmp_path, small):
    done = command("--multirun", *small[:-1], "epochs=3", "seed=0,1,2", f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    collection = sweeps.load(tmp_path / "out")
    bits = collection.items("test_correct")
    assert bits.shape == (3, 200)
    np.testing.assert_allclose(100 * bits.mean(axis=1), collection.runs.set_index("run")["test_acc"])
    assert len(sweeps.load(tmp_path / "out", "seed=1").items("test_correct")) == 1


@pytest.mark.parametrize("done", [2, 3])  # epochs when it goes on, to the fourth
def test_killed_before_the_checkpoint_it_comes_out_the_same(small, tmp_path, done, caplog):
    words = (*small, "checkpoint_every=2")
    straight = RunDir(train(compose(*words, f"out={tmp_path / 'straight'}")).path).items.read_bytes()
    train(compose(*words, f"epochs={done}"))
    code = (
        "import os; from mlp import compose, train; from sweeps.runs import checkpoint\n"
        f"checkpoint.save = lambda *_: os._exit(9)\ntrain(compose(*{words}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    assert sweeps.load(tmp_path / "out").runs["epoch"].tolist() == [4]
    run = RunDir(train(compose(*words)).path)
    assert run.items.read_bytes() == straight
    assert sweeps.load(tmp_path / "out", epochs=3).items("test_correct").empty
    assert "its items are of epoch 4, not 3" in caplog.text


def test_what_a_run_of_before_has_not_is_left_out(small, tmp_path):
    old, new = (RunDir(train(compose(*small, f"seed={seed}")).path) for seed in (0, 1))
    old.items.unlink()
    assert list(sweeps.load(tmp_path / "out").items("test_correct").index) == [new.path.name]
    with pytest.raises(InputError, match=r"^items=test_corect: no run has logged them \(did you mean test_correct"):
        sweeps.load(tmp_path / "out").items("test_corect")


@pytest.fixture
def fit(tmp_path):
    """Train a function that logs these items in its epochs; the run's directory."""

    def run(epochs=1, *, state=None, **logged):
        def function(cfg, run):
            for epoch in run.epochs(epochs, state=state):
                run.log_items({name: values[epoch - 1] for name, values in logged.items()})
                run.log(loss=epoch)

        return RunDir(sweeps.run(function, {"n": len(list(tmp_path.glob("out/runs/*")))}, out=tmp_path / "out").path)

    return run


@pytest.mark.parametrize("state", [None, {"n": 0}])
def test_the_last_epochs_are_kept_for_any_program(fit, state):
    labels = [[1], np.arange(3, dtype=np.uint8)]
    found = outcomes.load(fit(2, state=state, hits=[[True], [False] * 9 + [True]], label=labels, file=[[0.5]] * 2))
    assert found.epoch == 2
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.arrays.items()} == {
        "hits": ("bool", [False] * 9 + [True]), "label": ("uint8", [0, 1, 2]), "file": ("float64", [0.5]),
    }  # fmt: skip


def test_a_function_without_epochs_has_items_too(tmp_path):
    def fit(cfg):
        sweeps.current_run().log_items(correct=[True, False])
        return {"acc": 50}

    run = RunDir(sweeps.run(fit, {}, out=tmp_path / "out").path)
    assert outcomes.load(run).arrays["correct"].tolist() == [True, False]


def test_what_is_logged_is_a_copy(tmp_path):
    def fit(cfg, run):
        memory = np.array([True, False])
        for _ in run.epochs(1):
            run.log_items(correct=memory)
            memory[:] = False
            run.log(loss=1)

    run = RunDir(sweeps.run(fit, {}, out=tmp_path / "out").path)
    assert outcomes.load(run).arrays["correct"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("correct", 0.5, r"items correct=float64\(\): must be a list of booleans or numbers"),
        ("correct", [[1]], r"items correct=int64\(1, 1\): must be"),
        ("correct", ["a"], r"items correct=<U1\(1,\): must be"),
        ("correct", [None], r"items correct=object\(1,\): must be"),
        ("correct", [[1], [1, 2]], r"items correct=object\(\): must be"),
        ("a b", [1], r"items=a b: must be letters"),
        ("correct", np.zeros(2**22 + 1), r"items correct=33554440 bytes: must have at most 33554432"),
    ],
)
def test_what_cannot_be_kept_is_named(fit, name, value, said):
    with pytest.raises(InputError, match=f"^{said}"):
        fit(**{name: [value]})


def test_a_run_whose_items_are_too_large_has_failed_and_is_not_damaged(fit, tmp_path):
    half = np.zeros(2**21)
    with pytest.raises(InputError, match=r"^items=a, b: must have at most 33554432 bytes together"):
        fit(2, state={"n": 0}, a=[[1], half], b=[[1], half])
    collection = sweeps.load(tmp_path / "out")
    assert collection.problems == ()
    assert collection.runs[["state", "epoch"]].to_numpy().tolist() == [["failed", 2]]


def test_different_data_do_not_make_one_table(fit, tmp_path):
    fit(correct=[[True, False]])
    fit(correct=[[True]])
    with pytest.raises(InputError, match="choose runs of the same data"):
        sweeps.load(tmp_path / "out").items("correct")


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if len(members) > 9 else zipfile.ZIP_STORED) as file:
        for name, array in members.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=True)
            file.writestr(f"{name.replace('__', '/')}.npy", content.getvalue())
    return buffer.getvalue()


ONE = np.int64(1)
GOOD = {"epoch": ONE, "bits__a": np.uint8([128]), "count__a": ONE}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        archive(**GOOD)[:-30],
        archive(**GOOD, numbers__b=np.frombuffer(b"distinct", np.uint8)).replace(b"distinct", b"distinkt"),
        archive(**GOOD | {"epoch": np.array([1])}),
        archive(**GOOD | {"count__a": np.int64(9)}),
        archive(**GOOD | {"count__a": np.int64(2**62)}),
        archive(**GOOD | {"count__a": np.int64(-1)}),
        archive(**{key: value for key, value in GOOD.items() if key != "count__a"}),
        archive(**GOOD | {"numbers__b": np.array([{}], object)}),
        archive(**GOOD | {"numbers__b": [[1]]}),
        archive(**GOOD | {"other": ONE}),
        archive(bits__a=np.uint8([128]), count__a=ONE),
        archive(**GOOD, **{f"numbers__{name}": np.zeros(2**20) for name in "bcdefgh"}),  # 56 MB in a file of 60 kB
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(fit, tmp_path, content, caplog):
    whole, damaged = fit(a=[[True]]), fit(a=[[True]])
    damaged.items.write_bytes(archive(**GOOD))
    assert len(sweeps.load(tmp_path / "out").items("a")) == 2
    damaged.items.write_bytes(content)
    assert list(sweeps.load(tmp_path / "out").items("a").index) == [whole.path.name]
    assert f"{damaged.path.name}/items.npz: " in caplog.text
    damaged.items.unlink()
    os.mkfifo(damaged.items)
    assert list(sweeps.load(tmp_path / "out").items("a").index) == [whole.path.name]


def test_no_flipped_bit_makes_a_wrong_item(fit):
    run = fit(correct=[[True, False]], answer=[[3, 4, 5]])
    content, rng, told = run.items.read_bytes(), random.Random(0), 0
    for place in range(len(content)):
        flip(run.items, place, rng.randrange(8))
        try:
            found = outcomes.load(run)
        except DamagedRun:
            told += 1
        else:  # a time of the archive's that means nothing, say
            assert found.epoch == 1
            items = {name: array.tolist() for name, array in found.arrays.items()}
            assert items == {"correct": [True, False], "answer": [3, 4, 5]}
        run.items.write_bytes(content)
    assert told > len(content) // 2
