"""Any training function as a program: its epochs, its state, what it logs; stopped anywhere, it comes out the same."""

import enum
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sweeps
from sweeps.runs import state
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.runs.program import canonical

EPOCHS = 4

# Each kind of state is a walk of an array: ``state`` is what is saved, ``step(epoch)`` changes it and gives a number.
KINDS = """
import os, random, signal, sys
import numpy as np
import sweeps

class Model:
    def __init__(self):
        self.w, self.steps = np.zeros(3, np.float32), 0
    def state_dict(self):
        return {"w": self.w, "steps": self.steps, "nested": {"pair": (self.steps, "text")}}
    def load_state_dict(self, tree):
        assert tree["nested"] == {"pair": (tree["steps"], "text")}
        self.w[...], self.steps = tree["w"], tree["steps"]
    def step(self, epoch):
        self.steps += 1
        self.w += np.float32(0.1) * self.steps
        return float(self.w.sum())

def arrays():
    held = {"w": np.zeros((2, 3)), "velocity": np.ones(6, np.float32)}
    def step(epoch):
        held["velocity"] *= np.float32(0.9)
        held["w"] += held["velocity"].reshape(2, 3)
        return held["w"].sum()
    return held, (), step

def object_():
    model = Model()
    return model, (), model.step

def pair():
    model = Model()
    def save():
        return model.w, model.steps
    def load(saved):
        model.w[...], model.steps = saved
    return (save, load), (), model.step

def generators():
    ours, plain = np.random.default_rng(5), random.Random(5)
    return {"numpy": ours, "python": plain}, (), lambda epoch: ours.normal() + plain.gauss(0, 1)

def generator():
    ours = np.random.Generator(np.random.MT19937(5))
    return ours, (), lambda epoch: ours.normal()

def global_():
    random.seed(3)
    np.random.seed(3)
    return None, ("python", "numpy"), lambda epoch: random.random() + np.random.rand()

def nested():
    held = {
        "layers": [{"w": np.zeros(2)}, {"w": np.zeros((), np.int64), "frozen": np.float32(2)}],
        "tuple": (np.ones(2), 0.5), "losses": [], "seen": {}, "best": None, "model": Model(),
    }
    np.random.seed(4)
    def step(epoch):
        held["layers"][0]["w"] += epoch
        held["layers"][1]["w"] += 1
        first, second = held["tuple"]
        held["tuple"] = (first * 1.1, second / 3)
        held["losses"].append(float(held["layers"][0]["w"].sum()) + held["model"].step(epoch))
        held["seen"][str(epoch)] = held["losses"][-1]
        held["best"] = max(held["losses"])
        return held["best"] + held["tuple"][1] + len(held["seen"]) + len(held["losses"])
    return held, ("numpy",), step

@sweeps.program(budget="epochs", ignore=["die_at"])
def walk(cfg, run):
    held, rng, step = {"arrays": arrays, "object": object_, "pair": pair, "generators": generators,
                       "generator": generator, "global": global_, "nested": nested}[cfg.kind]()
    for epoch in run.epochs(state=held, rng=rng):
        for part in range(2):
            run.log(loss=step(epoch))
        if cfg.get("die_at") == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        run.log({"lr/group-0": 1 / epoch}, epoch_again=epoch)

if __name__ == "__main__":
    kind, epochs, die_at, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    print(sweeps.run(walk, {"kind": kind, "epochs": epochs, "die_at": die_at}, out=out).state)
"""


def without_seconds(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in RunDir(run).read_metrics()]


def members(run):
    """checkpoint.npz, byte for byte, but for the clock."""
    with np.load(run / "checkpoint.npz") as file:
        found = {name: file[name] for name in file.files}
    clock = list(found["columns"]).index("seconds")
    found["history"] = np.delete(found["history"], clock, axis=1)
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in found.items()}


@pytest.fixture
def walk(tmp_path):
    """Run the script above in a process of its own."""
    (tmp_path / "walk.py").write_text(KINDS)

    def run(kind, out, epochs=EPOCHS, die_at=0):
        words = ["walk.py", kind, str(epochs), str(die_at), out]
        return subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("kind", ["arrays", "object", "pair", "generators", "generator", "global", "nested"])
