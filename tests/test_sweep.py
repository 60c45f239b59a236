"""Sweeps through the real command line: they finish despite faults, and do nothing twice."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from test_session import arrays, measured

from sweeps.runs.directory import RunDir


@pytest.fixture
def sweep(command, small, tmp_path):
    """Run a sweep of the small network to its end."""

    def run(*words, out="out", **options):
        # Later words win, as on any command line of Hydra's: the test's own come last.
        base = [word for word in small if not word.startswith("out=")]
        given = {word.split("=")[0] for word in words}
        base = [word for word in base if word.split("=")[0] not in given]
        return command("--multirun", *base, f"out={tmp_path / out}", *words, **options)

    return run


def start(small, out, *words):
    given = {word.split("=")[0] for word in words}
    base = [word for word in small if word.split("=")[0] not in given | {"out"}]
    flags, words = [w for w in words if w.startswith("--")], [w for w in words if not w.startswith("--")]
    return subprocess.Popen(
        [sys.executable, "-m", "mlp.train", "--multirun", *flags, *base, f"out={out}", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=out.parent,
    )  # fmt: skip


def runs(out):
    return {path.name: path for path in (out / "runs").iterdir()}


def assert_same(out, reference):
    assert runs(out).keys() == runs(reference).keys()
    for name, path in runs(out).items():
        assert RunDir(path).read_status().state == "finished"
        assert measured(path) == measured(runs(reference)[name])
        assert arrays(path) == arrays(runs(reference)[name])


def trained(out):
    """How many sessions trained each run."""
    return {
        name: len(json.loads((path / "provenance.json").read_text())["sessions"]) for name, path in runs(out).items()
    }


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds  # generous: it fails only where something is broken
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def workers(process):
    """Its pool's worker processes."""
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if any("sweeps-worker" in word for word in child.cmdline())]
    except psutil.Error:
        return []


def test_a_sweep_trains_each_point_and_a_second_only_what_is_new(sweep, tmp_path):
    first = sweep("lr=0.1,0.01,0.001,0.0001")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert "4 runs, 4 to train (16 epochs), about" in first.stdout
    assert len(re.findall(r"^\[\d/4\] finished", first.stdout, re.M)) == 4
    before = {name: path.stat().st_mtime_ns for name, path in runs(tmp_path / "out").items()}
    second = sweep("lr=0.1,0.01,0.003")
    assert second.returncode == 0
    assert "3 runs, 2 finished already, 1 to train (4 epochs)" in second.stdout
    assert set(trained(tmp_path / "out").values()) == {1}
    after = runs(tmp_path / "out")
    assert len(after) == 5
    assert all(after[name].stat().st_mtime_ns == mtime for name, mtime in before.items())
    assert "nothing" not in second.stdout
    again = sweep("lr=0.1,0.01,0.003")
    assert "3 runs, 3 finished already" in again.stdout
    assert "[1/" not in again.stdout


def test_the_summary_shows_the_best_first_and_the_manifest_lists_all(sweep, tmp_path):
    done = sweep("lr=0.1,0.00001", "hydra.sweeper.name=two")
    lines = [line for line in done.stdout.splitlines() if re.match(r"relu-ce-16-\w{10}  finished", line)]
    assert "lr=0.1" in lines[0]
    assert "lr=1e-05" in lines[1] or "lr=0.00001" in lines[1]
    manifest = json.loads((tmp_path / "out" / "sweeps" / "two" / "manifest.json").read_text())
    assert {run["run_id"] for run in manifest["runs"]} == set(runs(tmp_path / "out"))
    assert [run["epochs"] for run in manifest["runs"]] == [4, 4]
    assert manifest["command"][:4] == ["python", "-m", "mlp.train", "--multirun"]
    assert not list((tmp_path / "out" / "sweeps" / "two").glob("stop*"))


def test_an_error_in_any_point_is_an_error_before_the_first_job(sweep, tmp_path):
    done = sweep("lr=0.1,0.01,-1", "mo=0,0.9")
    assert done.returncode == 2
    assert "lr=-1: must be a number > 0 (point 5: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert sweep("lr=0.1", "activ=relu,gelo").returncode == 2
    assert sweep("lr=0.1", "hydra.launcher.retries=-1").returncode == 2
    assert sweep("lr=0.1", "hydra.launcher.workers=0").returncode == 2
    assert sweep("lr=interval(0,1)").stderr.startswith("error: lr=interval(0,1): is a continuous range;")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_and_leaves_no_trace(sweep, tmp_path):
    done = sweep("lr=0.1,0.01", "--dry-run")
    assert done.returncode == 0
    assert len(re.findall(r"^new +relu-ce-16", done.stdout, re.M)) == 2
    assert not (tmp_path / "out").exists()
    sweep("lr=0.1", "epochs=2")
    done = sweep("lr=0.1,0.01", "--dry-run")
    assert len(re.findall(r"^from 3 +relu-ce-16", done.stdout, re.M)) == 1


