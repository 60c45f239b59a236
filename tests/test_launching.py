"""What a sweep is given is what a single run would be given, and odd surroundings cost no results."""

import csv
import io
import os
import resource
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import yaml
from conftest import ROOT
from test_sweep import runs, wait_for

from sweeps.launch.manifest import Manifest
from sweeps.runs.directory import RunDir

APP = """
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
import sweeps

@dataclass
class Optim:
    name: str = "sgd"
    lr: float = 0.1

@dataclass
class Config:
    lr: float = 0.5
    n: int = 1
    where: str = ""
    widths: list[int] = field(default_factory=lambda: [8, 8])
    optim: Optim = field(default_factory=Optim)

ConfigStore.instance().store("config", Config)

@sweeps.main(config_name="config")
def train(cfg):
    return cfg.lr

if __name__ == "__main__":
    train()
"""
TASK = """
import sys
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    if cfg.x == 0:
        sys.exit(0)
    if cfg.x == 4:
        sys.exit(4)
    return [None, (0.5, 2), {"acc": 1.5, "note": "good", "parts": [1, 2]}, "a text"][cfg.x]

if __name__ == "__main__":
    main()
"""
SPY = """
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from sweeps.launch.job import Job

class Spy(BasicSweeper):
    def sweep(self, arguments):
        batches = super().sweep(arguments)
        for job in batches[0]:
            print("returned", repr(job.return_value))
        return batches
"""