def test_killed_in_each_epoch_it_comes_out_the_same(walk, tmp_path, kind):
    for epoch in range(1, EPOCHS + 1):
        done = walk(kind, "killed", die_at=epoch)
        assert done.returncode == -signal.SIGKILL, done.stderr
        (run,) = (tmp_path / "killed" / "runs").iterdir()
        status = RunDir(run).read()[0]
        assert (status.state, status.epoch) == ("interrupted", epoch - 1)
    done = walk(kind, "killed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")
    assert walk(kind, "straight").stdout == "finished\n"
    (straight,) = (tmp_path / "straight" / "runs").iterdir()
    assert straight.name == run.name
    assert without_seconds(run) == without_seconds(straight)
    assert members(run) == members(straight)
    assert (run / "steps.csv").read_text() == (straight / "steps.csv").read_text()
    started = [session["from_epoch"] for session in json.loads((run / "provenance.json").read_text())["sessions"]]
    assert started == [0, 0, 1, 2, 3]


def test_a_row_that_no_checkpoint_covers_is_no_damage(walk, tmp_path):
    """Killed between the table with the first names and the checkpoint, when the status may not vouch for either."""
    code = (
        "import os, sweeps, walk; from sweeps.runs import checkpoint\n"
        "checkpoint.save = lambda *_: os._exit(9)\n"
        "sweeps.run(walk.walk, {'kind': 'arrays', 'epochs': 4, 'die_at': 0}, out='out')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    (run,) = (tmp_path / "out" / "runs").iterdir()
    status, rows = RunDir(run).read()
    assert (status.state, status.epoch, len(rows)) == ("interrupted", 0, 1)
    done = walk("arrays", "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


@pytest.fixture
def train(tmp_path):
    """Train a function here, in the test's own tree."""

    def run(function, config=None, **declared):
        options = {key: declared.pop(key) for key in ("on_epoch", "wait") if key in declared}
        return sweeps.run(sweeps.program(**declared)(function), config or {}, out=tmp_path / "out", **options)

    return run


def test_what_is_logged_often_is_in_steps_and_its_last_value_counts(train):
    def fit(cfg, run):
        for epoch in run.epochs(2):
            for step in range(3):
                run.log(loss=10 * epoch + step)
            run.log({"valid": epoch}, seconds=0.5)

    result = train(fit)
    assert result.history == ({"epoch": 1, "loss": 12, "valid": 1, "seconds": 0.5},
                              {"epoch": 2, "loss": 22, "valid": 2, "seconds": 0.5})  # fmt: skip
    assert result.last.loss == 22.0
    assert RunDir(result.path).read_steps() == [
        (epoch, step, "loss", 10.0 * epoch + step - 1) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert (result.path / "metrics.csv").read_text() == "epoch,loss,valid,seconds\n1,12.0,1.0,0.5\n2,22.0,2.0,0.5\n"


def test_steps_are_no_metrics_of_the_epoch_and_may_be_called_as_one(train):
    def fit(cfg, run):
        for epoch in run.epochs(2):
            for step in range(epoch):  # in the first epoch only one
                run.log_step({"loss": step}, acc=step + 0.5)
            run.log(loss=-epoch, seconds=0.5)

    result = train(fit)
    assert result.history == ({"epoch": 1, "loss": -1, "seconds": 0.5}, {"epoch": 2, "loss": -2, "seconds": 0.5})
    assert RunDir(result.path).read_steps() == [
        (1, 1, "loss", 0.0), (1, 1, "acc", 0.5),
        (2, 1, "loss", 0.0), (2, 1, "acc", 0.5), (2, 2, "loss", 1.0), (2, 2, "acc", 1.5),
    ]  # fmt: skip


def test_a_step_outside_of_the_epochs_is_named(train):
    def fit(cfg, run):
        for _ in run.epochs(1):
            run.log(loss=1)
        run.log_step(late=1)

    with pytest.raises(InputError, match=r"^metric=late: is logged outside of the epochs"):
        train(fit)


def test_steps_are_cut_back_to_the_checkpoint_and_a_damaged_table_is_not_added_to(train, caplog):
    def fit(cfg, run):
        for epoch in run.epochs(state={"n": 0}):
            run.log(loss=epoch)
            run.log(loss=-epoch)

    run = RunDir(train(fit, {"epochs": 2}, budget="epochs").path)
    with run.steps.open("a") as file:
        file.write("3,1,loss,9.0\n3,2,lo")
    train(fit, {"epochs": 3}, budget="epochs")
    assert [row[3] for row in run.read_steps()] == [1, -1, 2, -2, 3, -3]
    run.steps.write_text("epoch,step,metric,value\na,b\n")
    train(fit, {"epochs": 4}, budget="epochs")
    assert "steps.csv: not a table of steps" in caplog.text
    assert run.steps.read_text() == "epoch,step,metric,value\na,b\n"


@pytest.mark.parametrize(("second", "named"), [({"loss": 1}, "acc"), ({"loss": 1, "acc": 1, "f1": 1}, "f1")])
def test_names_that_change_between_epochs_are_named(train, second, named):
    def fit(cfg, run):
        for epoch in run.epochs(3, state={"n": 0}):
            run.log(**({"loss": 1, "acc": 1} if epoch == 1 else second))

    with pytest.raises(InputError, match=f"^metric={named}: is logged in some epochs only, not in epoch 2"):
        train(fit)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("loss", "0.5", "metric loss=0.5: must be a number"),
        ("loss", None, "metric loss=None: must be a number"),
        ("loss", [1, 2], "metric loss=[1, 2]: must be a number"),
        ("loss", np.zeros(2), "must be a number"),
        ("loss", 1j, "metric loss=1j: must be a number"),
        ("epoch", 1, "metric=epoch: must be letters, digits"),
        ("a,b", 1, "metric=a,b: must be letters, digits"),
        ("", 1, "metric=: must be"),
    ],
)
def test_what_is_no_metric_is_named(train, name, value, said):
    def fit(cfg, run):
        for _ in run.epochs(2):
            run.log({name: value})

    with pytest.raises(InputError) as caught:
        train(fit)
    assert said in str(caught.value)


def test_any_number_is_a_metric(train):
    values = {"a": np.float32(0.1), "b": np.int64(3), "c": True, "d": np.array(0.25), "e": float("nan"), "f": -(10**20)}

    def fit(cfg, run):
        for _ in run.epochs(1, state={"n": 0}):
            run.log(values)

    row = train(fit).last
    assert {k: row[k] for k in "abcdf"} == {"a": float(np.float32(0.1)), "b": 3, "c": 1, "d": 0.25, "f": -1e20}
    assert np.isnan(row.e)


def test_a_later_session_may_log_more_and_nothing_is_lost(train):
    def fit(more):
        def fit(cfg, run):
            for epoch in run.epochs(state={"n": 0}):
                run.log(loss=epoch, maybe=float("nan"), seconds=0.5, **({"acc": 10 * epoch} if more else {}))

        return fit

    for epochs, more in ((2, False), (3, True), (4, True), (5, False), (6, True)):
        run = RunDir(train(fit(more), {"epochs": epochs}, budget="epochs").path)
        status, rows = run.read()
        assert (status.state, len(rows)) == ("finished", epochs)
    assert run.metrics.read_text().splitlines() == [
        "epoch,loss,maybe,seconds,acc",
        "1,1.0,nan,0.5,",
        "2,2.0,nan,0.5,",
        "3,3.0,nan,0.5,30.0",
        "4,4.0,nan,0.5,40.0",
        "5,5.0,nan,0.5,",
        "6,6.0,nan,0.5,60.0",
    ]
    run.checkpoint.unlink()  # the one before it, of epoch 5
    train(fit(True), {"epochs": 7}, budget="epochs")
    assert run.metrics.read_text().splitlines()[5:] == ["5,5.0,nan,0.5,", "6,6.0,nan,0.5,60.0", "7,7.0,nan,0.5,70.0"]


@pytest.mark.parametrize("names", [("log_before",), ("log_after",)])
def test_a_metric_outside_of_the_epochs_is_refused_rather_than_lost(train, names):
    def fit(cfg, run):
        if names == ("log_before",):
            run.log(log_before=1)
        for _ in run.epochs(2, state={"n": 0}):
            run.log(loss=1)
        run.log(log_after=1)

    with pytest.raises(InputError, match=f"metric={names[0]}: is logged outside of the epochs"):
        train(fit)


# ---------------------------------------------------------------------------------------------------------- its state


def keep(held, **options):
    def fit(cfg, run):
        for epoch in run.epochs(state=held, **options):
            run.log(loss=epoch)

    return fit


class Holder:
    """Has a state like PyTorch's modules, and their kind of error."""

    def __init__(self, size):
        self.w = np.zeros(size)

    def state_dict(self):
        return {"w": self.w}

    def load_state_dict(self, tree):
        if tree["w"].shape != self.w.shape:
            raise RuntimeError(f"Error in loading:\n\tsize mismatch for w: {tree['w'].shape}, not {self.w.shape}")
        self.w[...] = tree["w"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"w": np.zeros((2, 3))}, {"w": np.zeros((3, 2))}, ["state.w=float64[3, 2]", "float64[2, 3]"]),
        ({"w": np.zeros(2)}, {"w": np.zeros(2, np.float32)}, ["state.w=float32[2]", "float64[2]"]),
        ({"a": [{"w": np.zeros(2)}]}, {"a": [{"w": np.zeros(3)}]}, ["state.a[0].w=float64[3]", "float64[2]"]),
        ({"a": [np.zeros(2)]}, {"a": [np.zeros(2)] * 2}, ["state.a=2 parts", "checkpoint holds, 1"]),
        ({"w": np.zeros(2)}, {"v": np.zeros(2)}, ["state=with v", "checkpoint holds: v, w"]),
        ({"w": np.zeros(2)}, [np.zeros(2)], ["state=a list", "holds, a dict"]),
        ({"m": Holder(2)}, {"m": Holder(3)}, ["state.m=", "size mismatch for w: (2,), not (3,)"]),
        ({"g": np.random.default_rng(1)}, {"g": np.random.Generator(np.random.MT19937())}, ["state.g=", "MT19937"]),
        (np.zeros(2), np.zeros(3), ["state=float64[3]", "float64[2]"]),
        ({"w": np.zeros(2)}, None, ["state=None: is missing"]),
    ],
)
def test_a_state_of_another_shape_is_named_and_the_checkpoint_stays(train, before, after, said):
    run = RunDir(train(keep(before), {"epochs": 2}, budget="epochs").path)
    content = run.checkpoint.read_bytes(), run.checkpoint_before.read_bytes(), run.metrics.read_bytes()
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            train(keep(after), {"epochs": 3}, budget="epochs")
        assert all(text in str(caught.value) for text in said), caught.value
        assert "\n" not in str(caught.value)
        assert content == (run.checkpoint.read_bytes(), run.checkpoint_before.read_bytes(), run.metrics.read_bytes())
    assert run.read_status().state == "failed"
    assert train(keep(before), {"epochs": 3}, budget="epochs").state == "finished"