def test_points_that_are_one_run_are_trained_once(sweep, tmp_path):
    done = sweep("lr=0.1,0.10,1e-1", "epochs=2,4")
    assert "1 run, " in done.stdout
    (path,) = runs(tmp_path / "out").values()
    assert RunDir(path).read_status().epoch == 4


def test_a_diverged_run_is_shown_and_is_no_failure(sweep):
    done = sweep("lr=0.1,3e4", "loss=euclidean", "epochs=30")
    assert done.returncode == 0
    assert "1 finished, 1 diverged" in done.stdout
    assert "diverged  " in done.stdout


def test_a_failure_is_shown_when_it_happens_and_the_rest_goes_on(sweep, tmp_path, small):
    """Something stands where a run's directory should be: a failure of one job alone."""
    sweep("seed=1", out="elsewhere")
    (bad,) = runs(tmp_path / "elsewhere")
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / bad).write_text("in the way")
    done = sweep("seed=0,1,2,3")
    assert done.returncode == 1
    assert re.search(rf"\] failed +{bad}", done.stdout)
    assert "3 finished, 1 failed" in done.stdout
    assert re.search(r"^to continue: \S+ -m mlp\.train --multirun", done.stdout, re.M)
    stopped = sweep("seed=1,2,3,4,5,6,7,8,9", "epochs=30", "hydra.launcher.on_error=stop", "hydra.launcher.workers=1")
    assert stopped.returncode == 1
    assert stopped.stdout.count("] finished") < 8


def test_a_job_that_takes_too_long_fails_alone(sweep):
    done = sweep("model.hidden=[8],[2000,2000]", "epochs=8", "hydra.launcher.timeout=1.5")
    assert done.returncode == 1
    assert "TimeoutError: took longer than 1.5 s" in done.stdout
    assert "1 finished, 1 failed" in done.stdout


def test_workers_killed_at_random_cost_nothing(small, sweep, tmp_path):
    """40 runs; every one is bit-identical to a sweep that nothing disturbed."""
    words = ("lr=0.1,0.05,0.02,0.01", "seed=range(0,10)", "epochs=20", "bsz=10")
    reference = sweep(*words, out="reference")
    assert reference.returncode == 0
    process = start(small, tmp_path / "out", *words, "hydra.launcher.retries=5")
    rng = random.Random(0)
    kills = 0
    while process.poll() is None:
        time.sleep(rng.uniform(0.2, 0.5))
        alive = workers(process)
        if alive and kills < 8 and (tmp_path / "out" / "runs").exists():
            victim = rng.choice(alive)
            victim.kill()
            kills += 1
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert kills >= 4
    assert "killed by SIGKILL" in out
    assert_same(tmp_path / "out", tmp_path / "reference")


def test_workers_killed_while_they_start_are_no_fault_of_the_jobs(small, sweep, tmp_path):
    """That breaks the pool under jobs that were never begun; a retry each would not be enough."""
    process = start(small, tmp_path / "out", "seed=range(0,4)", "hydra.launcher.workers=2")
    killed = set()
    while process.poll() is None and len(killed) < 8:
        for child in workers(process):
            if child.pid not in killed:
                child.kill()
                killed.add(child.pid)
        time.sleep(0.01)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "4 finished" in out
    assert sweep("seed=range(0,4)", out="reference").returncode == 0
    assert_same(tmp_path / "out", tmp_path / "reference")


def test_main_killed_then_the_same_command_does_what_is_left(small, sweep, tmp_path):
    words = ("lr=0.1,0.05", "seed=range(0,6)", "epochs=40", "bsz=10")
    process = start(small, tmp_path / "out", *words)
    finished = lambda: [p for p in runs(tmp_path / "out").values() if done(p)]  # noqa: E731
    done = lambda path: (status := RunDir(path).read_status()) and status.state == "finished"  # noqa: E731
    wait_for(lambda: (tmp_path / "out" / "runs").exists() and len(finished()) >= 3)
    children = workers(process)
    assert children
    process.kill()
    process.communicate()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 15)
    before = {path.name for path in finished()}
    again = sweep(*words)
    assert again.returncode == 0
    assert f"{len(before)} finished already" in again.stdout
    assert all(trained(tmp_path / "out")[name] == 1 for name in before)
    assert sweep(*words, out="reference").returncode == 0
    assert_same(tmp_path / "out", tmp_path / "reference")


