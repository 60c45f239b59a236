"""``sweeps.sweep`` of a function: from a script, from stdin, with what ``__main__`` alone has; failures; edits."""

import json
import os
import subprocess
import sys

import pytest
from test_sweep import runs, trained

import sweeps
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError


@pytest.fixture
def python(tmp_path):
    """Run a script to its end, from a file or from stdin."""

    def run(script, *, how="file", status=0, **env):
        path = tmp_path / "script.py"
        path.write_text(script)
        words, given = ([str(path)], None) if how == "file" else (["-"], script)
        done = subprocess.run(
            [sys.executable, *words], input=given, capture_output=True, text=True, cwd=tmp_path, timeout=120,
            env=os.environ | env,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


def measure(cfg):
    return cfg.x * 2


def record_call(cfg):
    with open(cfg.calls, "a") as calls:
        calls.write("called\n")
    return {"loss": cfg.x / 2, "acc": 1}


SCRIPT = """
import enum, random
from dataclasses import dataclass
print("begins", flush=True)
import sweeps

class Kind(enum.Enum):
    PLAIN = 1
    SQUARE = 2

@dataclass
class Net:
    width: int
    def size(self):
        return helper(self)

helper = lambda net: net.width * FACTOR
FACTOR = 10

def make(offset):
    def train(cfg, run):
        assert isinstance(cfg.kind, Kind)
        net = Net(cfg.net.width)
        assert isinstance(net, Net)
        for epoch in run.epochs(2):
            run.log(size=net.size() + offset, lr=cfg.lr, square=cfg.kind is Kind.SQUARE)
    return train

found = sweeps.sweep(
    make(3), {"lr": [0.1, 0.01], "seed": range(3), "net.width": 4, "kind": [Kind.PLAIN, Kind.SQUARE]}, quiet=QUIET,
    workers=2,
)
rows = found.runs.sort_values(["lr", "seed", "kind"])
print(rows[["lr", "seed", "kind", "size", "square"]].to_csv(index=False))
"""
TABLE = """lr,seed,kind,size,square
0.01,0,PLAIN,43.0,0.0
0.01,0,SQUARE,43.0,1.0
0.01,1,PLAIN,43.0,0.0
0.01,1,SQUARE,43.0,1.0
0.01,2,PLAIN,43.0,0.0
0.01,2,SQUARE,43.0,1.0
0.1,0,PLAIN,43.0,0.0
0.1,0,SQUARE,43.0,1.0
0.1,1,PLAIN,43.0,0.0
0.1,1,SQUARE,43.0,1.0
0.1,2,PLAIN,43.0,0.0
0.1,2,SQUARE,43.0,1.0
"""


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_what_only_the_script_has_reaches_the_workers(python, tmp_path, how):
    """A closure, a lambda, a dataclass, an enum; the script itself runs once, without a guard."""
    script = SCRIPT.replace("QUIET", "True")
    done = python(script, how=how)
    assert (done.stdout, done.stderr) == (f"begins\n{TABLE}\n", "")
    assert python(script, how=how).stdout == done.stdout
    assert set(trained(tmp_path / "outputs").values()) == {1}
    assert {len(RunDir(path).read_metrics()) for path in runs(tmp_path / "outputs").values()} == {2}


def test_a_function_of_a_module_is_swept_by_reference(tmp_path, capfd):
    found = sweeps.sweep(measure, {"x": [1, 2, 2]}, {"x": [3], "y": ["a"]}, out=tmp_path / "out", workers=1)
    shown = capfd.readouterr()
    assert "3 runs, 3 to train" in shown.out
    assert shown.err == ""
    assert sorted(found.runs["result"]) == [2, 4, 6]
    again = sweeps.sweep(measure, {"x": [1, 2, 4]}, out=tmp_path / "out", workers=1)
    assert "3 runs, 2 finished already, 1 to train" in capfd.readouterr().out
    assert sorted(again.runs["result"]) == [2, 4, 8]


def test_keys_that_do_not_decide_are_declared(tmp_path):
    calls = tmp_path / "calls"
    declared = {"ignore": ["calls"], "out": tmp_path / "out", "quiet": True, "metric": "loss", "maximize": False}
    found = sweeps.sweep(record_call, {"x": [1, 2], "calls": str(calls)}, **declared)
    assert sorted(found.runs["loss"]) == [0.5, 1]
    sweeps.sweep(record_call, {"x": [1, 2], "calls": str(tmp_path / "others")}, **declared)
    sweeps.sweep(record_call, {"x": [1, 2], "calls": str(calls), "drop": 0}, added={"drop": 0}, **declared)
    sweeps.sweep(record_call, {"width": [1, 2], "calls": str(calls)}, renamed={"width": "x"}, **declared)
    assert calls.read_text() == "called\n" * 2
    assert not (tmp_path / "others").exists()


# -- failures ---------------------------------------------------------------------------------------------------------


def fail_everywhere(cfg):
    raise ValueError(f"x={cfg.x} is no good")


def fail_at_two(cfg):
    if cfg.x == 2:
        raise ValueError("two is no good")
    return cfg.x


def test_a_function_that_always_fails_raises_what_it_raised(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"all 2 runs failed; the first: fail_everywhere-\w+: ValueError: x=\d is no"
    ):
        sweeps.sweep(fail_everywhere, {"x": [1, 2]}, out=tmp_path / "out", workers=1, quiet=True)


def test_a_failure_of_some_is_warned_of(tmp_path):
    with pytest.warns(RuntimeWarning, match="1 of 3 runs failed: .*two is no good"):
        found = sweeps.sweep(fail_at_two, {"x": [1, 2, 3]}, out=tmp_path / "out", quiet=True)
    assert sorted(zip(found.runs["x"], found.runs["state"], strict=True)) == [
        (1, "finished"), (2, "failed"), (3, "finished"),
    ]  # fmt: skip


def test_an_import_that_fails_on_the_worker_is_a_failure_and_no_dead_worker(python):
    """The worker cannot unpickle the function: its module is this process's alone."""
    done = python("""
import sys, types
import sweeps
module = types.ModuleType("made_here")
exec("def f(cfg): return 1", module.__dict__)
module.f.__module__ = "made_here"
sys.modules["made_here"] = module
sweeps.sweep(module.f, {"x": [1, 2]})
""", status=1)  # fmt: skip
    assert "No module named 'made_here'" in done.stderr.splitlines()[-1]
    assert "trying again" not in done.stdout


def test_a_function_that_cannot_be_sent_is_named_before_anything(python, tmp_path):
    for what, reason in (
        ("threading.Lock()", "cannot pickle '_thread.lock'"),
        ("open('x', 'w')", "Cannot pickle files"),
    ):
        done = python(f"""
import threading
import sweeps
LOCK = {what}

def helper():
    return LOCK

def train(cfg):
    return helper()

try:
    sweeps.sweep(train, {{"x": [1, 2]}})
except sweeps.InputError as error:
    print(error)
""")
        line = done.stdout.splitlines()[-1]
        assert line.startswith(f"function=script:train: cannot be sent to a worker, for it uses LOCK: {reason}")
        assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.parametrize(
    ("grid", "options", "said"),
    [
        ({"x": [object()]}, {}, "x=<object object at"),
        ({"x": []}, {}, "x=[]: must have at least one value"),
        ("x=1,2", {}, "must be a mapping of keys to values; overrides are for a Hydra configuration"),
        ({"x": [1]}, {"budget": "epochs"}, "epochs="),
        ({"x": [1], "epochs": [0]}, {"budget": "epochs"}, "epochs=0: must be a whole number ≥ 1"),
        ({"x": [1], "x.y": [2]}, {}, "x.y=2: cannot be within x"),
        ({"x": [1]}, {"epochs": 3}, "epochs=3: is not known to this function"),
        ({"x": [1]}, {"code": "maybe"}, "code=maybe: must be one of warn, refuse, ignore, retrain"),
        ({"x": [1]}, {"workers": 0}, "workers=0"),
        ({"x": [1]}, {"name": "../x"}, "name=../x: must be letters"),
        ({"x": [1]}, {"tracker": "none-such"}, "tracker"),
    ],
)
def test_bad_input_is_an_error_before_anything(tmp_path, grid, options, said):
    with pytest.raises(InputError) as caught:
        sweeps.sweep(measure, grid, out=tmp_path / "out", quiet=True, **options)
    assert said in str(caught.value)
    assert not (tmp_path / "out" / "runs").exists()


def test_what_is_no_function_is_said():
    with pytest.raises(InputError, match="must be a function of a configuration"):
        sweeps.sweep({"x": [1]})


# -- the code is part of the truth ------------------------------------------------------------------------------------

USER = """
import sys
import sweeps
import mine
found = sweeps.sweep(mine.train, {"x": [1, 2]}, code=sys.argv[1])
print(sorted(found.runs["result"]))
"""
MODULE = "import parts\n\ndef train(cfg):\n    return parts.scale(cfg.x)\n"
PARTS = "def scale(x):\n    return {factor} * x\n"


def as_user(tmp_path, code):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mine.py").write_text(MODULE)
    return subprocess.run(
        [sys.executable, "-B", "user.py", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )


@pytest.mark.parametrize("code", ["warn", "refuse", "ignore", "retrain"])
def test_an_edit_of_a_module_that_the_function_uses_is_noticed(tmp_path, code):
    (tmp_path / "parts.py").write_text(PARTS.format(factor=1))
    assert as_user(tmp_path, code).stdout.endswith("[1.0, 2.0]\n")
    same = as_user(tmp_path, code)
    assert "2 finished already" in same.stdout
    assert "other code" not in same.stdout + same.stderr
    (tmp_path / "parts.py").write_text(PARTS.format(factor=100))
    done = as_user(tmp_path, code)
    said = "2 of 2 finished runs were made by other code (parts)"
    if code == "warn":
        assert f"warning: {said}" in done.stdout
        assert done.stdout.endswith("[1.0, 2.0]\n")
    elif code == "refuse":
        assert f"InputError: code=refuse: {said}" in done.stderr.splitlines()[-1]
    elif code == "ignore":
        assert "other code" not in done.stdout + done.stderr
        assert done.stdout.endswith("[1.0, 2.0]\n")
    else:
        assert f"{said}; they are set aside and trained again" in done.stdout
        assert done.stdout.endswith("[100.0, 200.0]\n")
        assert len(list((tmp_path / "outputs" / "replaced").iterdir())) == 2
        assert "other code" not in as_user(tmp_path, code).stdout


def test_an_edit_of_a_function_on_stdin_is_noticed(python):
    script = 'import sweeps\ndef helper(x):\n    return x\ndef train(cfg):\n    return helper(cfg.x)\n' \
        'sweeps.sweep(train, {"x": [1, 2]})\n'  # fmt: skip
    python(script, how="stdin")
    assert "other code" not in python(script, how="stdin").stdout
    done = python(script.replace("return x", "return x + 1"), how="stdin")
    assert "warning: 2 of 2 finished runs were made by other code (__main__:helper)" in done.stdout


# -- registries -------------------------------------------------------------------------------------------------------

SOFTPLUS = """
import sys
import numpy as np
import sweeps
from mlp import program
from mlp.activations import ACTIVATIONS
from sweeps.runs.schema import entry

class Softplus:
    def forward(self, z):
        self.slope = 0.5 + 0.5 * np.tanh(0.5 * z)
        return np.logaddexp(0, z, out=z)

    def backward(self, delta):
        delta *= self.slope
        return delta

ACTIVATIONS["softplus"] = entry(Softplus)
found = sweeps.sweep(program, {"activ.name": ["softplus"], "seed": [0, 1]}, *sys.argv[1:], epochs=2, quiet=True)
print(found.runs["state"].tolist(), found.runs["activ"].tolist())
"""


@pytest.mark.parametrize("where", ["script", "module"])
def test_an_activation_that_the_user_registers_reaches_the_workers(small, tmp_path, where):
    """docs/adding.md's, in the script itself and in a module beside it."""
    words = [word for word in small if word.split("=")[0] not in ("out", "epochs")]
    script = SOFTPLUS
    if where == "module":
        cut = script.index("found =")
        (tmp_path / "own.py").write_text(script[:cut])
        script = "import sys, sweeps, own\nfrom mlp import program\n" + script[cut:]
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py", *words], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['finished', 'finished'] ['softplus', 'softplus']\n"
    manifest = next((tmp_path / "outputs").glob("sweeps/*/manifest.json"))
    assert {run["epochs"] for run in json.loads(manifest.read_text())["runs"]} == {2}


def test_what_the_summary_does_not_show_is_shown_by_the_command_that_it_names(tmp_path, capsys):
    sweeps.sweep(measure, {"x": list(range(22))}, out=tmp_path / "there", workers=2)
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("… and 2 more: "))
    done = subprocess.run(said.partition(": ")[2], shell=True, capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1 + 22