def test_a_function_without_epochs_does_not_inherit_a_run_with_a_checkpoint(train):
    train(keep({"n": 0}), {"epochs": 2}, budget="epochs")

    def fit(cfg, run):
        return 1.0

    with pytest.raises(InputError, match=r"state=None: is missing: .* run\.epochs is not called"):
        train(fit, {"epochs": 3}, budget="epochs", origin="test_run:keep.<locals>.fit")


def test_generators_that_the_checkpoint_lacks_are_named(train):
    train(keep({"n": 0}), {"epochs": 2}, budget="epochs")
    with pytest.raises(InputError, match=r"^rng=numpy: is not in the checkpoint"):
        train(keep({"n": 0}, rng=["numpy"]), {"epochs": 3}, budget="epochs")


def test_a_state_may_have_any_keys(train):
    """Also those of the checkpoint itself, and of the function that writes it."""
    keys = [
        "state",
        "rng",
        "history",
        "columns",
        "missing",
        "file",
        "a/b",
        "a_b",
        "a\0c",
        "a\0d",
        "",
        "ü",
        "\ud800",
        "x" * 300,
    ]
    held = {key: np.full(2, float(i)) for i, key in enumerate(keys)}
    numbers = {1: np.zeros(2), 2: 5}
    train(keep({"held": held, "numbers": numbers, "history": np.ones(3)}), {"epochs": 1}, budget="epochs")
    other = {key: np.zeros(2) for key in keys}
    history = np.zeros(3)
    train(keep({"held": other, "numbers": {1: np.ones(2), 2: 0}, "history": history}), {"epochs": 2}, budget="epochs")
    assert {key: value.tolist() for key, value in other.items()} == {key: value.tolist() for key, value in held.items()}
    assert history.tolist() == [1, 1, 1]
    train(keep({"state": np.zeros(2), "rng": np.random.default_rng(0)}), {"epochs": 1, "x": 1}, budget="epochs")
    train(keep({"state": np.zeros(2), "rng": np.random.default_rng(0)}), {"epochs": 2, "x": 1}, budget="epochs")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": {"f": open}}, "state.a.f=a builtin_function_or_method: cannot be saved without pickle"),
        ({"a": [SimpleNamespace()]}, "state.a[0]=a SimpleNamespace: cannot be saved without pickle"),
        ({"a": {1, 2}}, "state.a=a set: cannot be saved"),
        ({"a": np.array([{}], object)}, "a=an array of object: cannot be saved"),
        ({"a": np.zeros(1, "M8[s]")}, "a=an array of datetime64[s]: cannot be saved"),
        ({1: 1, "a": 1}, "a dict: cannot be saved"),
        (SimpleNamespace(), "state=a SimpleNamespace: cannot be restored in place"),
        (1.5, "state=a float: cannot be restored in place; put it into a mapping"),
        ((np.zeros(2),), "state=a tuple: cannot be restored in place"),
    ],
)
def test_what_cannot_be_saved_is_an_error_before_the_first_epoch(train, tmp_path, held, said):
    def fit(cfg, run):
        for _ in run.epochs(2, state=held):
            pytest.fail("trained")

    with pytest.raises(InputError) as caught:
        train(fit)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "epochs=0: must be a whole number ≥ 1"),
        ({"n": 2.0}, "epochs=2.0"),
        ({"n": 2, "every": 0}, "every=0: must be a whole number ≥ 1"),
        ({"n": 2, "rng": ["jax"]}, "rng=jax: must be of python, numpy, torch"),
    ],
)
def test_what_epochs_cannot_use_is_named(train, options, said):
    def fit(cfg, run):
        for _ in run.epochs(**options):
            pytest.fail("trained")

    with pytest.raises(InputError) as caught:
        train(fit)
    assert said in str(caught.value)


