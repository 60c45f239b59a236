"""Searches: what they may choose, who goes on, and the real command line, killed and continued."""

import itertools
import json
import random
import re
import shlex
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from synthetic import make_run
from test_session import measured
from test_sweep import runs, start, trained, wait_for, workers

import sweeps
from mlp import program
from mlp.config import RunConfig
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.search import halving, objective, optimize, record
from sweeps.search.halving import Halving
from sweeps.search.objective import Objective
from sweeps.search.record import Search, Trial
from sweeps.search.source import TrialResult
from sweeps.search.space import Choice, Space, Span
from sweeps.show import report, searches

HALVING = ("hydra/sweeper=halving", "data.holdout=100")
OPTUNA = ("hydra/sweeper=optuna", "data.holdout=100")
GRID = ("lr=0.1,0.01,0.001", "mo=0,0.5,0.9")


@pytest.fixture
def search(command, small, tmp_path):
    """Run a search with the small network to its end; the later of two words for a key wins."""

    def run(*words, out="out", **options):
        given = {word.split("=")[0] for word in words} | {"out"}
        base = [word for word in small if word.split("=")[0] not in given]
        return command("--multirun", *base, f"out={tmp_path / out}", *words, **options)

    return run


def found(out):
    (path,) = (out / "sweeps").glob("*/search.json")
    return record.read(path.parent)


def epochs_trained(out):
    """All that was ever trained, epochs that a kill cost included."""
    total = 0
    for path in runs(out).values():
        starts = [session["from_epoch"] for session in json.loads((path / "provenance.json").read_text())["sessions"]]
        assert starts == sorted(starts)
        total += len(RunDir(path).read_metrics())
    return total


# -- the space -------------------------------------------------------------------------------------------------------


def space(*words, params=None, seeds=None):
    return Space.parse(OverridesParser.create(), params or {}, words, seeds)


def test_the_space_is_in_hydra_s_words():
    parsed = space(
        "lr=tag(log,interval(1e-4,1e-1))", "bsz=int(interval(10,500))", "wd=range(0,0.3,0.1)",
        "activ=choice(relu,gelu)", "model.hidden=[64],[64,64]", "mo=0.9", "seed=0,1,2",
    )  # fmt: skip
    assert parsed.axes == (
        Span("lr", 1e-4, 1e-1, None, True),
        Span("bsz", 10, 500, 1, False),
        Span("wd", 0.0, 0.2, 0.1, False),
        Choice("activ", ("relu", "gelu")),
        Choice("model.hidden", ("[64]", "[64,64]")),
    )
    assert parsed.fixed == ("mo=0.9",)
    assert parsed.seeds == ("0", "1", "2")
    assert parsed.axes[2].values() == [0.0, 0.1, 0.2]
    assert parsed.size is None


