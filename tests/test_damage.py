"""Files that were damaged at rest: found out, named, and mended or retrained; never a wrong number."""

import errno
import io
import json
import os
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_session import arrays, measured

from mlp.composition import compose
from mlp.training import train
from sweeps.runs import checkpoint
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import write_atomic

FILES = ["config.yaml", "metrics.csv", "status.json", "provenance.json"]


@pytest.fixture(scope="module")
def undisturbed(small_npz, tmp_path_factory):
    """The small network's configuration, and its run of four epochs."""
    out = tmp_path_factory.mktemp("undisturbed")
    config = compose("data=npz", f"data.path={small_npz}", "model.hidden=[16]", "bsz=50", "epochs=4", f"out={out}")
    return config, train(config).path


@pytest.fixture
def config(undisturbed, tmp_path):
    return replace(undisturbed[0], out=tmp_path / "out")


@pytest.fixture
def straight(undisturbed):
    return undisturbed[1]


def assert_as(path, straight):
    run = RunDir(path)
    assert run.read()[0].state == "finished"
    assert measured(path) == measured(straight)
    assert arrays(path) == arrays(straight)


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "absent", "zeros", "link", "pipe"])
def test_a_file_of_a_finished_run_is_damaged_and_mended(config, straight, name, damage, caplog):
    result = train(config)
    path = result.path / name
    content = path.read_bytes()
    if damage == "flip":
        flip(path, len(content) * 2 // 3)
    elif damage in ("truncate", "empty", "zeros"):
        path.write_bytes({"truncate": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content))}[damage])
    else:
        path.unlink()
    if damage == "link":
        path.symlink_to(straight / name)
    elif damage == "pipe":
        os.mkfifo(path)
    assert train(config).history == result.history
    if (name, damage) != ("status.json", "absent"):  # a run without one never began
        assert f"{path}: " in caplog.text
        assert f"{path}: " in (result.path / "train.log").read_text()
    assert_as(result.path, straight)
    assert train(config).reused


def test_damage_is_named_in_the_terminal_alone_and_in_a_sweep(small, command):
    path = train(compose(*small)).path
    for words in ((), ("--multirun",)):
        flip(path / "metrics.csv", 100)
        flip(path / "checkpoint.npz", 1000)
        done = command(*words, *small)
        assert done.returncode == 0, done.stderr
        shown = done.stdout + done.stderr
        assert shown.count(f"{path}/metrics.csv: damaged since it was written; continuing from the checkpoint") == 1
        assert shown.count(f"{path}/checkpoint.npz: damaged checkpoint (not as it was written") == 1