def test_a_state_comes_back_as_it_was():
    held = {
        "f32": np.float32(0.1), "nan": float("nan"), "text": "ü", "bytes": b"\0\1", "none": None, "flag": True,
        "big": 2**200, "t": (1, (2.5, "x")), "empty": np.zeros((0, 3)), "order": np.asfortranarray(np.eye(3)[:2]),
    }  # fmt: skip
    tree = state.decode(*state.encode(state.capture(held)))
    fresh = held | {"order": np.zeros((2, 3)), "empty": np.ones((0, 3)), "f32": np.float32(9), "t": (0, (0.0, ""))}
    back = state.restore(fresh, tree)
    assert back is fresh
    assert np.isnan(back.pop("nan"))
    assert type(back["f32"]) is np.float32
    assert {k: v for k, v in back.items() if k not in ("order", "empty")} == {
        k: v for k, v in held.items() if k not in ("order", "empty", "nan")
    }
    assert (back["order"] == held["order"]).all()


# ------------------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("returned", "metrics"),
    [
        (0.5, {"result": 0.5}),
        (np.float32(2), {"result": 2}),
        ({"acc": 1, "f1/macro": 2}, {"acc": 1, "f1/macro": 2}),
        (None, {}),
        ("done", {}),
    ],
)
@pytest.mark.parametrize("takes_run", [False, True])
def test_a_function_without_epochs(train, returned, metrics, takes_run):
    calls = []

    def plain(cfg):
        calls.append(cfg.x)
        return returned

    def with_run(cfg, run):
        run.log(logged=1)
        return plain(cfg)

    function = with_run if takes_run else plain
    expected = metrics | ({"logged": 1} if takes_run else {})
    for reused in (False, True):
        result = train(function, {"x": 3})
        assert (result.state, result.epoch, result.reused) == ("finished", 1, reused)
        assert {k: v for k, v in result.last.items() if k not in ("epoch", "seconds")} == expected
    assert calls == [3]