@pytest.fixture
def script(tmp_path):
    """Run a script of the test's own to its end."""

    def run(content, *words, status=0, **env):
        (tmp_path / "app.py").write_text(content)
        done = subprocess.run(
            [sys.executable, "app.py", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env=os.environ | env,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def configurations(out):
    return [yaml.safe_load(RunDir(path).config.read_text()) for path in runs(out).values()]


# ------------------------------------------------------------------------------------------- the same values as one run


@pytest.mark.parametrize(
    "word",
    [
        "lr=1", "lr=${optim.lr}", "lr=${oc.env:RATE}", "optim={lr:2}", "optim={lr:2,name:adam}", "widths.0=3",
        "widths.1=${n}", "where=${oc.env:RATE}/${n}", "optim.lr=3", "widths=[1,2]", "n=1_000", "where='${n}'",
    ],
)  # fmt: skip
def test_a_point_is_the_run_that_the_same_words_alone_are(script, tmp_path, word):
    """Types, interpolations, parts of lists and mappings: Hydra's business in both."""
    script(APP, word, "n=7", RATE="0.25")
    before = runs(tmp_path / "outputs").keys()
    done = script(APP, "--multirun", word, "n=7,8", RATE="0.25")
    assert "2 runs, 1 finished already, 1 to train" in done.stdout
    assert before < runs(tmp_path / "outputs").keys()
    assert all("$" not in str(values) for values in configurations(tmp_path / "outputs"))


def test_a_type_that_is_declared_holds_in_a_sweep_too(script, tmp_path):
    done = script(APP, "--multirun", "lr=1,abc", status=2)
    assert "lr=abc" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_the_results_tree_of_a_sweep_may_be_in_a_variable(small, command, tmp_path):
    words = [word for word in small if not word.startswith("out=")]
    done = command("--multirun", *words, "out=${oc.env:PLACE}/many", "wd=${lr}", "lr=0.1,0.2", PLACE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    optims = [values["optim"] for values in configurations(tmp_path / "many")]
    assert sorted((optim["lr"], optim["wd"]) for optim in optims) == [(0.1, 0.1), (0.2, 0.2)]


def test_parts_of_lists_are_swept(small, command, tmp_path):
    done = command("--multirun", *small, "model.hidden.0=8,9")
    assert done.returncode == 0, done.stderr
    widths = [values["model"]["hidden"] for values in configurations(tmp_path / "out")]
    assert sorted(widths) == [[8], [9]]


def test_chdir_moves_no_results_tree(small_npz, command, tmp_path):
    data = ("data=npz", f"data.path={os.path.relpath(small_npz, tmp_path)}", "model.hidden=[16]", "epochs=1")
    assert command(*data, "hydra.job.chdir=true").returncode == 0
    (path,) = runs(tmp_path / "outputs").values()
    assert [found.parent for found in tmp_path.rglob("metrics.csv")] == [path]
    done = command("--multirun", *data, "hydra.job.chdir=true", "lr=0.1,0.2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: hydra.job.chdir=True: is for single runs")


def test_data_that_change_in_mid_sweep_are_trained_on_by_no_run(small, small_npz, tmp_path):
    path, changed = tmp_path / "mine.npz", tmp_path / "changed.npz"
    arrays = dict(np.load(small_npz))
    np.savez(path, **arrays)
    np.savez(changed, **arrays | {"y_test": (arrays["y_test"] + 1) % 3})
    words = [word for word in small if not word.startswith(("data.path", "epochs"))]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlp.train", "--multirun", *words, f"data.path={path}", "epochs=100", "seed=0,1,2",
         "hydra.launcher.workers=1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    wait_for(lambda: list(tmp_path.glob("out/runs/*/metrics.csv")))
    os.replace(changed, path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output + errors
    assert f"data.path={path}: has changed since the run was planned" in output
    states = [RunDir(run).read_status().state for run in runs(tmp_path / "out").values()]
    assert sorted(states) == ["failed", "failed", "finished"]


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.name=true"], "hydra.sweeper.name=True: must be a text"),
        (["hydra.sweeper.name=1.5"], "hydra.sweeper.name=1.5: must be a text"),
        (["hydra.sweeper.name=[a]"], "hydra.sweeper.name=['a']: must be a text"),
        (["hydra.sweeper.where=5"], "hydra.sweeper.where=5: must be a condition"),
        (["hydra.sweeper.where=[]"], "hydra.sweeper.where=[]: must be a condition"),
        (["+hydra.sweeper.grids.a={seed:[0,1],where:5}"], "hydra.sweeper.grids[1].where=5: must be a condition"),
        (["hydra.sweeper.dry_run=5"], "hydra.sweeper.dry_run=5: must be true or false"),
        (["hydra.sweeper.params=5"], "hydra.sweeper.params=5: must be a mapping"),
        (["seed=range(0,1000000000)"], "seed=range(0,1000000000): would be 1,000,000,000 points"),
        (["seed=shuffle(range(0,1000000000))"], "would be 1,000,000,000 points; a sweep has at most 100,000"),
        (["lr=range(1,2,1e-9)"], "would be 1,000,000,000 points"),
        (["seed=range(0,9,0)"], "seed=range(0,9,0): must have an end"),
        (["seed=range(0,inf)"], "must have an end"),
        (["seed=range(0,1e300)"], "would be 1e+300 points"),
        (["seed=range(0,3000)", "bsz=range(1,3000)"], "points=8,997,000: would be 8,997,000 points"),
        (["activ=null"], "activ=null: must be one of gelu, relu"),
        (["activ=relu,null"], "activ=null: Config group override must be a string"),
        (["model.hidden.x=8"], "model.hidden.x=8: "),
        (["model.hidden.5=8"], "model.hidden.5=8"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_one_line(small, command, tmp_path, words, message):
    resource_limit = 3 * 2**30
    done = subprocess.run(
        [sys.executable, "-m", "mlp.train", "--multirun", *small, *words], capture_output=True, text=True,
        cwd=tmp_path, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (resource_limit, resource_limit)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_a_date_names_a_sweep(small, command, tmp_path):
    assert command("--multirun", *small, "hydra.sweeper.name=20261124").returncode == 0
    assert (tmp_path / "out" / "sweeps" / "20261124" / "manifest.json").exists()


@pytest.mark.parametrize("content", ["lr: [1", "lr: 1\nlr: 2", "\tlr: 1", "lr: \x00"])
@pytest.mark.parametrize("flags", [(), ("--multirun",)])
def test_yaml_that_is_none_is_named_by_file_and_line(command, tmp_path, content, flags):
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "bad.yaml").write_text(content)
    done = command(f"--config-dir={folder}", *flags, "+bad=bad", "data=npz")
    done = command("--config-dir", str(folder), "--config-name", "bad", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_process_has_a_stop_file_of_its_own(tmp_path):
    """Containers share host name and pid, and one that was killed may have left its own."""
    assert Manifest(tmp_path, "s").stop_file != Manifest(tmp_path, "s").stop_file


# ------------------------------------------------------------------------------------------------ what comes of a job


def test_what_a_task_returns_reaches_the_sweepers_of_others(script, tmp_path):
    plugins = tmp_path / "plugins" / "hydra_plugins" / "spy"
    plugins.mkdir(parents=True)
    (plugins / "__init__.py").write_text(SPY)
    folder = tmp_path / "plugins" / "hydra" / "sweeper"
    folder.mkdir(parents=True)
    (folder / "spy.yaml").write_text("_target_: hydra_plugins.spy.Spy\nmax_batch_size: null\nparams: null\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path / "plugins")])
    words = (
        f"--config-dir={tmp_path / 'plugins'}",
        "--multirun",
        "hydra/sweeper=spy",
        "hydra/launcher=pool",
        "+x=1,2,3",
    )
    for _ in range(2):  # trained, then read
        done = script(TASK, *words, PYTHONPATH=path)
        assert [line for line in done.stdout.splitlines() if line.startswith("returned")] == [
            "returned [0.5, 2]",
            "returned {'acc': 1.5, 'note': 'good', 'parts': [1, 2]}",
            "returned 'a text'",
        ]


def test_an_application_may_end_itself(script, tmp_path):
    words = ("--multirun", "hydra/sweeper=grid", "hydra/launcher=pool")
    assert "1 finished" in script(TASK, *words, "+x=0").stdout
    done = script(TASK, *words, "+x=4", status=1)
    assert "SystemExit: 4" in done.stdout


# -------------------------------------------------------------------------------------------------------- surroundings


def shell(line, tmp_path, **env):
    line = line.replace("python", sys.executable)
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, errors="replace", cwd=tmp_path, timeout=120,
        env=os.environ | env,
    )  # fmt: skip


@pytest.fixture
def run_id(small, command, tmp_path):
    assert command(*small).returncode == 0
    (run,) = runs(tmp_path / "out")
    return run


READERS = ("ls", "collect", "tables --rows lr", "show RUN", "watch --once", "report", "diff RUN RUN")


@pytest.mark.heavy
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_commands_without_standard_streams(run_id, small, small_npz, tmp_path, redirection):
    data = f"data=npz data.path={small_npz}"
    lines = [f"python -m sweeps {reader} --out out" for reader in READERS]
    lines += [f"python -m mlp.evaluate RUN {data} --out out"]
    training = [f"python -m mlp.train {flags} {' '.join(small)} seed=3,4" for flags in ("--multirun",)]
    training += [f"python -m mlp.train {' '.join(small)} seed=5"]
    for line in [*lines, *training]:
        done = shell(f"{line.replace('RUN', run_id)} {redirection}", tmp_path)
        assert "Traceback" not in done.stderr, line
        assert "Exception ignored" not in done.stderr, line
        if redirection != ">/dev/full":
            assert done.returncode == 0, line + done.stderr
    assert len(runs(tmp_path / "out")) == 4  # training says what it can, and goes on
    assert {RunDir(path).read_status().state for path in runs(tmp_path / "out").values()} == {"finished"}


@pytest.mark.heavy
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_commands_whose_terminal_knows_few_letters(run_id, small, small_npz, tmp_path, encoding):
    lines = [f"python -m sweeps {reader} --out out" for reader in READERS]
    lines += [f"python -m mlp.evaluate RUN data=npz data.path={small_npz} --out out"]
    lines += [f"python -m mlp.train --multirun {' '.join(small)} seed=3,4"]
    for line in lines:
        done = shell(line.replace("RUN", run_id), tmp_path, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, line + done.stderr
    assert "must be a number" in shell("python -m mlp.train lr=-1", tmp_path, PYTHONIOENCODING=encoding).stderr


@pytest.mark.parametrize("flags", ["", "--multirun"])
def test_a_reader_that_has_gone_ends_no_training_and_hides_no_failure(small, tmp_path, flags):
    """``| head -1``"""
    line = f"python -m mlp.train {flags} {' '.join(small)} epochs=50"
    done = shell(f"set -o pipefail; {line} | true", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = runs(tmp_path / "out").values()
    assert RunDir(path).read_status().state == "finished"
    assert shell(f"set -o pipefail; {line} lr=-1 2>&1 | true", tmp_path).returncode == 2
    path.joinpath("config.yaml").unlink()
    (tmp_path / "file").write_text("")
    assert shell(f"set -o pipefail; {line} out=file/x 2>&1 | true", tmp_path).returncode == 2


SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = {"mlp.train": "lr=-1", "sweeps": "ls", "mlp.evaluate": "x", "mlp-train": "lr=-1", "mlp-sweeps": "ls"}


def program(name):
    """What runs a module as a program, or what the console script of this name does."""
    if name not in SCRIPTS:
        return f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    module, _, function = SCRIPTS[name].partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_importing_says_nothing(tmp_path, name):
    started = ["-c", program(name)] if name in SCRIPTS else ["-m", name]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *started, COMMANDS[name]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    for line in process.stderr:
        if line.endswith("sweeps.runs.quiet\n"):
            break
        assert not line.endswith(" numpy\n")  # the larger imports come after it
    next(line for line in process.stderr if line)  # the package's own part is over
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in errors
    assert output == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_python_shuts_down_says_nothing(tmp_path, name):
    wait = "import atexit, time; atexit.register(lambda: (print('leaving', flush=True), time.sleep(60)))"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{wait}; {program(name)}", COMMANDS[name]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "error: " in errors
    assert "Traceback" not in errors


def test_a_directory_that_was_deleted(small, tmp_path):
    (tmp_path / "gone").mkdir()
    for flags in ("", "--multirun"):
        line = f"mkdir -p gone; cd gone; rmdir ../gone; python -m mlp.train {flags} {' '.join(small)}"
        done = shell(line, tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 2
        assert done.stderr == "error: the working directory has been deleted; cd to another\n"


def test_too_few_descriptors_are_named(small, tmp_path):
    done = shell(f"ulimit -n 6; python -m mlp.train --multirun {' '.join(small)} seed=0,1", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no worker could start in 10 attempts: Too many open files" in done.stdout


def test_no_cell_of_a_csv_file_is_a_formula(script, command, tmp_path):
    text = "=cmd()"
    script(APP, f"where='{text}'")
    script(APP, "where='-1e5'")
    assert command("collect", module="sweeps").returncode == 0
    listed = command("ls", "--csv", "--columns", "where,lr", module="sweeps").stdout
    for content in (listed, (tmp_path / "outputs" / "runs.csv").read_text()):
        cells = [row["where"] for row in csv.DictReader(io.StringIO(content))]
        assert sorted(cells) == ["'=cmd()", "-1e5"]