@pytest.mark.parametrize(
    ("signum", "whole_group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)]
)
def test_a_signal_stops_at_a_checkpoint_and_says_how_to_go_on(small, sweep, tmp_path, signum, whole_group):
    """Ctrl-C in a terminal reaches the whole group; kill reaches the main process alone."""
    words = ("seed=range(0,8)", "epochs=300", "bsz=5")
    process = start(small, tmp_path / "out", *words)
    wait_for(lambda: (tmp_path / "out" / "runs").exists() and any(
        RunDir(path).read_metrics() for path in runs(tmp_path / "out").values()
    ))  # fmt: skip
    children = workers(process)
    os.killpg(process.pid, signum) if whole_group else process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert err == ""
    assert "interrupted" in out
    assert re.match(r"to continue: \S+ -m mlp\.train --multirun ", out.splitlines()[-1])
    assert not any(child.is_running() for child in children)
    for path in runs(tmp_path / "out").values():
        assert RunDir(path).read_status().state in ("interrupted", "finished")
    assert sweep(*words, "epochs=6").returncode == 0


def test_two_overlapping_sweeps_at_once_train_each_run_once(small, sweep, tmp_path):
    common = ("epochs=30", "bsz=10")
    first = start(small, tmp_path / "out", "seed=0,1,2,3,4,5", *common)
    second = start(small, tmp_path / "out", "seed=3,4,5,6,7,8", *common)
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert trained(tmp_path / "out") == dict.fromkeys(runs(tmp_path / "out"), 1)
    assert len(runs(tmp_path / "out")) == 9
    assert sweep("seed=range(0,9)", *common, out="reference").returncode == 0
    assert_same(tmp_path / "out", tmp_path / "reference")


def test_a_run_is_the_same_alone_and_in_a_sweep(sweep, command, small, tmp_path):
    sweep("seed=0,1")
    for seed in (0, 1):
        words = [word for word in small if not word.startswith("out=")]
        assert command(*words, f"seed={seed}", "threads=1", f"out={tmp_path / 'alone'}").returncode == 0
    assert_same(tmp_path / "out", tmp_path / "alone")


def test_an_edit_during_a_sweep_changes_nothing_in_it(small, tmp_path):
    """The user's own conf directory; the file is made unusable while the jobs are still waiting."""
    conf = tmp_path / "mine"
    (conf / "activ").mkdir(parents=True)
    (conf / "activ" / "own.yaml").write_text("name: tanh\n")
    process = start(
        small, tmp_path / "out", f"--config-dir={conf}", "activ=own", "seed=range(0,6)", "epochs=30", "bsz=10"
    )
    wait_for(lambda: (tmp_path / "out" / "runs").exists())
    (conf / "activ" / "own.yaml").write_text("name: [broken\n")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert all(name.startswith("tanh-") for name in runs(tmp_path / "out"))


def test_hydra_s_own_launcher_goes_on_working_with_resume(sweep, tmp_path):
    words = ("hydra/launcher=basic", "seed=0,1")
    first = sweep(*words)
    assert first.returncode == 0
    assert first.stdout.splitlines()[-1].startswith("2 finished; ")
    second = sweep("hydra/launcher=basic", "seed=0,1,2")
    assert second.returncode == 0
    assert second.stdout.splitlines()[-1].startswith("3 finished (2 of them before); ")
    assert set(trained(tmp_path / "out").values()) == {1}
    assert len(runs(tmp_path / "out")) == 3
    assert sweep("seed=range(0,3)", out="pool").returncode == 0
    assert_same(tmp_path / "out", tmp_path / "pool")


def test_hydra_s_own_sweeper_works_over_the_pool(sweep, tmp_path):
    done = sweep("hydra/sweeper=basic", "seed=0,1,1")
    assert done.returncode == 0, done.stderr
    assert len(runs(tmp_path / "out")) == 2


def test_experiments_compose_and_the_report_is_21_runs(command):
    for name, count in {"activations": 8, "losses": 6, "lr": 4, "wd": 4, "mo": 4, "report": 21}.items():
        done = command("--multirun", f"experiment={name}", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert f"{name}: {count} runs" in done.stdout
    done = command("--multirun", "experiment=report", "seed=0,1,2", "--dry-run")
    assert "report: 63 runs" in done.stdout
    seeds = re.findall(r"seed=(\d)", done.stdout)
    assert seeds == sorted(seeds)
    done = command("--multirun", "experiment=lr", "hydra.sweeper.where='lr < 0.05'", "--dry-run")
    assert "lr: 3 runs" in done.stdout