def test_a_returned_mapping_s_numbers_are_metrics_and_all_that_json_holds_is_kept(train):
    result = train(lambda cfg: {"acc": np.float32(0.5), "note": "high", "parts": (1, 2)}, name="f")
    assert result.last.metrics.keys() == {"acc", "seconds"}
    assert result.returned == {"acc": 0.5, "note": "high", "parts": [1, 2]}
    with pytest.raises(InputError, match=r"metric model=.*: must be a number"):
        train(lambda cfg: {"acc": 1.0, "model": object()}, name="g")


def test_a_function_without_epochs_is_seen_while_it_trains(train):
    def fit(cfg, run):
        status = RunDir(run.path).read_status()
        assert (status.state, status.epoch) == ("running", 0)
        return 1

    assert train(fit).state == "finished"


def test_the_function_says_how_many_epochs_where_no_budget_is_declared(train):
    def fit(cfg, run):
        for epoch in run.epochs(cfg.n, state={"n": 0}):
            if epoch == cfg.stop:
                raise RuntimeError("stop")
            run.log(loss=epoch)

    assert len(train(fit, {"n": 3, "stop": 0}).history) == 3
    again = train(fit, {"n": 3, "stop": 0})
    assert (again.reused, again.epoch) == (True, 3)
    with pytest.raises(RuntimeError):
        train(fit, {"n": 3, "stop": 2})
    with pytest.raises(RuntimeError):  # one epoch is not all of them
        train(fit, {"n": 3, "stop": 2})


