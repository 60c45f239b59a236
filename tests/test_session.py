"""A run can be stopped and continued at any moment, by anybody, and comes out the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mlp.composition import compose
from mlp.losses import LOSSES
from mlp.trainer import Trainer
from mlp.training import train
from sweeps.runs import checkpoint
from sweeps.runs.directory import RunDir

TIMES = ("seconds", "eval_seconds")


def measured(run):
    """metrics.csv without its clock columns."""
    return [tuple(v for k, v in row.items() if k not in TIMES) for row in RunDir(run).read_metrics()]


def arrays(run):
    with np.load(run / "checkpoint.npz") as file:
        clock = [list(file["columns"]).index(name) for name in TIMES]
        return {k: (np.delete(file[k], clock, axis=1) if k == "history" else file[k]).tobytes() for k in file.files}


def start(*words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "mlp.train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env,
    )  # fmt: skip


def run_path(tmp_path, words, tree="out"):
    config = compose(*[word for word in words if not word.startswith("out=")], f"out={tmp_path / tree}")
    return config.out / "runs" / config.run_id


def test_finished_is_read_and_not_trained_again(small):
    first = train(compose(*small))
    files = {p.name: p.stat().st_mtime_ns for p in first.path.iterdir()}
    again = train(compose(*small), on_epoch=lambda row: pytest.fail("trained again"))
    assert again.reused
    assert again.history == first.history
    assert {p.name: p.stat().st_mtime_ns for p in first.path.iterdir()} == files


def test_fewer_epochs_than_done_reads_the_earlier_one(small):
    whole = train(compose(*small))
    part = train(compose(*small, "epochs=2"))
    assert part.state == "finished"
    assert part.history == whole.history[:2]
    assert RunDir(whole.path).read_status().epoch == 4


def test_extended_equals_straight_through(small, tmp_path):
    train(compose(*small, "epochs=3"))
    extended = train(compose(*small, "epochs=6"))
    straight = train(compose(*small, "epochs=6", f"out={tmp_path / 'other'}"))
    assert measured(extended.path) == measured(straight.path)
    assert arrays(extended.path) == arrays(straight.path)


@pytest.mark.parametrize(("optim", "every"), [("sgd", 1), ("adam", 3)])
def test_kill_9_at_random_moments_loses_nothing_but_the_epoch_in_flight(small, tmp_path, every, optim):
    words = [*small[:-2], "epochs=60", "bsz=5", f"optim={optim}", f"checkpoint_every={every}"]
    rng = random.Random(every)
    path = run_path(tmp_path, words)
    kills = 0
    while kills < 10:
        process = start(*words, f"out={tmp_path / 'out'}")
        # Wait until it trains, so that the kill falls into the loop and not into the start-up.
        seen = 0
        for line in process.stdout:
            seen += line.startswith("epoch")
            if seen > rng.randrange(3):
                break
        time.sleep(rng.random() * 0.03)
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        assert RunDir(path).read_status().state in ("interrupted", "finished")
    assert kills >= 5
    finished = train(compose(*words, f"out={tmp_path / 'out'}"))
    straight = train(compose(*words, f"out={tmp_path / 'straight'}"))
    assert finished.state == straight.state == "finished"
    assert measured(finished.path) == measured(straight.path)
    assert arrays(finished.path) == arrays(straight.path)
    assert not list(path.glob(".*.tmp"))


def test_an_epoch_that_was_shown_is_never_trained_again(small, tmp_path):
    words = [*small[:-2], "epochs=90", "bsz=5", f"out={tmp_path / 'out'}"]
    shown = 0
    for goal in (10, 30, 50):
        process = start(*words)
        while shown < goal:
            line = process.stdout.readline()
            assert line
            if line.startswith("epoch"):
                epoch = int(line.split()[1].partition("/")[0])
                assert epoch > shown
                shown = epoch
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert len(train(compose(*words)).history) == 90
    provenance = json.loads((run_path(tmp_path, words) / "provenance.json").read_text())
    begun = [session["from_epoch"] for session in provenance["sessions"]]
    assert all(epoch >= goal for epoch, goal in zip(begun, (0, 10, 30, 50), strict=True))


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(small, command, tmp_path):
    assert command(*small, "epochs=1").returncode == 0
    path = run_path(tmp_path, small)
    for name in ("checkpoint.npz", "status.json"):
        (path / f".{name}.k1ll3d.tmp").write_bytes(b"half of it")  # named as sweeps.runs.directory.write_atomic does
    assert command(*small).returncode == 0
    assert not list(path.glob(".*.tmp"))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_as_interrupted_and_the_same_words_go_on(small, tmp_path, signum, code):
    words = [*small[:-2], "epochs=300", "bsz=5", f"out={tmp_path / 'out'}"]
    process = start(*words)
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "interrupted" in out
    assert err == ""
    run = RunDir(run_path(tmp_path, words))
    status = run.read_status()
    assert (status.state, status.epoch) == ("interrupted", len(run.read_metrics()))
    done = status.epoch + 2
    result = train(compose(*words, f"epochs={done}"))
    straight = train(compose(*words, f"epochs={done}", f"out={tmp_path / 'other'}"))
    assert measured(result.path) == measured(straight.path)


def test_two_processes_train_a_run_once(small, tmp_path):
    words = [*small[:-2], "epochs=40", "bsz=10", f"out={tmp_path / 'out'}"]
    both = [start(*words) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    epochs = sum(line.startswith("epoch") for out in outputs for line in out.splitlines())
    assert epochs == 40
    assert sum("finished already" in out for out in outputs) == 1
    log = (run_path(tmp_path, words) / "train.log").read_text()
    assert log.count("training from epoch 1 to 40") == 1


def test_divergence_keeps_what_was_measured_and_is_final(small):
    result = train(compose(*small, "lr=3e4", "loss=euclidean", "epochs=50"))
    assert result.state == "diverged"
    assert len(RunDir(result.path).read_metrics()) == len(result.history) < 50
    again = train(compose(*small, "lr=3e4", "loss=euclidean", "epochs=50"))
    assert again.reused
    assert again.state == "diverged"
    assert again.error == result.error


def test_a_failure_is_recorded_and_the_run_can_go_on(small, monkeypatch):
    config = compose(*small)
    epoch = Trainer.epoch

    def fails(self, number, after_batch):
        if number == 3:
            raise MemoryError("no more")
        return epoch(self, number, after_batch)

    monkeypatch.setattr(Trainer, "epoch", fails)
    with pytest.raises(MemoryError):
        train(config)
    run = RunDir.of(config.out, config.run_id)
    status = run.read_status()
    assert (status.state, status.epoch, status.error) == ("failed", 2, "MemoryError: no more")
    assert "Traceback" in run.log.read_text()
    monkeypatch.undo()
    assert train(config).state == "finished"
    assert run.read_status().error is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "absent", "other"])
def test_a_damaged_checkpoint_is_found_and_training_restarts(small, tmp_path, damage, caplog):
    straight = train(compose(*small, f"out={tmp_path / 'straight'}"))
    path = train(compose(*small, "epochs=2")).path / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "absent":
        path.unlink()
    else:
        np.savez(path, W1=np.zeros(3))
    result = train(compose(*small))
    assert measured(result.path) == measured(straight.path)
    assert arrays(result.path) == arrays(straight.path)
    assert damage == "absent" or "damaged checkpoint" in caplog.text


def test_metrics_are_cut_back_to_the_checkpoint(small, tmp_path):
    run = RunDir(train(compose(*small, "epochs=2")).path)
    with open(run.metrics, "a") as file:  # a row that no checkpoint covers, and a torn one
        file.write("3,9,9,9,9,9,9,9,9\n4,9,9")
    assert len(run.read_metrics()) == 3
    run.status.unlink()  # else three rows would be an answer to epochs=3
    result = train(compose(*small))
    straight = train(compose(*small, f"out={tmp_path / 'straight'}"))
    assert measured(result.path) == measured(straight.path)


def test_a_full_disk_costs_the_epoch_and_says_so(small, monkeypatch, tmp_path):
    config = compose(*small)
    save = checkpoint.save

    def full(run, tree, history):
        if len(history) == 3:
            raise OSError(28, "No space left on device", str(run.checkpoint))
        save(run, tree, history)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(config)
    monkeypatch.undo()
    result = train(config)
    assert measured(result.path) == measured(train(compose(*small, f"out={tmp_path / 'other'}")).path)


def test_unowned_running_counts_as_interrupted_and_owned_does_not(small, tmp_path):
    words = [*small[:-2], "epochs=3000", "bsz=5", f"out={tmp_path / 'out'}"]
    process = start(*words)
    process.stdout.readline()
    run = RunDir(run_path(tmp_path, words))
    assert run.read_status().state == "running"
    process.kill()
    process.communicate()
    assert run.read_status().state == "interrupted"


def test_provenance_lists_each_session(small):
    train(compose(*small, "epochs=2"))
    path = train(compose(*small, "threads=1")).path
    sessions = json.loads((path / "provenance.json").read_text())["sessions"]
    assert [session["from_epoch"] for session in sessions] == [0, 2]
    assert sessions[1]["threads"] == 1
    assert len(sessions[0]["source_sha256"]) == 64


def test_a_process_that_waits_for_a_run_can_be_interrupted(small, tmp_path):
    words = [*small[:-2], "epochs=100000", "bsz=5", f"out={tmp_path / 'out'}"]
    trains = start(*words)
    trains.stdout.readline()
    waits = start(*words)
    assert "waiting for pid" in waits.stderr.readline()
    waits.send_signal(signal.SIGTERM)
    out, _ = waits.communicate(timeout=30)
    assert waits.returncode == 143
    assert "interrupted" in out
    trains.kill()
    trains.communicate()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_continued_run_sums_its_losses_as_an_unbroken_one(small, tmp_path, loss):
    """The first session's scratch memory has grown by an evaluation that a later one has not made yet."""
    words = (*small[:-1], f"loss={loss}", "lr=0.05")
    straight = train(compose(*words, "epochs=2", f"out={tmp_path / 'straight'}"))
    for epochs in (1, 2):
        continued = train(compose(*words, f"epochs={epochs}", f"out={tmp_path / 'continued'}"))
    assert measured(continued.path) == measured(straight.path)