@pytest.mark.parametrize("name", FILES)
def test_the_collector_leaves_out_what_is_damaged_until_it_is_mended(config, command, name):
    path = train(config).path / name
    content = path.read_bytes()
    digit = max(place for place in range(len(content) * 2 // 3) if content[place : place + 1].isdigit())
    flip(path, digit)  # another digit: nothing but a wrong number
    done = command("collect", "--out", config.out, module="sweeps")
    assert f"{path.parent}: {name}" in done.stderr
    assert done.stdout.startswith("0 runs")
    train(config)
    done = command("collect", "--out", config.out, module="sweeps")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 runs (1 finished), 4 epochs")


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_makes_a_wrong_number(config, name):
    result = train(config)
    run, path = RunDir(result.path), result.path / name
    content = path.read_bytes()
    rng = random.Random(name)
    told = 0
    for _ in range(300):
        flip(path, rng.randrange(len(content)), rng.randrange(8))
        try:
            status, history = run.read()
        except DamagedRun as damage:
            assert name in str(damage)
            told += 1
        else:  # a blank that JSON does not mind, or such
            assert (status.epoch, tuple(history)) == (4, result.history)
        path.write_bytes(content)
    assert told > 270
    assert run.result(4).history == result.history


def _bomb(path, **arrays):
    """Much out of little."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            if name == "history":
                array = np.zeros((2**20, 9))
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def _boast(path, **arrays):
    """A header that promises 10¹² epochs."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            content = buffer.getvalue()
            archive.writestr(f"{name}.npy", content.replace(b"(2, 9), }" + b" " * 12, b"(1000000000000, 9), }"))


DAMAGES = {
    "flip": lambda path, a: flip(path, path.stat().st_size // 2),
    "flip-sum": lambda path, a: flip(path, path.stat().st_size - 1),
    "truncate": lambda path, a: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last-byte": lambda path, a: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path, a: path.write_bytes(b""),
    "nan": lambda path, a: np.savez(path, **a | {"W1": a["W1"] * np.nan}),
    "nan-velocity": lambda path, a: np.savez(path, **a | {"optim.lr_velocity": a["optim.lr_velocity"] * np.nan}),
    "shape": lambda path, a: np.savez(path, **a | {"W1": a["W1"].T}),
    "dtype": lambda path, a: np.savez(path, **a | {"W1": a["W1"].astype(np.float64)}),
    "history-shape": lambda path, a: np.savez(path, **a | {"history": a["history"][:, :3]}),
    "history-gap": lambda path, a: np.savez(path, **a | {"history": a["history"][1:]}),
    "history-nan": lambda path, a: np.savez(path, **a | {"history": a["history"] * np.inf}),
    "lacks": lambda path, a: np.savez(path, W1=a["W1"]),
    "bomb": lambda path, a: _bomb(path, **a),
    "boast": lambda path, a: _boast(path, **a),
    "pickle": lambda path, a: np.savez(path, **a | {"W1": np.array([{}], object)}),
    "pipe": lambda path, a: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path, a: (path.unlink(), path.mkdir()),
    "link": lambda path, a: (path.rename(path.with_name("elsewhere")), path.symlink_to(path.with_name("elsewhere"))),
}  # fmt: skip


SEALED = {"history-shape", "history-gap", "history-nan", "lacks", "bomb", "boast", "pickle"}
"""Which are found out in a file that carries the right checksum, too."""


def seal(run, path=None):
    """Put the run's checksum under a checkpoint that was written here."""
    path = path or run.checkpoint
    path.write_bytes(checkpoint._seal(path.read_bytes(), run.path.name))


@pytest.mark.parametrize("both", [False, True], ids=["newest", "both"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_an_epoch_and_both_cost_all(config, straight, damage, both, caplog):
    run = RunDir(train(replace(config, epochs=2)).path)
    paths = [run.checkpoint, run.checkpoint_before] if both else [run.checkpoint]
    with np.load(run.checkpoint) as file:
        contents = {name: file[name] for name in file.files}
    for path in paths:
        DAMAGES[damage](path, contents)
        if damage in SEALED:
            seal(run, path)
    result = train(config)
    assert_as(result.path, straight)
    assert f"training from epoch {1 if both else 2} to 4" in run.log.read_text()
    for path in paths:
        assert f"{path}: " in caplog.text
        assert path.with_suffix(".damaged").exists() or path.with_suffix(".damaged").is_symlink()
    RunDir(result.path).status.unlink()  # both names hold good ones again
    assert len(train(config).history) == 4


def test_no_flipped_bit_of_a_checkpoint_gets_into_the_weights(config):
    run = RunDir(train(config).path)
    content = run.checkpoint.read_bytes()
    rng = random.Random(0)
    for position in sorted({*rng.sample(range(len(content)), 200), *range(len(content) - 75, len(content))}):
        flip(run.checkpoint, position, rng.randrange(8))
        try:
            checkpoint.load(run.checkpoint)
        except DamagedRun as damage:
            assert "checkpoint.npz: damaged" in str(damage)
        else:
            raise AssertionError(f"not found out: {position}")
        run.checkpoint.write_bytes(content)


def test_a_checkpoint_of_release_0_1_is_still_read(config, straight):
    """Sealed, but with nothing in it of how the arrays hang together."""
    run = RunDir(train(replace(config, epochs=2)).path)
    with np.load(run.checkpoint) as file:
        np.savez(run.checkpoint, **{name: file[name] for name in file.files if name not in ("state.json", "columns")})
    seal(run)
    assert train(config).path == run.path
    assert "training from epoch 3 to 4" in run.log.read_text()
    assert_as(run.path, straight)


def test_another_network_s_checkpoint_is_refused_and_stays(config):
    run = RunDir(train(replace(config, epochs=2)).path)
    with np.load(run.checkpoint) as file:
        np.savez(run.checkpoint, **{**file, "W1": file["W1"].T})
    seal(run)
    content = run.checkpoint.read_bytes()
    with pytest.raises(InputError, match=r"^state\.W1=float32\[20, 16\]: .*float32\[16, 20\]"):
        train(config)
    assert run.checkpoint.read_bytes() == content


def test_files_without_checksums_are_still_read(config):
    result = train(config)
    run = RunDir(result.path)
    values = json.loads(run.status.read_text())
    run.status.write_text(json.dumps({k: v for k, v in values.items() if k not in ("sha256", "checksums")}))
    assert train(config).reused
    assert train(config).history == result.history


def test_another_run_s_checkpoint_is_none(config, straight, caplog):
    other = train(replace(config, seed=1, epochs=2))
    run = RunDir(train(replace(config, epochs=1)).path)
    shutil.copy(other.path / "checkpoint.npz", run.checkpoint)
    assert_as(train(config).path, straight)
    assert "another run's" in caplog.text


def test_a_checkpoint_that_is_not_ours_to_read_is_an_error_and_not_damage(config, monkeypatch):
    """Root may read all; what the system says to others comes from the real call's place."""
    run = RunDir(train(replace(config, epochs=2)).path)

    def refuse(path, limit):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(checkpoint, "opened", refuse)
    with pytest.raises(InputError, match=r"checkpoint\.npz"):
        train(config)
    assert run.checkpoint.exists()


def test_a_disk_that_lies_costs_the_new_checkpoint_and_not_the_old(config, straight, monkeypatch):
    """What was written is changed behind the writer's back, on the disk."""
    run = RunDir(train(replace(config, epochs=2)).path)
    before = run.checkpoint.read_bytes(), run.checkpoint_before.read_bytes()
    fsync = os.fsync

    def lies(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)
        if "checkpoint" in path.name:
            flip(path, 1000)

    monkeypatch.setattr(os, "fsync", lies)
    with pytest.raises(OSError, match="not on the disk as it was written"):
        train(config)
    monkeypatch.undo()
    assert (run.checkpoint.read_bytes(), run.checkpoint_before.read_bytes()) == before
    assert run.read_status().state == "failed"
    assert not list(run.path.glob(".*.tmp"))
    assert_as(train(config).path, straight)


def test_killed_between_the_last_row_and_its_checkpoint_it_is_not_finished(config, straight):
    """Else its parameters would be the last epoch but one's for ever."""
    run = RunDir(train(replace(config, epochs=3)).path)
    whole = train(config)
    row = run.metrics.read_bytes().splitlines(keepends=True)[-1]
    shutil.rmtree(run.path)
    train(replace(config, epochs=3))
    with run.metrics.open("ab") as file:
        file.write(row)
    assert len(run.read_metrics()) == 4
    result = train(config)
    assert not result.reused
    assert measured(result.path) == measured(straight)
    assert arrays(result.path) == arrays(straight)
    assert len(whole.history) == 4


def test_a_killed_run_s_rows_are_checked_too(config):
    """Its status says "running"; the rows that it had by then are vouched for."""

    def enough(row):
        if row.epoch == 3:
            os._exit(9)

    if (pid := os.fork()) == 0:
        train(config, on_epoch=enough)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    run = RunDir.of(config.out, config.run_id)
    status, history = run.read()
    assert (status.state, len(history)) == ("interrupted", 3)
    content = run.metrics.read_text()
    run.metrics.write_text(content.replace("\n2,", "\n2,1", 1))
    with pytest.raises(DamagedRun, match=r"metrics\.csv: damaged"):
        run.read()
    result = train(replace(config, epochs=2))
    assert not result.reused
    assert result.history[:2] == tuple(history[:2])


def test_a_folder_in_the_way_is_an_error_that_names_it(small, command):
    run = RunDir(train(compose(*small)).path)
    run.metrics.unlink()
    run.metrics.mkdir()
    done = command(*small)
    assert done.returncode != 0
    assert "metrics.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_one_before_is_kept_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    new, old = tmp_path / "new", tmp_path / "old"
    for content in (b"1", b"2", b"3"):
        write_atomic(new, content, keep=old)
    assert (new.read_bytes(), old.read_bytes()) == (b"3", b"2")