@pytest.mark.parametrize("logs_first", [True, False])
def test_breaking_off_is_finishing_early_and_final(train, logs_first):
    begun = []

    def fit(cfg, run):
        held = {"n": 0}
        for epoch in run.epochs(state=held, every=10):
            begun.append(epoch)
            if epoch == 3 and not logs_first:
                break  # nothing was trained in it
            held["n"] += 1
            run.log(loss=epoch)
            if epoch == 3:
                break

    done = 3 if logs_first else 2
    result = train(fit, {"epochs": 9}, budget="epochs")
    assert (result.state, result.epoch) == ("finished", done)
    again = train(fit, {"epochs": 9}, budget="epochs")
    assert (again.reused, again.state, again.epoch, begun) == (True, "finished", done, [1, 2, 3])
    if logs_first:
        longer = train(fit, {"epochs": 11}, budget="epochs")  # goes on where it broke off
        assert (begun[3], longer.epoch) == (4, 11)


def test_divergence_is_a_result(train):
    def fit(cfg, run):
        for epoch in run.epochs(9):
            run.log(loss=epoch)
            if epoch == 3:
                raise sweeps.Diverged("the loss is infinite")

    result = train(fit)
    assert (result.state, result.epoch, result.error) == ("diverged", 2, "the loss is infinite")
    again = train(fit)
    assert (again.reused, again.state, again.error) == (True, "diverged", "the loss is infinite")


def test_a_failure_is_raised_as_it_is_and_recorded(train):
    def fit(cfg, run):
        for epoch in run.epochs(3, state={"n": 0}):
            run.log(loss=epoch)
            if epoch == 2 and cfg.how == "own file":
                raise PermissionError(13, "Permission denied", "/data/secret")
            if epoch == 2:
                raise KeyError("lr")

    for how, kind in (("error", KeyError), ("own file", PermissionError)):
        with pytest.raises(kind) as caught:
            train(fit, {"how": how})
        assert not isinstance(caught.value, InputError)  # not blamed on the results tree
    with pytest.raises(KeyError):
        train(fit, {"how": "again"})


