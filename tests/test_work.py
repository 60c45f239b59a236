"""Workers that are commands: planned and left sweeps, any number of workers, killed and stopped at will."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT
from test_application import APP, CONFIG, Application
from test_docs import blocks
from test_sweep import assert_same, runs, start, sweep, trained, wait_for, workers

from sweeps.runs.directory import RunDir

sweep = sweep  # a fixture

LONG = ("epochs=60", "bsz=2")  # some seconds a run: two are to be at work at the same time
DETACH = "hydra.launcher.detach=true"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def working(tmp_path):
    """Start workers; those that still run at the end are killed."""
    started = []

    def begin(*words, **env):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "sweeps", "work", *map(str, words), "--out", str(tmp_path / "out")],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                start_new_session=True,
                env=os.environ | env,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def work(command, out):
    """Run a worker to its end."""
    return lambda *words, **options: command("work", *words, "--out", out, module="sweeps", **options)


def ended(process, status=0):
    """What a worker said until its end."""
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == status, stdout + stderr
    assert "Traceback" not in stderr
    return stdout


def begun(out):
    """Runs that are being trained, past their first epoch."""
    found = [RunDir(path) for path in runs(out).values()] if (out / "runs").exists() else []
    return [run for run in found if (s := run.read_status()) and s.state == "running" and s.epoch]


def states(out):
    return sorted(str(RunDir(path).read_status().state) for path in runs(out).values())


def test_a_sweep_is_left_and_two_workers_train_each_run_once(sweep, working, out):
    words = ("seed=range(0,6)", "epochs=8", "bsz=5")
    left = sweep(*words, DETACH, "hydra.sweeper.name=left")
    assert left.returncode == 0, left.stderr
    assert left.stderr == ""
    assert "6 runs, 6 to train" in left.stdout
    assert not (out / "runs").exists()
    ended_both = [ended(process) for process in [working("left"), working("left")]]
    assert all("left: 6 finished" in text for text in ended_both)
    assert trained(out) == dict.fromkeys(runs(out), 1)
    assert len({RunDir(path).read_status().pid for path in runs(out).values()}) == 2
    assert sweep(*words, out="pool").returncode == 0
    assert_same(out, out.parent / "pool")
    again = sweep(*words, DETACH)
    assert "6 finished already" in again.stdout
    assert "nothing runs yet" not in again.stdout


def test_the_commands_that_are_printed_work(sweep, out):
    left = sweep("seed=0,1", DETACH, "hydra.sweeper.name=left", "hydra.launcher.workers=2")
    here = re.search(r"^  here:   (nohup .*--workers 2 .*) &$", left.stdout, re.M)[1]
    assert re.search(r"^  Slurm:  sbatch --array=1-4 .* --wrap 'exec .* -m sweeps work left --out ", left.stdout, re.M)
    subprocess.run(here, shell=True, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    assert states(out) == ["finished"] * 2
    assert "left: 2 finished" in (out / "sweeps" / "left" / "work.log").read_text()
    look, end = (re.search(rf"^{word}: +(.*)$", left.stdout, re.M)[1] for word in ("look", "end it"))
    for command in (f"{look} --once", end):
        subprocess.run(command, shell=True, check=True, timeout=60)


def test_what_a_killed_worker_left_another_finishes(sweep, working, work, out):
    words = ("seed=range(0,4)", *LONG)
    assert sweep(*words, DETACH, "hydra.sweeper.name=left").returncode == 0
    victim = working("left", "--workers", 2)
    wait_for(lambda: len(begun(out)) == 2)
    orphans = workers(victim)
    os.kill(victim.pid, signal.SIGKILL)
    done = work("left")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(out) == ["finished"] * 4
    assert max(trained(out).values()) == 2
    psutil.wait_procs(orphans, timeout=60)
    assert sweep(*words, out="pool").returncode == 0
    assert_same(out, out.parent / "pool")


def test_a_worker_joins_a_sweep_and_takes_over_from_a_main_that_is_killed(small, sweep, working, out):
    words = ("seed=range(0,4)", *LONG, "hydra.sweeper.name=joined", "hydra.launcher.workers=1")
    main = start(small, out, *words)
    wait_for(lambda: begun(out))
    joined = working("joined")
    wait_for(lambda: len(begun(out)) == 2)
    main.kill()
    main.communicate()
    assert "joined: 4 finished" in ended(joined)
    assert sweep(*words, out="pool").returncode == 0
    assert_same(out, out.parent / "pool")


def test_stop_ends_pool_and_workers_at_checkpoints_and_later_ones_go_on(small, sweep, command, working, out):
    words = ("seed=range(0,3)", "epochs=2000", "bsz=5", "hydra.sweeper.name=long", "hydra.launcher.workers=1")
    main = start(small, out, *words)
    wait_for(lambda: begun(out))
    worker = working()
    wait_for(lambda: len(begun(out)) == 2)
    told = command("stop", "long", "--out", out, module="sweeps")
    assert told.returncode == 0, told.stderr
    assert "long: told to stop; 2 runs are being trained" in told.stdout
    assert told.stdout.count(f" by {os.uname().nodename}:") == 2
    assert "since sweeps stop was called" in ended(main, 1)
    said = ended(worker, 1)
    assert "since sweeps stop was called" in said
    assert "long: 3 left" in said
    assert states(out) == ["interrupted"] * 2
    assert sweep(*words, "epochs=1").returncode == 0  # the word to stop is still there, and an old one
    later = working()
    wait_for(lambda: begun(out))
    later.terminate()
    assert ended(later, 143).count("interrupted") >= 1


def test_a_stop_of_one_sweep_is_none_of_another(sweep, command, working, out):
    for name, *words in (("a", "seed=0,1", "epochs=100000"), ("b", "seed=2,3")):
        assert sweep(*words, DETACH, f"hydra.sweeper.name={name}").returncode == 0
    worker = working("a", "b")
    wait_for(lambda: begun(out))
    assert command("stop", "a", "--out", out, module="sweeps").returncode == 0
    said = ended(worker, 1)
    assert "b: 2 finished" in said
    assert said.splitlines()[-3] == "a: 2 left"


def test_max_time_stops_at_a_checkpoint(sweep, work, out):
    assert sweep("seed=0,1", "epochs=100000", "bsz=5", DETACH, "hydra.sweeper.name=long").returncode == 0
    done = work("long", "--max-time", "3s")
    assert done.returncode == 1, done.stderr
    assert "stopping at a checkpoint, since --max-time is over" in done.stdout
    assert "long: 2 left" in done.stdout
    (first,) = [RunDir(path).read_status() for path in runs(out).values()]
    assert (first.state, first.epoch > 0) == ("interrupted", True)


def test_a_failure_is_said_and_not_repeated_by_each_worker_but_by_the_sweep_s_own_command(tmp_path, work, out):
    app = Application(tmp_path).write({"conf/config.yaml": CONFIG}).body("assert cfg.x != 2; return cfg.x")
    words = ("x=1,2,3", f"hydra.sweeper.out={out}", "hydra.sweeper.name=some")
    app(*words, DETACH)
    env = {"CALLS": str(app.log)}
    first = work("some", **env)
    assert first.returncode == 1
    assert "some: 2 finished, 1 failed" in first.stdout
    assert "tried again by the sweep's own command: python app.py --multirun" in first.stdout
    assert len(app.calls) == 3
    second = work("some", **env)
    assert second.returncode == 1
    assert "some: 2 finished, 1 failed" in second.stdout
    assert app.calls == []
    app(*words, DETACH)
    assert work("some", **env).returncode == 1
    assert len(app.calls) == 1


def test_a_foreign_application_is_left_and_worked_on_from_elsewhere(tmp_path, work, out):
    folder = tmp_path / "app"
    app = Application(folder).write({"conf/config.yaml": CONFIG, "lib.py": "def square(x):\n    return x * x\n"})
    app.write({"app.py": "import lib\n" + APP.replace("BODY", "return lib.square(cfg.x)")})
    app("x=3,4,5", DETACH, f"hydra.sweeper.out={out}")
    assert app.calls == []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = work(cwd=elsewhere, CALLS=str(app.log))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [call[0] for call in app.calls] == ["3", "4", "5"]
    app.out = out
    assert app.results == {3: {"result": 9.0}, 4: {"result": 16.0}, 5: {"result": 25.0}}


def test_a_function_of_an_unguarded_script_goes_by_value(tmp_path, work, out):
    (tmp_path / "script.py").write_text(
        "import sweeps\n"
        "offset = 10\n"
        "def train(cfg):\n    return cfg.x + offset\n"
        f"found = sweeps.sweep(train, {{'x': [1, 2]}}, out={str(out)!r}, name='mine', detach=True)\n"
        "print(len(found.runs), 'runs')\n"
    )
    left = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert left.returncode == 0, left.stderr
    assert left.stdout.splitlines()[-1] == "0 runs"
    (tmp_path / "script.py").unlink()
    done = work("mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(RunDir(path).read_metrics()[-1]["result"] for path in runs(out).values()) == [11.0, 12.0]


def test_what_another_user_planned_is_not_run_unless_it_is_trusted(sweep, work, out, tmp_path):
    assert sweep("seed=0", DETACH, "hydra.sweeper.name=theirs").returncode == 0
    mine = {"XDG_DATA_HOME": str(tmp_path / "me")}
    refused = work("theirs", **mine)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: plan=")
    assert "is not signed by your key" in refused.stderr
    assert not (out / "runs").exists()
    assert work("theirs", "--trust", **mine).returncode == 0
    assert states(out) == ["finished"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be read"), (b"[]\nx", "cannot be read"), (b'{"seal": 1}\nx', "is not signed by your key")],
)
def test_a_plan_of_anything_is_one_line(sweep, work, out, content, said):
    assert sweep("seed=0", DETACH, "hydra.sweeper.name=left").returncode == 0
    (plan,) = (out / "sweeps" / "left").glob("plan-*.jobs")
    for written in (content, plan.read_bytes()[:-1]):
        plan.write_bytes(written)
        done = work()
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert said in done.stderr or written is not content


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("seal", ["", "ours", None, 7, "é"])
def test_a_forged_plan_runs_nothing(sweep, work, command, out, tmp_path, seal):
    assert sweep("seed=0", DETACH, "hydra.sweeper.name=left").returncode == 0
    (plan,) = (out / "sweeps" / "left").glob("plan-*.jobs")
    header = json.loads(plan.read_bytes().partition(b"\n")[0])
    if seal != "ours":  # that of another content
        header["seal"] = seal
    plan.write_bytes(json.dumps(header).encode() + b"\n" + pickle.dumps(Evil(str(tmp_path / "ran"))))
    done = work()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not signed by your key" in done.stderr
    for words in (("ls",), ("watch", "--once"), ("stop", "left")):
        command(*words, "--out", out, module="sweeps")
    assert not (tmp_path / "ran").exists()


def test_a_plan_of_another_python_is_not_unpickled(sweep, work, out):
    assert sweep("seed=0", DETACH, "hydra.sweeper.name=left").returncode == 0
    (plan,) = (out / "sweeps" / "left").glob("plan-*.jobs")
    header, _, content = plan.read_bytes().partition(b"\n")
    plan.write_bytes(json.dumps(json.loads(header) | {"python": "3.1"}).encode() + b"\n" + content)
    done = work("left", "--trust")
    assert done.returncode == 2
    assert "Python 3.1: install the same everywhere" in done.stderr


def test_words_are_checked(sweep, command, work, out):
    assert sweep("seed=0", "epochs=1", "hydra.sweeper.name=done").returncode == 0
    assert work("done").returncode == 0
    for words, said in [
        (("work", "--workers", "0"), "--workers=0: must be a whole number ≥ 1"),
        (("work", "--max-time", "soon"), "--max-time=soon: must be a time like 55m"),
        (("work", "dine"), "sweep=dine: no such sweep"),
        (("stop", "dine"), "did you mean done?"),
    ]:
        done = command(*words, "--out", out, module="sweeps")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
    empty = command("work", "--out", out / "nothing", module="sweeps")
    assert (empty.returncode, empty.stdout) == (0, f"nothing is planned in {out}/nothing\n")


def test_what_needs_its_results_at_once_cannot_be_left(sweep):
    done = sweep("hydra/sweeper=basic", "seed=0,1", DETACH)
    assert done.returncode == 2
    assert "use hydra/sweeper=grid" in done.stderr
    done = sweep("hydra/sweeper=halving", "lr=0.1,0.01", "hydra.sweeper.min_epochs=1", "data.holdout=100", DETACH)
    assert done.returncode == 2
    assert "cannot detach a search" in done.stderr


def test_watch_and_ls_say_who_works_on_what(sweep, command, working, out):
    assert sweep("seed=0", "epochs=100000", "bsz=5", DETACH, "hydra.sweeper.name=left").returncode == 0
    worker = working("left", SLURM_ARRAY_JOB_ID="12", SLURM_ARRAY_TASK_ID="3")
    wait_for(lambda: begun(out))
    (training,) = workers(worker)
    who = f"{os.uname().nodename}:{training.pid} slurm 12_3"
    for words in (("watch", "--once", "--sweep", "left"), ("ls",)):
        shown = command(*words, "--out", out, module="sweeps", COLUMNS="200")
        assert who in shown.stdout, shown.stderr
    worker.terminate()
    assert ended(worker, 143)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """``sbatch`` and ``scancel`` that write their words down; the array's tasks are for the test to run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {"sbatch": f"touch {folder}/began; echo '17;one'", "scancel": ""}
    for name, answer in answers.items():
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/{name}.txt\n{answer}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_gets_an_array_and_a_stop_calls_its_waiting_tasks_back(slurm, sweep, command, out):
    options = ("array=1-6%2", "partition=short", "time='01:00:00'", "cpus=4", "threads=2", "args=['--mem=4G']")
    given = [f"hydra.launcher.{option}" for option in options]
    left = sweep("seed=0,1", "hydra/launcher=slurm", "hydra.sweeper.name=left", *given)
    assert left.returncode == 0, left.stderr
    assert "on 2 workers" in left.stdout  # of 4 that there will be
    assert "submitted as Slurm's array 17, tasks 1-6%2" in left.stdout
    *words, wrap, script = (slurm / "sbatch.txt").read_text().splitlines()
    log = f"--output={out}/sweeps/left/slurm-%A_%a.log"
    wanted = ["--parsable", "--array=1-6%2", "--job-name=left", log, "--partition=short", "--time=01:00:00"]
    assert words == [*wanted, "--cpus-per-task=4", "--mem=4G"]
    assert wrap == "--wrap"
    subprocess.run(script, shell=True, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert states(out) == ["finished"] * 2
    assert command("stop", "left", "--out", out, module="sweeps").returncode == 0
    assert (slurm / "scancel.txt").read_text().split() == ["--state=PENDING", "17"]


def test_slurm_that_is_not_there_or_refuses_is_one_line(slurm, sweep, out):
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    refused = sweep("seed=0,1", "hydra/launcher=slurm")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: hydra/launcher=slurm: sbatch: error: invalid partition\n",
    )
    (slurm / "sbatch").unlink()
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not os.path.exists(f"{p}/sbatch"))
    missing = sweep("seed=0,1", "hydra/launcher=slurm", PATH=path)
    assert missing.returncode == 2
    assert "needs sbatch, which is not on PATH" in missing.stderr
    assert missing.stderr.count("\n") == 1
    printed = sweep("seed=0,1", "hydra/launcher=slurm", "hydra.launcher.submit=false", PATH=path)
    assert printed.returncode == 0, printed.stderr
    assert "sbatch --array=1-4" in printed.stdout
    wrong = sweep("seed=0", "hydra/launcher=slurm", "hydra.launcher.array=some", "hydra.launcher.submit=false")
    assert "hydra.launcher.array=some: must be a number of tasks" in wrong.stderr


def test_a_fifth_executor_is_written_from_its_page(tmp_path, monkeypatch):
    page = ROOT / "docs" / "executors.md"
    files = {
        name[1]: block.text
        for block in blocks(page)
        if (name := re.match(r"# ([\w/]+\.(?:py|yaml))\n", block.text))
    }  # fmt: skip
    app = Application(tmp_path).write(files)
    app("lr=0.1,0.01", "seed=0,1", launcher="each")
    assert states(app.out) == ["finished"] * 4
    assert trained(app.out) == dict.fromkeys(runs(app.out), 1)
    script = (tmp_path / "app.py").read_text()
    once = "import os, pathlib\nmark = pathlib.Path('died')\n"
    dies = "if cfg.seed == 5 and not mark.exists():\n        mark.touch(), os._exit(9)\n    w ="
    (tmp_path / "app.py").write_text(once + script.replace("w =", dies, 1))
    done = app("seed=4,5,6", launcher="each")
    assert "its process ended with status 9 after epoch 0; trying again" in done.stdout
    assert "3 finished" in done.stdout
