import json
import os
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic import history, make_run, make_runs

import sweeps
from mlp import train
from mlp.composition import compose
from mlp.epochs import Epoch
from sweeps.read import snapshot
from sweeps.read.collect import write
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.runs.identity import digest
from sweeps.runs.metrics import Row

ADAM = {"name": "adam", "beta2": 0.999, "eps": 1e-8}


@pytest.fixture
def reads(monkeypatch):
    """The names of the run directories that are read, not taken from the cache."""
    names = []
    read = snapshot.read
    monkeypatch.setattr(snapshot, "read", lambda run: (names.append(run.path.name), read(run))[1])
    return names


def test_a_real_run_comes_back_as_it_was(small, tmp_path):
    result = train(compose(*small, "seed=7", "activ=gelu"))
    found = sweeps.load(tmp_path / "out")
    run = found.runs.iloc[0]
    assert found.problems == ()
    assert (run.run, run.state, run.epoch, run.target) == (result.run_id, "finished", 4, 4)
    assert (run.activ, run.model, run.layers, run.data, run.lr, run.seed) == ("gelu", "16", 1, "npz", 0.01, 7)
    assert run["activ.approximate"] == "tanh"
    assert run.test_acc == result.last.test_acc
    assert (run.best_epoch, run.best_valid_loss) == (result.best.epoch, result.best.valid_loss)
    assert run.epoch_seconds == np.median([epoch.seconds for epoch in result.history])
    assert run.path == str(result.path)
    assert tuple(found.epochs.columns) == ("run", *Epoch._fields)
    rows = found.epochs.drop(columns="run").itertuples(index=False, name=None)
    assert [Row(zip(Epoch._fields, values, strict=True)) for values in rows] == list(result.history)


def test_columns_and_kinds_do_not_depend_on_what_is_there(tmp_path):
    (tmp_path / "runs").mkdir()
    empty = sweeps.load(tmp_path)
    make_run(tmp_path, rows=[], state="running")
    make_run(tmp_path, activ={"name": "gelu", "approximate": "tanh"})
    full = sweeps.load(tmp_path)
    assert [c for c in full.runs.columns if c in empty.runs.columns] == list(empty.runs.columns)
    assert full.runs[empty.runs.columns].dtypes.equals(empty.runs.dtypes)
    assert full.epochs[empty.epochs.columns].dtypes.equals(empty.epochs.dtypes)
    one = sweeps.load(tmp_path, "activ=relu")
    assert one.runs.dtypes.equals(full.runs.dtypes)
    assert one.epochs.dtypes.equals(full.epochs.dtypes)


def test_best_is_the_first_epoch_of_the_highest_valid_accuracy(tmp_path):
    rows = [Epoch(i, 1.0, 90.0, 0.5, acc, 0.6, acc - i, 2.0 * i, 1.0) for i, acc in enumerate((80, 95, 95, 90), 1)]
    make_run(tmp_path, rows=rows)
    run = sweeps.load(tmp_path).runs.iloc[0]
    assert (run.best_epoch, run.best_test_acc, run.test_acc) == (2, 93, 86)
    assert (run.epoch_seconds, run.total_seconds) == (5.0, 24.0)


def test_reads_again_only_what_changed(tmp_path, reads):
    make_runs(tmp_path, 5, epochs=3)
    first = sweeps.load(tmp_path)
    assert len(reads) == 5
    again = sweeps.load(tmp_path)
    assert len(reads) == 5
    pd.testing.assert_frame_equal(first.runs, again.runs)
    pd.testing.assert_frame_equal(first.epochs, again.epochs)

    changed, gone = (RunDir.of(tmp_path, first.runs["run"][i]) for i in (1, 3))
    changed.append_metrics(Row(history(4)[-1]._asdict()), Epoch._fields)
    for path in gone.path.iterdir():
        path.unlink()
    gone.path.rmdir()
    new = make_run(tmp_path, seed=99)
    third = sweeps.load(tmp_path)
    assert sorted(reads[5:]) == sorted([changed.path.name, new.path.name])
    assert list(third.runs["run"]) == sorted({*first.runs["run"], new.path.name} - {gone.path.name})
    assert third.runs.set_index("run")["epoch"][changed.path.name] == 4
    (tmp_path / ".collect" / "runs.npz").unlink()
    fresh = sweeps.load(tmp_path)
    pd.testing.assert_frame_equal(third.runs, fresh.runs)
    pd.testing.assert_frame_equal(third.epochs, fresh.epochs)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "directory"])
