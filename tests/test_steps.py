"""Means over 50 batches at step level: recorded by the real command line, killed and resumed, and read as a table."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from test_damage import flip
from test_session import arrays, measured

import sweeps
from mlp.composition import compose
from mlp.training import train
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import DamagedRun

WINDOWS = ["window_train_loss", "window_train_acc"]


def run_of(out):
    (run,) = run_dirs(out)
    return run


@pytest.mark.parametrize("words", [("threads=1",), ("threads=2",), ("threads=1", "eval_train=full")])
def test_mnist_has_six_windows_an_epoch(command, tmp_path, words):
    done = command("model.hidden=[64]", "epochs=2", *words, f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    collection = sweeps.load(tmp_path / "out")
    steps, epochs = collection.steps(), collection.epochs
    assert list(steps.columns) == ["run", "epoch", "step", *WINDOWS]
    assert list(zip(steps["epoch"], steps["step"], strict=True)) == [(e, s) for e in (1, 2) for s in range(1, 7)]
    assert set(steps["run"]) == set(epochs["run"])
    assert not set(WINDOWS) & {*epochs.columns, *collection.runs.columns}
    means = steps.groupby("epoch")[WINDOWS].mean().to_numpy()
    running = epochs[["train_loss", "train_acc"]].to_numpy()
    if "eval_train=full" in words:  # measured after the epoch, not within it
        assert (running[:, 0] < means[:, 0]).all()
    else:
        np.testing.assert_allclose(means, running, rtol=1e-12)


def test_one_thread_and_two_differ_by_rounding(tmp_path):
    tables = []
    for threads in (1, 2):
        out = tmp_path / str(threads)
        train(compose("model.hidden=[64]", "epochs=1", "dtype=float64", f"threads={threads}", f"out={out}"))
        tables.append(sweeps.load(out).steps()[WINDOWS].to_numpy())
    np.testing.assert_allclose(*tables, rtol=1e-9)


@pytest.mark.parametrize("every", [1, 3])
def test_kill_9_loses_and_repeats_no_window(small, tmp_path, every):
    words = [*small[:-1], "bsz=5", "epochs=40", f"checkpoint_every={every}"]  # 128 batches: 50, 50, 28
    out = tmp_path / "killed"
    for goal in range(4, 32, 4):
        process = subprocess.Popen([sys.executable, "-m", "mlp.train", *words, f"out={out}"], stdout=subprocess.PIPE)
        while not any(run.steps.exists() and len(run.read_steps()) >= 6 * goal for run in run_dirs(out)):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    train(compose(*words, f"out={out}"))
    train(compose(*words, f"out={tmp_path / 'straight'}"))
    assert run_of(out).steps.read_bytes() == run_of(tmp_path / "straight").steps.read_bytes()
    assert len(run_of(out).read_steps()) == 40 * 3 * 2


def test_a_reader_sees_no_more_steps_than_epochs(small, tmp_path):
    out = tmp_path / "out"
    run = RunDir(train(compose(*small)).path)
    with run.steps.open("a") as file:  # as a process that was killed leaves it
        file.write("5,1,window_train_loss,0.5\n")
    assert list(sweeps.load(out).steps()["epoch"]) == [1, 2, 3, 4]
    assert list(sweeps.load(out, epochs=2).steps()["epoch"]) == [1, 2]
    assert sweeps.load(out, "seed=1").steps().empty


def test_runs_of_different_programs_make_one_table(small, tmp_path):
    def fit(cfg, run):
        for epoch in run.epochs(1):
            run.log_step(loss=cfg["a"])
            run.log_step(loss=2)
            run.log(end=epoch)

    out = tmp_path / "out"
    train(compose(*small, "epochs=1"))
    sweeps.run(fit, {"a": 1}, out=out)
    sweeps.run(lambda cfg: cfg["a"], {"a": 1}, out=out)  # without steps
    steps = sweeps.load(out).steps()
    assert list(steps.columns) == ["run", "epoch", "step", "loss", *WINDOWS]
    assert steps["loss"].tolist()[:2] == [1, 2]
    assert len(steps) == 3
    assert steps["loss"].isna().tolist() == [False, False, True]


def test_nothing_is_read_before_it_is_asked_for(small, tmp_path):
    run = RunDir(train(compose(*small)).path)
    run.steps.unlink()
    os.mkfifo(run.steps)  # opening it to read would wait for a writer
    collection = sweeps.load(tmp_path / "out")
    assert len(collection.epochs) == 4
    assert collection.steps().empty  # and by then it is not waited for either


@pytest.mark.parametrize(
    "rows",
    [
        "1,1,loss,0.5\n1,1,loss,0.5\n",
        "1,1,lo\x1bss,0.5\n",
        "1,-1,loss,0.5\n",
        "0,1,loss,0.5\n",
        f"1,{10**30},loss,0.5\n",
        f"{'1' * 5000},1,loss,0.5\n",
        "1,1,loss,x\n",
        "1,1,loss\n",
        "\xff\n",
        "".join(f"1,{i},m{i},0\n" for i in range(1, 5000)),
    ],
)
def test_a_damaged_table_is_named_and_the_others_are_read(small, tmp_path, rows, caplog):
    whole, damaged = (RunDir(train(compose(*small, "epochs=1", f"seed={seed}")).path) for seed in (0, 1))
    damaged.steps.write_bytes(b"epoch,step,metric,value\n" + rows.encode("latin-1"))
    steps = sweeps.load(tmp_path / "out").steps()
    assert set(steps["run"]) == {whole.path.name}
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert f"{damaged.path.name}/steps.csv: " in record.message
    assert record.message.isprintable()


def test_no_flipped_bit_makes_a_wrong_step(small, tmp_path, caplog):
    run = RunDir(train(compose(*small)).path)
    content, rng = run.steps.read_bytes(), random.Random(0)
    lines = content.splitlines(keepends=True)
    for kept in (lines[:-1], lines[:1], []):  # cut between lines is damage, too
        run.steps.write_bytes(b"".join(kept))
        with pytest.raises(DamagedRun, match=r"steps\.csv: "):
            run.read_steps(run.read_status())
    for _ in range(300):
        run.steps.write_bytes(content)
        flip(run.steps, rng.randrange(len(content)), rng.randrange(8))
        with pytest.raises(DamagedRun, match=r"steps\.csv: "):
            run.read_steps(run.read_status())
    assert sweeps.load(tmp_path / "out").steps().empty
    assert caplog.messages[-1].startswith(f"{run.steps}: ")
    run.steps.write_bytes(content)
    assert len(sweeps.load(tmp_path / "out").steps()) == 4


@pytest.mark.parametrize("damage", ["flip", "gone"])
@pytest.mark.parametrize("last", ["finished", "killed"])
def test_what_is_left_of_damaged_steps_does_not_pass_for_all(small, tmp_path, caplog, damage, last):
    out, words = tmp_path / "out", [*small, "epochs=6"]
    straight = RunDir(train(compose(*words, f"out={tmp_path / 'straight'}")).path)
    if last == "finished":
        train(compose(*small, "epochs=3"))
    else:
        killed = "on_epoch=lambda row: row.epoch == 3 and os._exit(9)"
        code = f"import os; from mlp import compose, train; train(compose(*{words}), {killed})"
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    run = run_of(out)
    if damage == "gone":
        run.steps.unlink()
    else:
        flip(run.steps, len(run.steps.read_bytes()) // 2)
    for epochs in (5, 6):  # also by the session after the next
        train(compose(*words, f"epochs={epochs}"))
        (named,) = (message for message in caplog.messages if message.startswith(f"{run.steps}: "))
        assert "only training it from scratch brings back" in named
        assert named in run.log.read_text()
        caplog.clear()
        assert sweeps.load(out).steps().empty
        assert caplog.messages[-1].startswith(f"{run.steps}: ")
        caplog.clear()
    assert (measured(run.path), arrays(run.path)) == (measured(straight.path), arrays(straight.path))
    for path in (run.checkpoint, run.checkpoint_before):  # without which it is trained from scratch
        path.unlink()
    run.metrics.unlink()
    train(compose(*words))
    assert run.steps.read_bytes() == straight.steps.read_bytes()
    assert len(sweeps.load(out).steps()) == 6


def test_a_table_of_no_runs_has_the_kinds_of_others(small, tmp_path):
    train(compose(*small))
    collection = sweeps.load(tmp_path / "out")
    empty = sweeps.load(tmp_path / "out", "seed=1").steps()
    pd.testing.assert_series_equal(empty.dtypes, collection.steps().dtypes[["run", "epoch", "step"]])
