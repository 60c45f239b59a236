"""``sweeps.sweep``: the command line's sweeps, from Python."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_session import measured
from test_sweep import runs, trained, wait_for, workers

import sweeps
from mlp import program
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError


@pytest.fixture
def base(small):
    """The small network's words, without out and epochs, which are arguments."""
    return [word for word in small if word.split("=")[0] not in ("out", "epochs")]


def test_a_grid_is_what_the_command_line_trains(base, small, command, tmp_path, capfd):
    grid = {"lr": [0.1, 0.01], "activ": ["relu", "gelu"]}
    collection = sweeps.sweep(program, grid, *base, out=tmp_path / "a", epochs=2, workers=2)
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "4 runs, 4 to train (8 epochs)" in shown.out
    assert "4 finished; " in shown.out
    assert sorted(zip(collection.runs["lr"], collection.runs["activ"], strict=True)) == [
        (0.01, "gelu"), (0.01, "relu"), (0.1, "gelu"), (0.1, "relu"),
    ]  # fmt: skip
    assert len(collection.epochs) == 8

    done = command("--multirun", *small, "lr=0.1,0.01", "activ=relu,gelu", "epochs=2", f"out={tmp_path / 'b'}")
    assert done.returncode == 0, done.stderr
    mine, theirs = runs(tmp_path / "a"), runs(tmp_path / "b")
    assert {name: measured(path) for name, path in mine.items()} == {
        name: measured(path) for name, path in theirs.items()
    }


def test_the_manifest_s_command_does_the_same_again(base, command, tmp_path):
    grids = {"lr": np.array([0.1, 0.05]), "model.hidden": [[4], [4, 4]]}, {"seed": range(2), "where": "seed > 0"}
    collection = sweeps.sweep(
        program, *grids, *base[:2], "bsz=50", out=tmp_path / "out", epochs=1, name="mine", quiet=True
    )
    assert len(collection.runs) == 5
    words = json.loads((tmp_path / "out" / "sweeps" / "mine" / "manifest.json").read_text())["command"][3:]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "mine: 5 runs, 5 finished already" in done.stdout
    assert set(trained(tmp_path / "out").values()) == {1}


def test_quiet_is_silent_and_what_is_there_is_only_read(base, tmp_path, capfd):
    first = sweeps.sweep(program, "seed=0,1", *base, out=tmp_path / "out", epochs=3, workers=1, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("*") if path.is_file()}
    again = sweeps.sweep(program, "seed=0,1", *base, out=tmp_path / "out", epochs=2, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capfd.readouterr() == ("", "")
    assert first.runs["run"].tolist() == again.runs["run"].tolist()
    assert again.runs["epoch"].tolist() == [2, 2]


SCRIPT = """
print("begins", flush=True)
from mlp import program
from sweeps import sweep
collection = sweep(program, {{"seed": [0, 1, 2]}}, *{base!r}, out="out", epochs={epochs}, workers=2, quiet=True)
print(collection.runs["state"].tolist())
"""


@pytest.mark.parametrize("how", ["file", "stdin", "thread"])
def test_a_script_without_a_guard(base, tmp_path, how):
    """Neither the script nor a part of it runs again in the workers."""
    script = SCRIPT.format(base=base, epochs=2)
    if how == "thread":
        begin = f"import threading\nthread = threading.Thread(target=exec, args=({script!r},))\n"
        script = f"{begin}thread.start()\nthread.join()\n"
    (tmp_path / "script.py").write_text(script)
    words, given = ([], script) if how == "stdin" else (["script.py"], None)
    done = subprocess.run(
        [sys.executable, *words], input=given, capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "begins\n['finished', 'finished', 'finished']\n"


def test_ctrl_c_raises_and_the_same_call_goes_on(base, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(base=base, epochs=2000))
    words = [sys.executable, "script.py"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("out/runs/*/checkpoint.npz")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.rstrip().endswith("KeyboardInterrupt")
    states = {RunDir(path).read_status().state for path in runs(tmp_path / "out").values()}
    assert states == {"interrupted"}
    collection = sweeps.sweep(program, {"seed": [0, 1, 2]}, *base, out=tmp_path / "out", epochs=5, quiet=True)
    assert collection.runs["state"].tolist() == ["finished"] * 3


def test_a_killed_worker_is_replaced_and_costs_its_epoch(base, tmp_path):
    """The second worker, too, must start without the main program."""
    (tmp_path / "script.py").write_text(SCRIPT.format(base=base, epochs=300))
    words = [sys.executable, "script.py"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: workers(process) and list(tmp_path.glob("out/runs/*/checkpoint.npz")))
    workers(process)[0].kill()
    shown, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert shown == "begins\n['finished', 'finished', 'finished']\n"


def test_a_failure_is_warned_of_and_in_the_collection(base, tmp_path):
    out = tmp_path / "out"
    sweeps.sweep(program, "seed=0", *base, out=out, epochs=1, quiet=True)
    (run,) = runs(out).values()
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").mkdir()
    with pytest.warns(RuntimeWarning, match="1 of 2 runs failed"):
        collection = sweeps.sweep(program, "seed=0,1", *base, out=out, epochs=2, quiet=True)
    assert collection.runs["state"].tolist() == ["finished"]
    assert len(collection.problems) == 1


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        (({"lr": [0.1, -1]},), {}, "lr=-1: must be a number > 0 (point 2"),
        (({"lrr": [0.1]},), {}, "lrr=0.1: no such key (did you mean lr?)"),
        (({"activ": ["rleu"]},), {}, "activ=rleu: must be one of gelu, relu, sigmoid, tanh (did you mean relu?)"),
        (({"lr": []},), {}, "must have at least one value"),
        (("lr=0.1,[",), {}, "sweep="),
        (("out=x",), {}, "out=outputs: is given twice"),
        (("hydra.sweeper.where='lr > 1'",), {}, "has nothing to run"),
        (("hydra/sweeper=basic",), {}, "must be grid"),
        (("hydra.sweep.dir=x",), {}, "hydra.sweep.dir=x: a run's directory is OUT/runs/RUN_ID"),
        ((), {"workers": 0}, "workers=0: must be"),
        ((), {"epochs": 0}, "epochs=0: must be"),
        ((), {"name": "../x"}, "name=../x: must be letters"),
    ],
)
def test_unusable_input_is_an_input_error_and_trains_nothing(tmp_path, monkeypatch, what, options, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        sweeps.sweep(program, *what, **options, quiet=True)
    assert said in str(caught.value)
    assert not Path("outputs", "runs").exists()


def test_importing_is_cheap():
    code = "import sys, mlp, sweeps; print([m for m in ('numpy', 'pandas', 'hydra', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