def test_the_command_line_wins_over_yaml_and_seeds_can_be_counted():
    yaml = {"lr": "tag(log,interval(1e-4,1e-1))", "activ": ["relu", "tanh"], "wd": 0.1, "model.hidden": [[8], [8, 8]]}
    parsed = space("lr=0.1,0.2", "wd=0", params=yaml, seeds=2)
    assert {axis.key: axis.values() for axis in parsed.axes} == {
        "lr": ("0.1", "0.2"),
        "activ": ("relu", "tanh"),
        "model.hidden": ("[8]", "[8,8]"),
    }
    assert parsed.fixed == ("wd=0",)
    assert parsed.seeds == ("0", "1")
    assert len(list(parsed.grid())) == parsed.size == 8
    assert parsed.overrides({"lr": "0.1", "activ": "relu", "model.hidden": "[8]"})[0] == "wd=0"


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["lr=0.1"], {}, "nothing to search"),
        (["lr=tag(log,interval(0,1))"], {}, "lr=tag(log,interval(0,1)): is logarithmic"),
        (["lr=tag(quick,interval(0,1))"], {}, "unknown tag"),
        (["lr=interval(1,0)"], {}, "from a number to a larger"),
        (["lr=range(1,1)"], {}, "empty range"),
        (["lr=range(0,1,0)"], {}, "steps other than 0"),
        (["lr=range(0,inf)"], {}, "from a number to another"),
        (["lr=range(0,100000000000000000000)"], {}, "has 1e+20 values"),
        (["lr=interval(1,1)"], {}, "one value alone"),
        (["lr=0.1,1", "seed=range(0,100000000)"], {}, "has 100,000,000 values; must have at most 1,000"),
        (["lr=0.1,1", "seed=interval(0,1)"], {}, "seed=interval(0,1): must be values"),
        (["lr=0.1,1", "seed=1"], {"seeds": 3}, "beside seed"),
        (["lr=0.1,1"], {"seeds": 0}, "whole number ≥ 1"),
        (["lr=0.1,1"], {"params": {"mo": []}}, "hydra.sweeper.params.mo"),
        (["lr=0.1,1"], {"params": [1]}, "must be a mapping"),
    ],
)
def test_a_space_that_cannot_be_is_an_input_error(words, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        space(*words, **options)


def test_ranges_are_counted_and_not_gone_through():
    parsed = space(f"n=range({10**18},0,-3)", f"x=range(0,1,{2**-40})", "y=range(0.75,0,-0.25)")
    assert parsed.axes[:2] == (Span("n", 1, 10**18, 3, False), Span("x", 0.0, 1 - 2**-40, 2**-40, False))
    assert parsed.axes[2].values() == [0.25, 0.5, 0.75]
    assert set(parsed.draw(np.random.default_rng(0))) == {"n", "x", "y"}
    assert len(halving.configurations(parsed, 3, seed=0)) == 3
    with pytest.raises(InputError, match=r"n=1 to 1e\+18: has 333,333,333,333,333,334 values; must have at most"):
        parsed.axes[0].values()
    with pytest.raises(InputError, match=r"lr, mo=100,000,000 points: are too many to try each"):
        halving.configurations(space("lr=range(0,10000)", "mo=range(0,10000)"), None, seed=0)


def test_draws_stay_within_and_follow_the_scale():
    parsed = space("lr=tag(log,interval(1e-4,1))", "bsz=int(interval(1,4))", "n=tag(log,int(interval(1,100)))", "a=x,y")
    drawn = [parsed.draw(np.random.default_rng([0, i])) for i in range(2000)]
    lr = np.array([params["lr"] for params in drawn])
    assert lr.min() >= 1e-4
    assert lr.max() <= 1
    assert np.mean(lr < 1e-2) == pytest.approx(0.5, abs=0.05)
    assert {params["bsz"] for params in drawn} == {1, 2, 3, 4}
    assert np.mean([params["bsz"] == 1 for params in drawn]) == pytest.approx(0.25, abs=0.05)
    assert np.mean([params["n"] <= 10 for params in drawn]) == pytest.approx(0.5, abs=0.12)
    assert {params["a"] for params in drawn} == {"x", "y"}


# -- successive halving ----------------------------------------------------------------------------------------------


def play(strategy, value, *, slots=1, rng=None):
    """Run a strategy on so many slots; jobs end in a random order. Returns the evaluations in that order."""
    flying, done = [], []
    while True:
        while len(flying) < slots and (request := strategy.ask()):
            flying.append(request)
        if not flying:
            return done
        request = flying.pop(rng.randrange(len(flying)) if rng else 0)
        outcome = value(request.number, request.epochs)
        state = "finished" if isinstance(outcome, float) else outcome
        strategy.tell(request, TrialResult(state, (outcome,) if state == "finished" else None, (), None))
        done.append((request.number, request.epochs))


def strategy(count=27, steps=(3, 9, 27)):
    return Halving([{"lr": i} for i in range(count)], steps, 3, Objective("valid_acc", True))


def test_rungs_multiply_and_end_at_the_epochs():
    assert halving.rungs(3, 27, 3) == [3, 9, 27]
    assert halving.rungs(3, 30, 3) == [3, 9, 27, 30]
    assert halving.rungs(1, 2, 4) == [1, 2]
    with pytest.raises(InputError, match="min_epochs=9: must be < epochs"):
        halving.rungs(9, 9, 3)


@pytest.mark.parametrize("seed", range(20))
def test_promotions_do_not_depend_on_the_order(seed):
    rng = random.Random(seed)
    quality = {i: rng.random() for i in range(27)}
    noisy = {(i, e): quality[i] + rng.gauss(0, 1 / e) for i in range(27) for e in (3, 9, 27)}
    bad = {i: rng.choice(["diverged", "failed"]) for i in rng.sample(range(27), rng.choice([0, 3, 20, 27]))}
    value = lambda number, epochs: bad.get(number) or noisy[number, epochs]  # noqa: E731
    alone = play(strategy(), value)
    good = sorted((i for i in range(27) if i not in bad), key=lambda i: -noisy[i, 3])
    second = sorted(good[:9], key=lambda i: -noisy[i, 9])
    assert {n for n, epochs in alone if epochs == 9} == set(good[:9])
    assert {n for n, epochs in alone if epochs == 27} == set(second[:3])
    for slots in (2, 5, 40):
        assert sorted(play(strategy(), value, slots=slots, rng=rng)) == sorted(alone)


def test_a_configuration_goes_on_before_the_rung_is_complete():
    """27 places and the best first: with 8 of 27 still out, the best of 9 places is taken for certain."""
    order = play(strategy(), lambda number, epochs: -float(number))
    first = next(i for i, (_, epochs) in enumerate(order) if epochs == 9)
    assert first == 19
    assert [epochs for _, epochs in order].count(3) == 27


def test_configurations_are_the_grid_or_drawn_without_repetition():
    parsed = space(*GRID)
    assert len(halving.configurations(parsed, None, 0)) == len(halving.configurations(parsed, 100, 0)) == 9
    drawn = halving.configurations(parsed, 5, 0)
    assert len({tuple(params.values()) for params in drawn}) == 5
    assert halving.configurations(parsed, 7, 0)[:5] == drawn
    assert halving.configurations(parsed, 5, 1) != drawn
    assert len(halving.configurations(space("bsz=int(interval(1,10000000))", "mo=0,0.5"), 20, 0)) == 20
    with pytest.raises(InputError, match=r"configurations=null: is needed"):
        halving.configurations(space("lr=interval(0,1)"), None, 0)


# -- what is judged --------------------------------------------------------------------------------------------------


def test_the_test_set_is_no_judge(search, tmp_path):
    for words in (("hydra/sweeper=halving",), (*HALVING, "hydra.sweeper.metric=test_acc")):
        done = search(*words, "epochs=9", *GRID)
        assert done.returncode == 2
        assert "test set" in done.stderr
        assert "hydra.sweeper.select_on_test=true" in done.stderr
        assert "Traceback" not in done.stderr
        forced = search(*words, "epochs=9", *GRID, "hydra.sweeper.select_on_test=true", "--dry-run")
        assert forced.returncode == 0, forced.stderr
    assert not (tmp_path / "out").exists()


def test_a_validation_set_in_the_file_will_do(tmp_path, small_npz):
    arrays = dict(np.load(small_npz))
    np.savez(tmp_path / "own.npz", **arrays, x_valid=arrays["x_test"], y_valid=arrays["y_test"])
    config = make_run(tmp_path, lr=0.1).config.read_text()
    assert "holdout: 0" in config
    values = {
        "model": {"hidden": [4], "init_std": 0.01}, "activ": {"name": "relu"}, "loss": {"name": "ce"},
        "optim": {"name": "sgd"}, "lr": 0.1, "wd": 0, "mo": 0, "bsz": 10, "seed": 0, "dtype": "float32",
        "eval_train": "running", "epochs": 1, "out": "out", "checkpoint_every": 1, "threads": 1,
        "stats": False, "tracker": {"name": "none"},
        "data": {"name": "npz", "path": str(tmp_path / "own.npz"), "holdout": 0, "holdout_seed": 0},
    }  # fmt: skip
    judged = objective.objectives("valid_acc", None, program)
    objective.refuse_test_set(judged, program, RunConfig.from_mapping(values))
    values["data"]["path"] = str(small_npz)
    with pytest.raises(InputError, match="without a validation set"):
        objective.refuse_test_set(judged, program, RunConfig.from_mapping(values))


def test_directions_are_natural_unless_given():
    names = ["valid_acc", "valid_loss", "total_seconds", "best_valid_acc"]
    assert [o.maximize for o in objective.objectives(names, None, program)] == [True, False, False, True]
    assert objective.objectives("valid_acc", "minimize", program) == (Objective("valid_acc", False),)
    for metric, direction in (("valid_ac", None), ("valid_acc", "up"), (["valid_acc"] * 2, None), ([], None)):
        with pytest.raises(InputError, match=r"hydra\.sweeper"):
            objective.objectives(metric, direction, program)


# -- through the command line ----------------------------------------------------------------------------------------


def test_halving_trains_as_much_as_it_says_and_the_readers_read_it(search, command, tmp_path):
    done = search(*HALVING, "epochs=9", "hydra.sweeper.name=mine", *GRID)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "9 configurations over lr, mo: 9 to 3, 3 to 9 epochs" in done.stdout
    assert "45 epochs at most, where all to the end would be 81" in done.stdout
    assert "9 finished of 9 trials; 45 epochs of 9 runs, 45 of them trained now" in done.stdout
    assert epochs_trained(tmp_path / "out") == 45
    kept = found(tmp_path / "out")
    best = kept.ranked()[0]
    assert [epochs for epochs, _ in best.rungs] == [3, 9]
    rows = RunDir.of(tmp_path / "out", best.runs[0][0]).read_metrics()
    assert best.values == (rows[8].valid_acc,)
    assert best.rungs[0] == (3, rows[2].valid_acc)
    listed = command("ls", "--out", tmp_path / "out", "--sweep", "mine", "--csv", module="sweeps")
    assert len(listed.stdout.splitlines()) == 10
    assert "halving, to maximize valid_acc: 9 finished of 9 trials, 45 epochs." in section([kept])
    again = search(*HALVING, "epochs=9", "hydra.sweeper.name=mine", *GRID)
    assert "0 of them trained now" in again.stdout
    assert set(trained(tmp_path / "out").values()) == {1, 2}
    other = search(*HALVING, "epochs=9", "hydra.sweeper.name=mine", "lr=0.1,0.2")
    assert other.returncode == 2
    assert "belongs to another search, which differs in first, space" in other.stderr


def test_a_search_ends_with_the_command_that_trains_its_best_run_further(search, command, tmp_path):
    done = search(*HALVING, "epochs=4", "lr=interval(0.01,0.2)", "hydra.sweeper.configurations=2")
    assert done.returncode == 0, done.stderr
    assert "\nnew\n" not in done.stdout
    assert re.search(r"lr=0\.\d{1,5} epochs=4", done.stdout)  # four digits of seventeen
    last = done.stdout.splitlines()[-1]
    assert last.startswith("to train the best at full length: ")
    words = shlex.split(last.partition(": ")[2])
    assert words[1:3] == ["-m", "mlp.train"]
    assert not any(word.startswith("epochs=") for word in words)
    best = found(tmp_path / "out").ranked()[0]
    further = command(*words[3:], "epochs=6")
    assert further.returncode == 0, further.stderr
    assert further.stdout.splitlines()[-1].endswith(best.runs[0][0])
    assert "epoch 5/6" in further.stdout
    assert "epoch 4/6" not in further.stdout  # it went on with the best run


def test_halving_killed_goes_on_to_the_same_result(small, search, tmp_path):
    words = (*HALVING, "epochs=27", "bsz=5", "hydra.sweeper.seeds=2", *GRID)
    process = start(small, tmp_path / "out", *words)
    wait_for(
        lambda: (
            (tmp_path / "out" / "runs").exists()
            and any(len(RunDir(path).read_metrics()) > 3 for path in runs(tmp_path / "out").values())
        )
    )
    children = workers(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 15)
    before = epochs_trained(tmp_path / "out")
    again = search(*words)
    assert again.returncode == 0, again.stderr
    assert search(*words, out="reference", timeout=240).returncode == 0
    results = [found(tmp_path / out) for out in ("out", "reference")]
    assert results[0] == results[1]
    assert {name: measured(path) for name, path in runs(tmp_path / "out").items()} == {
        name: measured(path) for name, path in runs(tmp_path / "reference").items()
    }
    total = results[0].epochs()
    assert total == 2 * (9 * 3 + 3 * 6 + 1 * 18)
    assert f"{total} epochs of 18 runs, {total - before} of them trained now" in again.stdout


def test_what_diverges_does_not_go_on_and_is_shown(search, tmp_path):
    done = search(*HALVING, "loss=euclidean", "epochs=30", "lr=0.01,3e4,4e4", "hydra.sweeper.min_epochs=10")
    assert done.returncode == 0, done.stderr
    assert "1 finished, 2 diverged of 3 trials" in done.stdout
    assert re.search(r"trial 1 diverged: relu-euclidean-16-\w+: the loss became", done.stdout)
    assert [trial.state for trial in found(tmp_path / "out").trials] == ["finished", "diverged", "diverged"]


def test_what_fails_is_tried_again_by_the_same_command(search, tmp_path):
    search(*HALVING, "epochs=9", "lr=0.1,0.01", out="elsewhere")
    bad = next(trial.runs[0][0] for trial in found(tmp_path / "elsewhere").trials if trial.number == 0)
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / bad).write_text("in the way")
    done = search(*HALVING, "epochs=9", "lr=0.1,0.01")
    assert done.returncode == 1
    assert f"trial 0 failed: {bad}: " in done.stdout
    assert "1 finished, 1 failed of 2 trials" in done.stdout
    assert re.search(r"^to continue: \S+ -m mlp\.train --multirun", done.stdout, re.M)
    (tmp_path / "out" / "runs" / bad).unlink()
    again = search(*HALVING, "epochs=9", "lr=0.1,0.01")
    assert again.returncode == 0
    assert "2 finished of 2 trials" in again.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lr=0.1,-1",), "lr=-1: must be a number > 0"),
        (("lr=0.1,0.2", "epochs=3,9"), "epochs"),
        (("lr=0.1,0.2", "hydra.sweeper.metric=[valid_acc,valid_loss]"), "must be one"),
        (("lr=0.1,0.2", "hydra/launcher=basic"), "hydra/launcher=basic: cannot run a search"),
        (("experiment=lr",), "hydra.sweeper.grids"),
    ],
)
def test_bad_input_is_an_error_before_anything(search, tmp_path, words, message):
    done = search(*HALVING, *words)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_leaves_no_trace(search, tmp_path):
    done = search(*HALVING, *GRID, "epochs=9", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "9 configurations" in done.stdout
    assert not (tmp_path / "out").exists()


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'mlp-sweeps\[search\]'"):
        optimize.check("tpe", ())


# -- reading it back -------------------------------------------------------------------------------------------------

HOSTILE = '</script><img src=x onerror="alert(1)"><!-- {{data}} $x$ \''


def a_search(run, *, method="tpe", metrics=("valid_acc",), trials=30, key="lr"):
    rng = random.Random(0)
    rungs = ((3, 80.0), (9, 90.0)) if method == "halving" else ()
    made = tuple(
        Trial(
            i, {key: 10 ** rng.uniform(-4, 0), "activ": rng.choice(["relu", HOSTILE])}, "finished",
            tuple(rng.uniform(80, 99) for _ in metrics), rungs, ((run, 9),), None,
        )
        for i in range(trials)
    )  # fmt: skip
    bad = Trial(trials, {key: 1.0, "activ": "relu"}, "failed", None, (), ((run, 1),), HOSTILE)
    axes = (
        {"key": key, "low": 1e-4, "high": 1.0, "step": None, "log": True},
        {"key": "activ", "values": ["relu", HOSTILE]},
    )
    return Search("mine", method, metrics, ("maximize",) * len(metrics), axes, trials, (*made, bad), {})


def section(found):
    """What the page says of searches."""
    return report._templates().get_template("searches.html").render(searches=[report._search(one) for one in found])


@pytest.mark.parametrize(
    ("method", "metrics"),
    [("tpe", ("valid_acc",)), ("halving", ("valid_acc",)), ("tpe", ("valid_acc", "total_seconds"))],
)
def test_a_search_is_shown_as_text(tmp_path, method, metrics):
    written = a_search("relu-ce-16-0", method=method, metrics=metrics, key=HOSTILE)
    written.write(tmp_path)
    assert record.read(tmp_path) == written
    shown = section([written])
    assert shown.count("<figure>") == 3
    assert shown.count('src="data:image/svg+xml,') >= 2
    assert "<img src=x" not in shown
    assert "<script" not in shown
    assert "&lt;img src=x" in shown
    assert shown == section([written])


def test_the_page_has_the_searches_of_its_runs_and_damage_is_a_problem(tmp_path):
    run = make_run(tmp_path, epochs=9).path.name
    assert 'id="searches"' not in report.page(sweeps.load(tmp_path))
    for name, of in (("mine", run), ("elsewhere", "relu-ce-16-0"), ("damaged", run)):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
        replace(a_search(of, trials=3), name=name).write(tmp_path / "sweeps" / name)
    (tmp_path / "sweeps" / "damaged" / "search.json").write_text("{}")
    text = report.page(sweeps.load(tmp_path))
    assert '<section id="searches"><h2>Searches</h2>\n<h3>mine</h3>' in text
    assert '<a href="#searches">Searches</a>' in text
    assert "<h3>elsewhere</h3>" not in text
    assert "damaged/search.json cannot be read" in text


def test_a_damaged_record_is_an_input_error(tmp_path):
    a_search("relu-ce-16-0").write(tmp_path)
    content = json.loads((tmp_path / "search.json").read_text())
    trial = content["trials"][0]
    for damage in (
        "[" * 100_000, "{}", "[]", "nonsense", '{"trials": NaN}',
        json.dumps(content | {"metrics": []}),
        json.dumps(content | {"space": [{"key": "lr", "low": 1, "high": 0, "step": None, "log": False}]}),
        json.dumps(content | {"trials": [trial | {"values": ["<b>"]}]}),
        json.dumps(content | {"trials": [trial | {"values": [float("nan")]}]}),
        json.dumps(content | {"trials": [trial | {"state": "won"}]}),
        json.dumps(content | {"trials": [trial | {"params": {}}]}),
        json.dumps(content | {"trials": [trial, trial]}),
    ):  # fmt: skip
        (tmp_path / "search.json").write_text(damage)
        with pytest.raises(InputError, match="cannot be read"):
            record.read(tmp_path)


def test_importance_without_optuna_is_left_out_with_a_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    shown = dict(searches.figures(a_search("relu-ce-16-0")))
    assert "pip install 'mlp-sweeps[search]'" in shown["Importance of the keys"]


def test_the_front_is_what_nothing_beats_in_all():
    trials = tuple(
        Trial(i, {"lr": 1.0}, "finished", values)
        for i, values in enumerate([(90, 5), (95, 9), (89, 6), (95, 10), (80, 1)])
    )
    search = Search("x", "tpe", ("valid_acc", "total_seconds"), ("maximize", "minimize"), (), 5, trials)
    assert [trial.number for trial in search.ranked()] == [1, 0, 4]


# -- Optuna ----------------------------------------------------------------------------------------------------------

SPACE = ("lr=tag(log,interval(1e-4,0.1))", "mo=interval(0,0.95)", "activ=relu,tanh")


@pytest.mark.heavy
def test_a_search_killed_again_and_again_is_the_unbroken_one(small, search, tmp_path):
    """With one worker: the same trials, none lost, none trained twice."""
    words = (*OPTUNA, *SPACE, "hydra.sweeper.trials=30", "hydra.launcher.workers=1", "epochs=6", "bsz=10", "seed=0,1")
    assert search(*words, out="reference").returncode == 0
    kills = 0
    for goal in (4, 13, 21):
        process = start(small, tmp_path / "out", *words)
        wait_for(
            lambda goal=goal: (tmp_path / "out" / "runs").exists() and len(runs(tmp_path / "out")) >= 2 * goal, 120
        )
        children = workers(process)
        process.kill()
        for child in children:
            child.kill()
        process.communicate()
        kills += 1
    done = search(*words)
    assert done.returncode == 0, done.stderr
    assert kills == 3
    assert "30 finished of 30 trials; 360 epochs of 60 runs" in done.stdout
    results = [found(tmp_path / out) for out in ("out", "reference")]
    drawn = [[(trial.params, trial.values) for trial in result.trials] for result in results]
    assert drawn[0] == drawn[1]  # numbers may be passed over by a kill while one is drawn
    assert runs(tmp_path / "out").keys() == runs(tmp_path / "reference").keys()
    assert sum(count > 1 for count in trained(tmp_path / "out").values()) <= kills
    assert "0 of them trained now" in search(*words).stdout
    more = search(*words, "hydra.sweeper.trials=32")
    assert "32 finished of 32 trials; 384 epochs of 64 runs, 24 of them trained now" in more.stdout


@pytest.mark.heavy
def test_killed_workers_cost_no_trial(small, search, tmp_path):
    words = (*OPTUNA, *SPACE, "hydra.sweeper.trials=16", "epochs=20", "bsz=5", "hydra.launcher.retries=5")
    process = start(small, tmp_path / "out", *words)
    for goal in (3, 7, 11):
        wait_for(lambda goal=goal: (tmp_path / "out" / "runs").exists() and len(runs(tmp_path / "out")) >= goal, 120)
        for child in workers(process):
            child.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "killed by SIGKILL" in out
    assert "16 finished of 16 trials; 320 epochs of 16 runs" in out


@pytest.mark.heavy
def test_ctrl_c_stops_at_a_checkpoint_and_the_trial_goes_on(small, search, tmp_path):
    words = (*OPTUNA, *SPACE, "hydra.sweeper.trials=4", "epochs=40", "bsz=5")
    process = start(small, tmp_path / "out", *words)
    wait_for(lambda: any(RunDir(path).read_metrics() for path in runs(tmp_path / "out").values())
             if (tmp_path / "out" / "runs").exists() else False)  # fmt: skip
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert out.splitlines()[-1].startswith("to continue: ")
    again = search(*words)
    assert again.returncode == 0, again.stderr
    assert "4 finished of 4 trials; 160 epochs of 4 runs" in again.stdout


@pytest.mark.heavy
def test_every_sampler_searches(search, tmp_path):
    for sampler, count in (("random", 6), ("cmaes", 12)):
        done = search(*OPTUNA, *SPACE, f"hydra.sweeper.sampler={sampler}", f"hydra.sweeper.trials={count}", out=sampler)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        trials = found(tmp_path / sampler).trials
        assert len({tuple(trial.params.values()) for trial in trials}) == count
    assert search(*OPTUNA, *GRID, "hydra.sweeper.sampler=grid", out="grid").returncode == 0
    points = {tuple(trial.params.values()) for trial in found(tmp_path / "grid").trials}
    assert points == set(itertools.product(("0.1", "0.01", "0.001"), ("0", "0.5", "0.9")))


@pytest.mark.heavy
def test_several_objectives_give_a_front_and_divergence_is_told(search, tmp_path):
    done = search(
        *OPTUNA, "lr=tag(log,interval(0.01,1e5))", "model.hidden=[8],[64]", "loss=euclidean", "epochs=20",
        "hydra.sweeper.trials=14", "hydra.sweeper.metric=[valid_acc,total_seconds]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = found(tmp_path / "out")
    states = [trial.state for trial in kept.trials]
    assert set(states) == {"finished", "diverged"}
    assert f"{states.count('finished')} finished, {states.count('diverged')} diverged of 14 trials" in done.stdout
    assert f"the Pareto front ({len(kept.ranked())} of {states.count('finished')} finished):" in done.stdout


@pytest.mark.heavy
def test_a_failed_trial_is_tried_again_and_a_lost_study_found(search, tmp_path):
    words = (*OPTUNA, *SPACE, "hydra.sweeper.trials=5", "hydra.sweeper.sampler=random", "hydra.sweeper.name=mine")
    search(*words, out="elsewhere")
    bad = found(tmp_path / "elsewhere").trials[2].runs[0][0]
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / bad).write_text("in the way")
    done = search(*words)
    assert done.returncode == 1
    assert "4 finished, 1 failed of 5 trials" in done.stdout
    (tmp_path / "out" / "runs" / bad).unlink()
    again = search(*words)
    assert again.returncode == 0, again.stderr
    assert "5 finished of 5 trials" in again.stdout
    assert runs(tmp_path / "out").keys() == runs(tmp_path / "elsewhere").keys()
    study = tmp_path / "out" / "sweeps" / "mine" / "study.db"
    study.write_text("nothing of the kind")
    damaged = search(*words)
    assert damaged.returncode == 2
    assert "study.db cannot be used" in damaged.stderr
    study.unlink()
    rebuilt = search(*words)
    assert rebuilt.returncode == 0
    assert "5 finished of 5 trials" in rebuilt.stdout
    assert "0 of them trained now" in rebuilt.stdout


@pytest.mark.heavy
def test_importance_finds_what_matters():
    rng = random.Random(0)
    trials = tuple(
        Trial(i, {"lr": lr, "activ": rng.choice(["relu", "tanh"])}, "finished", (90 - abs(np.log10(lr) + 2),))
        for i, lr in enumerate(10 ** rng.uniform(-4, 0) for _ in range(60))
    )
    axes = (
        {"key": "lr", "low": 1e-4, "high": 1.0, "step": None, "log": True},
        {"key": "activ", "values": ["relu", "tanh"]},
    )
    shares = searches.importance(Search("x", "tpe", ("valid_acc",), ("maximize",), axes, 60, trials))
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
