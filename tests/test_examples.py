"""What examples/ promises: each example runs as its README says, and a killed one ends with the same bits."""

import csv
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

EXAMPLES = ROOT / "examples"
GRID = ("hydra/sweeper=grid", "hydra/launcher=pool")


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs {module}")


@pytest.fixture
def example(tmp_path):
    """Copy an example to an empty directory; the result runs its script there and returns what it printed."""

    def copied(name):
        shutil.copytree(EXAMPLES / name, tmp_path, dirs_exist_ok=True)

        def run(*words):
            done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=250)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout

        return run

    return copied


def test_every_example_says_how_it_is_run():
    folders = [path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert {"pytorch_mnist", "sklearn_no_epochs", "hydra_app", "notebook"} <= {path.name for path in folders}
    for folder in folders:
        readme = (folder / "README.md").read_text()
        assert all(path.name in readme for path in folder.iterdir() if path.suffix in (".py", ".ipynb"))


def test_an_unmodified_hydra_application_is_swept(example, tmp_path):
    source = (EXAMPLES / "hydra_app" / "app.py").read_text()
    assert "sweeps" not in source
    run = example("hydra_app")
    assert "degree 1" in run("app.py")
    swept = run("app.py", "--multirun", "model=linear,cubic", "seed=0,1,2", *GRID)
    assert "6 runs, 6 to train" in swept
    assert "6 finished;" in swept
    runs = sorted((tmp_path / "outputs" / "runs").iterdir())
    assert len(runs) == 6
    assert all((path / "job" / "app.log").read_text().count("root mean square error") == 1 for path in runs)
    again = run("app.py", "--multirun", "model=linear,cubic", "seed=0,1,2", *GRID)
    assert "6 runs, 6 finished already" in again
    assert "to train" not in again
    assert all((path / "job" / "app.log").read_text().count("root mean square error") == 1 for path in runs)


@needs("sklearn")
def test_a_function_without_epochs_is_swept(example):
    run = example("sklearn_no_epochs")
    swept = run("sweep.py")
    assert "6 to train" in swept
    assert "6 finished;" in swept
    again = run("sweep.py")
    assert "6 finished already" in again
    assert "to train" not in again
    assert again.splitlines()[-7:] == swept.splitlines()[-7:]  # the table


@pytest.mark.heavy
@needs("nbclient")
@needs("ipykernel")
@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_a_function_of_a_notebook_is_swept(tmp_path):
    import nbclient
    import nbformat

    def execute():
        notebook = nbformat.read(EXAMPLES / "notebook" / "logistic.ipynb", as_version=4)
        assert all(not cell.get("outputs") for cell in notebook.cells)
        nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        return "".join(output.text for output in outputs if output.output_type == "stream")

    assert "18 to train" in execute()
    assert "18 finished already" in execute()


def start(tmp_path, *words):
    return subprocess.Popen(
        [sys.executable, EXAMPLES / "pytorch_mnist" / "train.py", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def bits(folder):
    """Every array of the checkpoint, every metric and every step, but for the seconds."""
    (run,) = (folder / "outputs" / "runs").iterdir()
    with np.load(run / "checkpoint.npz") as file:
        arrays = {name: file[name].tobytes() for name in file.files if name != "history"}
        history = np.delete(file["history"], list(file["columns"]).index("seconds"), axis=1).tobytes()
    assert any(name.startswith("state/optimizer") for name in arrays)
    assert any(name.endswith("/torch") for name in arrays)  # the generator
    with open(run / "metrics.csv", newline="") as file:
        rows = [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return arrays, history, rows, (run / "steps.csv").read_bytes()


@pytest.mark.heavy
@pytest.mark.timeout(900)
@needs("torch")
def test_pytorch_killed_ten_times_ends_with_the_same_bits(tmp_path):
    words = ("epochs=40", "images=2000")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    undisturbed = start(straight, *words)
    output, errors = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, output + errors

    rng = random.Random(0)
    for _ in range(10):
        process = start(killed, *words)
        wanted = rng.randrange(4)  # epochs; none: it dies while it starts or restores
        for _ in range(wanted):
            process.stdout.readline()
        time.sleep(rng.random() * (0.3 if wanted else 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start(killed, *words)
    output, errors = last.communicate(timeout=300)
    assert last.returncode == 0, output + errors
    shown = [int(line.split()[1].partition("/")[0]) for line in output.splitlines() if line.startswith("epoch")]
    print(f"killed ten times; the last process trained epochs {shown[0]} to {shown[-1]}")
    assert shown[0] > 1
    assert shown[-1] == 40
    assert bits(killed) == bits(straight)