def test_a_damaged_cache_is_rebuilt(tmp_path, reads, damage):
    make_runs(tmp_path, 3, epochs=50)
    before = sweeps.load(tmp_path)
    cache = tmp_path / ".collect" / "runs.npz"
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 0xFF
    cache.unlink()
    if damage == "directory":
        cache.mkdir()
    elif damage == "foreign":
        before.epochs.to_parquet(cache)
    else:
        cache.write_bytes({"empty": b"", "cut": bytes(content[: len(content) // 2]), "flipped": bytes(content)}[damage])
    after = sweeps.load(tmp_path)
    assert len(reads) == 6
    pd.testing.assert_frame_equal(before.runs, after.runs)
    pd.testing.assert_frame_equal(before.epochs, after.epochs)


def test_two_collectors_at_once(tmp_path):
    make_runs(tmp_path, 200, epochs=3)
    program = f"import sweeps; c = sweeps.load({str(tmp_path)!r}); print(len(c.runs), len(c.epochs), c.problems)"
    pair = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in pair] == ["200 600 ()\n"] * 2
    with np.load(tmp_path / ".collect" / "runs.npz") as cache:
        assert cache["records"].tobytes().count(b"\n") == 200
    assert os.listdir(tmp_path / ".collect") == ["runs.npz"]


def test_running_is_checked_each_time(tmp_path):
    run = make_run(tmp_path, state="running", epochs=2, target=5)

    def state():
        return sweeps.load(tmp_path).runs["state"][0]

    with run.lock():
        # another thread's view of the lock is another process's: flock belongs to the open file
        seen = []
        thread = threading.Thread(target=lambda: seen.append(state()))
        thread.start()
        thread.join()
        assert seen == ["running"]
    assert state() == "interrupted"
    with run.lock():
        assert state() == "running"


def _identity(**changes):
    """A config.yaml that matches its directory's name, with anything in it."""
    identity = {
        "model": {"hidden": [4], "init_std": 0.01},
        "activ": {"name": "relu"},
        "loss": {"name": "ce"},
        "optim": {"name": "sgd", "lr": 0.1, "wd": 0.0, "mo": 0.0},
        "data": {"name": "mnist", "checksums": {}},
        "bsz": 1,
        "seed": 0,
        "dtype": "float32",
        "eval_train": "running",
        **changes,
    }
    return f"relu-ce-4-{digest(identity)[:10]}", yaml.safe_dump(identity)


def _break(kind, out):
    """A directory that is broken in one way, and what its line must say."""
    if kind == "empty":
        (out / "runs" / "empty").mkdir()
        return "empty: no config.yaml"
    if kind == "foreign":
        (out / "runs" / "photos").mkdir()
        (out / "runs" / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
        return "photos: no config.yaml"
    if kind == "symlink":
        (out / "runs" / "link").symlink_to(next((out / "runs").iterdir()))
        return "link: is a symbolic link"
    if kind in ("bad-seed", "no-lr"):
        name, text = _identity(**{"bad-seed": {"seed": "x"}, "no-lr": {"optim": {"name": "sgd"}}}[kind])
        (out / "runs" / name).mkdir()
        (out / "runs" / name / "config.yaml").write_text(text)
        (out / "runs" / name / "status.json").write_bytes(next((out / "runs").glob("*/status.json")).read_bytes())
        return f"{name}: config.yaml: {'seed=x' if kind == 'bad-seed' else 'optim.lr=None'}"
    run = make_run(out, seed=1000)
    name = run.path.name
    if kind == "renamed":
        run.path.rename(out / "runs" / f"relu-ce-360-{'0' * 10}")
        return f"{'0' * 10}: config.yaml does not match the directory's name"
    if kind == "pipe":
        run.metrics.unlink()
        os.mkfifo(run.metrics)
        return f"{name}: metrics.csv: not a regular file"
    if kind == "unbegun":
        run.status.unlink()
        return f"{name}: no status.json"
    path, content = {
        "half-config": (run.config, run.config.read_bytes()[:50]),
        "binary-config": (run.config, b"\xff\xfe\x00"),
        "deep-config": (run.config, b"[" * 60_000),
        "alias-config": (run.config, b"a: &a [1]\nb: [*a, *a]\n"),
        "list-config": (run.config, b"- 1\n"),
        "half-status": (run.status, run.status.read_bytes()[:20]),
        "deep-status": (run.status, b"[" * 100_000),
        "odd-target": (run.status, run.status.read_bytes().replace(b'"target": 3', b'"target": "3"')),
        "odd-metrics": (run.metrics, b"loss,epoch\n2,1\n"),
        "text-metrics": (run.metrics, run.metrics.read_bytes() + b"4,x\n"),
        "gap-metrics": (run.metrics, run.metrics.read_bytes().replace(b"\n2,", b"\n7,")),
        "half-provenance": (run.provenance, run.provenance.read_bytes()[:30]),
    }[kind]
    path.write_bytes(content)
    return f"{name}: {path.name}"


KINDS = [
    "empty",
    "foreign",
    "symlink",
    "bad-seed",
    "no-lr",
    "renamed",
    "pipe",
    "unbegun",
    "half-config",
    "binary-config",
    "deep-config",
    "alias-config",
    "list-config",
    "half-status",
    "deep-status",
    "odd-target",
    "odd-metrics",
    "text-metrics",
    "gap-metrics",
    "half-provenance",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_directory_is_one_line_and_the_rest_is_collected(tmp_path, kind):
    make_runs(tmp_path, 2, epochs=3)
    said = _break(kind, tmp_path)
    for _ in range(2):  # with and without the cache
        found = sweeps.load(tmp_path)
        assert len(found.runs) == 2
        assert len(found.epochs) == 6
        (line,) = found.problems
        assert said in line
        assert line.isprintable()


def test_what_is_torn_or_short_is_still_a_run(tmp_path):
    torn, none, bare = (make_run(tmp_path, seed=seed) for seed in range(3))
    torn.metrics.write_bytes(torn.metrics.read_bytes() + b"4,0.1,9")
    none.metrics.unlink()
    bare.provenance.unlink()
    found = sweeps.load(tmp_path)
    assert found.problems == ()
    runs = found.runs.set_index("seed")
    assert list(runs["epoch"].sort_index()) == [3, 0, 3]
    assert pd.isna(runs["test_acc"][1])
    assert pd.isna(runs["best_epoch"][1])
    assert pd.isna(runs["git_commit"][2])


def test_hostile_texts_become_harmless(tmp_path):
    error = "boom\x1b[2J\n\u202etxt \ud800"
    make_run(tmp_path, state="failed", error=error)
    (tmp_path / "runs" / "evil\x1b]0;title\x07").mkdir()
    found = sweeps.load(tmp_path)
    assert found.runs["error"][0] == r"boom\x1b[2J\n\u202etxt \ud800"
    assert len(found.problems) == 1
    assert found.problems[0].isprintable()
    write(found, tmp_path)


def test_options_of_odd_kinds_share_a_column(tmp_path):
    for value in (1, "a", [1, 2], 10**30, None):
        name, text = _identity(activ={"name": "relu", "slope": value})
        run = make_run(tmp_path)
        run.config.write_text(text)
        run.path.rename(tmp_path / "runs" / name)
    found = sweeps.load(tmp_path)
    write(found, tmp_path)
    assert set(found.runs["activ.slope"].dropna()) == {"1", "a", "[1, 2]", str(10**30)}


def test_as_of_an_epoch(tmp_path):
    make_run(tmp_path, seed=0, epochs=5)
    make_run(tmp_path, seed=1, rows=history(4), target=5, state="diverged", error="nan")
    make_run(tmp_path, seed=2, rows=history(2), target=5, state="failed", error="disk")
    found = sweeps.load(tmp_path, epochs=3)
    runs = found.runs.set_index("seed").sort_index()
    assert list(runs["state"]) == ["finished", "finished", "failed"]
    assert list(runs["epoch"]) == [3, 3, 2]
    assert list(runs["target"]) == [3, 3, 3]  # or one that ended early would hold all others to its 5
    assert list(runs["error"].isna()) == [True, True, False]
    assert found.epochs["epoch"].max() == 3
    assert runs["test_acc"][0] == history(5)[2].test_acc
    assert list(sweeps.load(tmp_path, "state=diverged", epochs=4).runs["seed"]) == []
    assert list(sweeps.load(tmp_path, "state=diverged").runs["seed"]) == [1]


def test_filters_keep_runs_and_their_epochs(tmp_path):
    make_runs(tmp_path, 12, epochs=2)
    make_run(tmp_path, optim=ADAM)
    found = sweeps.load(tmp_path, "loss=hinge lr<=0.01", "lr!=0.0001")
    assert set(found.runs["loss"]) == {"hinge"}
    assert set(found.runs["lr"]) == {0.01, 0.001}
    assert list(found.epochs["run"].unique()) == list(found.runs["run"])
    assert len(found.epochs) == 2 * len(found.runs) == 4
    assert len(sweeps.load(tmp_path, "optim.beta2>0.9").runs) == 1
    with pytest.raises(InputError, match="epochs=0"):
        sweeps.load(tmp_path, epochs=0)
    with pytest.raises(InputError, match="holds no runs"):
        sweeps.load(tmp_path / "elsewhere")


def test_by_sweep(tmp_path):
    make_runs(tmp_path, 3, epochs=1)
    names = sorted(os.listdir(tmp_path / "runs"))
    (tmp_path / "runs" / "junk").mkdir()
    folder = tmp_path / "sweeps" / "lr"
    folder.mkdir(parents=True)
    runs = [{"run_id": name, "overrides": [], "epochs": 1} for name in [*names[:2], "not-yet-begun"]]
    (folder / "manifest.json").write_text(json.dumps({"name": "lr", "runs": runs}))
    found = sweeps.load(tmp_path, sweep="lr")
    assert list(found.runs["run"]) == names[:2]
    assert found.problems == ()
    with pytest.raises(InputError, match="known: lr"):
        sweeps.load(tmp_path, sweep="lrr")
    (folder / "manifest.json").write_text('{"runs": [')
    with pytest.raises(InputError, match="cannot be read"):
        sweeps.load(tmp_path, sweep="lr")


def test_written_tables_read_back_the_same_and_stay_when_nothing_changed(tmp_path):
    make_runs(tmp_path, 5, epochs=3)
    make_run(tmp_path, rows=[], state="failed", error='a "quoted", text', seed=9)
    found = sweeps.load(tmp_path)
    paths = write(found, tmp_path)
    for name, table in (("runs", found.runs), ("epochs", found.epochs)):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), table)
        kinds = {column: str(table[column].dtype) for column in table.columns}
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{name}.csv", dtype=kinds), table)
    before = [path.stat().st_mtime_ns for path in paths]
    assert write(sweeps.load(tmp_path), tmp_path) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    make_run(tmp_path, seed=77)
    write(sweeps.load(tmp_path), tmp_path)
    assert all(path.stat().st_mtime_ns > old for path, old in zip(paths, before, strict=True))


def test_import_is_cheap_and_load_is_exported():
    program = "import sys, sweeps; assert 'pandas' not in sys.modules; from sweeps import load; print(load.__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "sweeps.read.collect\n"
    with pytest.raises(AttributeError, match="lod"):
        _ = sweeps.lod