def test_a_signal_ends_at_once_a_function_that_does_not_look_for_it(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import sys, time, sweeps\n"
        "@sweeps.program(budget='epochs')\n"
        "def slow(cfg, run):\n"
        "    for epoch in run.epochs(state={'n': 0}):\n"
        "        run.log(loss=epoch)\n"
        "        if epoch == 3:\n"
        "            print('begins', flush=True)\n"
        "            time.sleep(60)\n"
        "result = sweeps.run(slow, {'epochs': 5}, out='out')\n"
        "print(result.state, result.epoch, result.error, result.signal, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == f"interrupted 2 by SIGTERM in epoch 3 {signal.SIGTERM.value}\n"
    process.wait(10)
    process.stdout.close()
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert RunDir(run).read_status().state == "interrupted"


def test_two_functions_of_one_name_do_not_share_a_run(train):
    def fit(cfg):
        return 1

    train(fit, origin="a.one:fit")
    for _ in range(2):
        with pytest.raises(InputError, match=r"^program=b\.two:fit: would share a run with a\.one:fit") as caught:
            train(fit, origin="b.two:fit")
    assert "name=" in str(caught.value)
    assert train(fit, origin="b.two:fit", name="other").state == "finished"
    assert train(fit, origin="a.one:fit").reused


# ------------------------------------------------------------------------------------------- what a run is known by


def run_id(values, **declared):
    return sweeps.program(name="f", **declared)(lambda cfg: None).spec(values).run_id


def test_what_does_not_decide_the_result_is_not_in_the_id():
    base = run_id({"lr": 0.1, "net": {"width": 3}})
    declared = {"budget": "epochs", "ignore": ["device", "loader.workers"]}
    assert run_id({"lr": 0.1, "net": {"width": 3}, "epochs": 7, "device": "cpu"}, **declared) == base
    assert run_id({"lr": 0.1, "net": {"width": 3}, "epochs": 9, "loader": {"workers": 2}}, **declared) == base
    assert run_id({"net": {"width": 3}, "lr": 0.1}) == base  # nor is the order
    assert run_id({"lr": 0.2, "net": {"width": 3}}) != base


def test_an_added_or_renamed_key_orphans_nothing():
    base = run_id({"lr": 0.1, "net": {"width": 3}})
    added = {"amp": False, "sched.gamma": 1, "tags": ("a",)}
    assert (
        run_id({"lr": 0.1, "net": {"width": 3}, "amp": False, "sched": {"gamma": 1}, "tags": ["a"]}, added=added)
        == base
    )
    assert run_id({"lr": 0.1, "net": {"width": 3}}, added=added) == base
    assert run_id({"lr": 0.1, "net": {"width": 3}, "amp": True}, added=added) != base
    assert run_id({"lr": 0.1, "net": {"width": 3}, "sched": {"gamma": True}}, added=added) != base  # True is not 1
    renamed = {"optim.lr": "lr", "width": "net.width"}
    assert run_id({"optim": {"lr": 0.1}, "width": 3}, renamed=renamed) == base
    assert run_id({"optim": {"lr": 0.1, "mo": 0}, "width": 3}, renamed=renamed) != base


@pytest.mark.parametrize(
    ("values", "said"),
    [({}, "epochs=???: is missing"), ({"epochs": 0}, "epochs=0: must be"), ({"epochs": "3"}, "epochs=3: must be")],
)
def test_a_budget_is_a_whole_number(values, said):
    with pytest.raises(InputError) as caught:
        run_id(values, budget="epochs")
    assert str(caught.value).startswith(said)


class Colour(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    BIG = 1


def test_canonical_values():
    values = {
        "a": 1, "b": 1.0, "zero": -0.0, "inf": float("inf"), "path": Path("x/y"), "colour": Colour.RED,
        "size": Size.BIG, "tuple": (1, [2]), "range": range(2), "f32": np.float32(0.5), "f64": np.float64(0.1),
        "array": np.eye(2, dtype=int), "flag": np.True_, "text": np.str_("t"), "none": None, 3: {"deep": Path("z")},
    }  # fmt: skip
    found = canonical(values)
    assert json.dumps(found) == json.dumps({
        "a": 1, "b": 1.0, "zero": 0.0, "inf": "inf", "path": "x/y", "colour": "RED", "size": "BIG",
        "tuple": [1, [2]], "range": [0, 1], "f32": 0.5, "f64": 0.1, "array": [[1, 0], [0, 1]],
        "flag": True, "text": "t", "none": None, "3": {"deep": "z"},
    })  # fmt: skip
    assert {type(value) for value in found.values()} == {int, float, str, list, bool, type(None), dict}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": {"fn": print}}, "model.fn="),
        ({"items": [1, {2}]}, "items[1]={2}: a set has no canonical form"),
        ({"raw": b"x"}, "raw=b'x': a bytes has no canonical form"),
        ({"lr": object()}, "a object has no canonical form"),
        ({"a": {None: 1}}, "config=None: must have keys of text"),
        ({1: "a", "1": "b"}, "must not have a key twice"),
        ({"a": {1: "a", "1": "b"}}, "a=1, '1': must not have a key twice"),
    ],
)
def test_what_has_no_canonical_form_is_named_and_nothing_is_made(train, tmp_path, values, said):
    with pytest.raises(InputError) as caught:
        train(lambda cfg: pytest.fail("trained"), values, name="f")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_in_a_configuration(train):
    result = train(lambda cfg: cfg.lr * 2, {"lr": np.float64(0.25), "seeds": range(3)}, name="f")
    assert result.last.result == 0.5


