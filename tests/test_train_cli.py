"""``python -m mlp.train`` and ``scripts/run_mlp.py`` as a person uses them."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import mlp
import sweeps
from mlp.composition import compose
from mlp.config import RunConfig


def test_one_run_on_real_mnist(command, tmp_path):
    done = command("activ=gelu", "loss=ce", "epochs=1", "threads=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("epoch 1/1  train ")
    assert lines[1] == "finished: 1/1 epochs"
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert run.name == compose("activ=gelu").run_id
    assert {p.name for p in run.iterdir()} == {
        ".hydra", ".lock", "checkpoint.npz", "config.yaml", "items.npz", "metrics.csv", "provenance.json",
        "status.json", "steps.csv", "train.log",
    }  # fmt: skip
    accuracy = float((run / "metrics.csv").read_text().splitlines()[1].split(",")[6])
    assert 88 < accuracy < 92
    assert command("activ=gelu", "epochs=1").stdout.startswith("finished already: 1/1 epochs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=-1"], "lr=-1: must be a number > 0"),
        (["bsz=0"], "bsz=0: must be a whole number ≥ 1"),
        (["mo=1.5"], "mo=1.5: must be a number ≥ 0 and < 1"),
        (["model.hidden=[]"], "model.hidden=[]"),
        (["dtype=int8"], "dtype=int8: must be one of float32, float64"),
        (["activ=gelo"], "activ=gelo: must be one of gelu, relu, sigmoid, tanh (did you mean gelu?)"),
        (["activv=gelu"], "activv=gelu: no such key (did you mean activ?)"),
        (["lrr=1"], "lrr=1: no such key (did you mean lr?)"),
        (["loss.margin=1"], "loss.margin=1: no such key; known: name"),
        (["hydra.run.dir=mine"], "hydra.run.dir=mine: a run's directory is OUT/runs/RUN_ID; out=DIR moves"),
        (["--multirun", "hydra.sweep.dir=mine"], "hydra.sweep.dir=mine: a run's directory is"),
        (["--multirun", "+hydra.sweep.subdir=mine"], "hydra.sweep.subdir=mine: a run's directory is"),
        (["lr"], "lr"),
        (["lr=[1"], "lr=[1"),
        (["data=npz"], "data.path=???: is missing; give it a value"),
        (["data=npz", "data.path=/nowhere.npz"], "/nowhere.npz"),
        (["data=npz", "data.path=torn.npz"], "torn.npz"),
        (["out=file/x"], "file"),
        (["data.holdout=60000"], "data.holdout=60000"),
    ],
    ids=lambda x: x[-1] if isinstance(x, list) else "",
)
def test_bad_input_is_one_screen_status_2_and_no_directory(command, tmp_path, words, message):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 not the rest")
    (tmp_path / "file").write_text("in the way")
    done = command("epochs=1", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"torn.npz", "file", "outputs"}
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_a_dry_run_of_one_run_is_its_plan_and_writes_nothing(command, small, tmp_path):
    before = {*tmp_path.rglob("*")}
    done = command("--dry-run", *small)
    assert (done.returncode, done.stderr) == (0, "")
    name, *rest = done.stdout.split(": ")
    assert rest[0].startswith("1 run, 1 to train (4 epochs)\nnew        " + name)
    assert "lr=1,2" in command("--dry-run", *small, "lr=1,2").stderr  # which the run itself would refuse, too
    assert command("--dry-run", *small, "lr=-1").stderr == "error: lr=-1: must be a number > 0\n"
    assert {*tmp_path.rglob("*")} == before

    assert command(*small).returncode == 0
    there = {*tmp_path.rglob("*")}
    assert "1 run, 1 finished already\nfinished" in command("--dry-run", *small).stdout
    assert "(2 epochs)\nfrom 5" in command("--dry-run", *small, "epochs=6").stdout
    assert {*tmp_path.rglob("*")} == there


def test_help_names_every_key_group_sweeper_and_launcher(command):
    done = command("--help")
    assert done.returncode == 0
    words = set(done.stdout.replace("=", " ").replace(",", " ").replace(";", " ").split())
    assert set(RunConfig.__dataclass_fields__) - {"hidden", "init_std"} <= words
    assert {"model.hidden", "activ.approximate", "data.holdout", "data.path", "loss.margin"} <= words
    for group in ("sweeper", "launcher"):
        assert {path.stem for path in (ROOT / "sweeps" / "conf" / "hydra" / group).glob("*.yaml")} <= words
    assert "learning rate, > 0" in done.stdout
    assert "--dry-run" in words
    assert len(done.stdout.splitlines()) < 80
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_version_is_the_package_s(command):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mlp.__version__ == sweeps.__version__ == version
    assert command("--version").stdout == f"mlp-train {version}\n"
    assert command("--version", module="sweeps").stdout == f"mlp-sweeps {version}\n"


def test_an_error_tells_of_control_characters_and_sends_none(command):
    done = command("activ=\x1b[31mred")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert r"\x1b[31mred" in done.stderr


def test_a_traceback_on_request(command):
    assert "Traceback" in command("lr=-1", HYDRA_FULL_ERROR="1").stderr


def test_out_moves_the_whole_tree(command, small, tmp_path):
    before = {p.name for p in tmp_path.iterdir()}
    assert command(*small, "out=elsewhere/deep").returncode == 0
    assert {p.name for p in tmp_path.iterdir()} - before == {"elsewhere"}


def test_words_complete_in_the_shell(command):
    def completions(line):
        return set(command("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).stdout.split())

    assert completions("mlp-train activ=") == {"activ=gelu", "activ=relu", "activ=sigmoid", "activ=tanh"}
    assert {"lr=", "loss="} <= completions("mlp-train l")


def test_a_notebook_s_two_lines(small, tmp_path):
    """The function stays reachable by its short name, although a module bears it too."""
    code = f"from mlp import train; from mlp.composition import compose; print(train(compose(*{small!r})).last.epoch)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "4"


def test_import_is_cheap():
    heavy = "pandas", "matplotlib", "hydra", "omegaconf", "scipy", "rich"
    code = f"import sys, mlp, sweeps.runs.session; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def report_script(*words, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "run_mlp.py"), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


def test_the_report_s_command_line(tmp_path):
    """Report §2.1's command, on real data; further words pass through."""
    flags = [
        "--nlayer",
        "1",
        "--activ",
        "relu",
        "--loss",
        "cross_entropy",
        "--lr",
        "0.01",
        "--wd",
        "0.001",
        "--mo",
        "0.9",
    ]
    words = ["epochs=1", *flags, "threads=1"]
    done = report_script(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert compose().run_id in done.stdout


def test_the_report_s_defaults_and_spellings():
    sys.path.insert(0, str(ROOT / "scripts"))
    from run_mlp import overrides

    assert compose(*overrides([])).run_id == compose("lr=0.001").run_id
    for spelling, name in (("enclidean", "euclidean"), ("hinge", "hinge"), ("cross_entropy", "ce")):
        assert compose(*overrides(["--loss", spelling, "--nlayer", "2"])).run_id == compose(
            f"loss={name}", "model=mlp2", "lr=0.001"
        ).run_id  # fmt: skip


@pytest.mark.parametrize(
    "words", [["--loss", "crossentropy"], ["--nlayer", "3"], ["--lr", "x"], ["--lr", "-1"], ["--los", "hinge"]]
)
def test_the_report_s_flags_are_checked(tmp_path, words):
    done = report_script(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["activ=true", "loss=1e3", "tracker=FALSE"])
def test_a_choice_that_is_no_name_to_hydra(command, word):
    done = command(word)
    assert done.returncode == 2
    field, _, value = word.partition("=")
    assert done.stderr.startswith(f"error: {field}={value}: must be one of ")