def test_the_code_is_recorded(tmp_path):
    (tmp_path / "helper.py").write_text("X = 1\n")
    (tmp_path / "app.py").write_text(
        "import helper, sweeps\n\ndef fit(cfg):\n    return helper.X\n\nsweeps.run(fit, {'a': 1}, out='out')\n"
    )
    subprocess.run([sys.executable, "app.py"], cwd=tmp_path, check=True, timeout=60)
    (run,) = (tmp_path / "out" / "runs").iterdir()
    (session,) = json.loads((run / "provenance.json").read_text())["sessions"]
    assert set(session["code"]) == {"__main__", "helper"}
    assert all(len(digest) == 64 for digest in session["code"].values())
    assert session["program"] == "app:fit"
    assert len(session["source_sha256"]) == 64


def test_a_run_is_read_as_any_other(train, tmp_path):
    def fit(cfg, run):
        for epoch in run.epochs(2):
            run.log(loss=cfg.lr / epoch)

    for lr in (0.5, 0.25):
        train(fit, {"lr": lr}, metric="loss", maximize=False)
    found = sweeps.load(tmp_path / "out")
    assert sorted(found.runs["loss"]) == [0.125, 0.25]
    assert found.problems == ()
    assert len(found.epochs) == 4


def test_current_run_is_the_one_that_trains_here(train):
    def fit(cfg, run):
        assert sweeps.current_run() is run
        return 1

    assert sweeps.current_run() is None
    assert train(fit).state == "finished"
    assert sweeps.current_run() is None


def test_it_needs_neither_hydra_nor_pandas_nor_mlp():
    heavy = "pandas", "matplotlib", "hydra", "scipy", "mlp", "torch"
    code = f"import sys, sweeps; sweeps.program; sweeps.Run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_single_run_goes_where_a_sweep_of_it_would(tmp_path):
    (tmp_path / "config.yaml").write_text("x: 1\n")
    (tmp_path / "app.py").write_text(
        "import sweeps\n@sweeps.main(config_path='.', config_name='config')\n"
        "def square(cfg):\n    return cfg.x**2\nsquare()\n"
    )
    words = [sys.executable, "app.py", "hydra.sweeper.out=there"]
    single = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "finished: 1/1" in single.stdout
    swept = subprocess.run([*words, "x=1,2", "--multirun"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "2 finished (1 of them before)" in swept.stdout, swept.stderr
    assert not (tmp_path / "outputs").exists()
