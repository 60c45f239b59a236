"""Sweeps on a real Dask cluster: a scheduler and workers in processes of their own."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT
from test_sweep import assert_same, runs, trained

from sweeps.launch import dask
from sweeps.launch.job import Job, Unfit, execute_elsewhere
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError
from sweeps.runs.program import RunSpec

GRID = ("lr=0.1,0.05,0.02,0.01", "seed=0,1,2")  # 12 runs
OPTIONS = {
    "address": "tcp://127.0.0.1:8786", "cluster": None, "wait": 60, "threads": 1, "jobs": 1, "cores": 1,
    "processes": None, "memory": "1GB", "walltime": None, "queue": None, "account": None, "directives": None,
    "prologue": None, "interface": None, "logs": "jobs",
}  # fmt: skip


@pytest.fixture
def spawn(tmp_path):
    """Start ``dask scheduler`` or ``dask worker``; none outlives the test."""
    processes = []

    def start(kind, *words, env=None):
        with (tmp_path / f"{kind}{len(processes)}.log").open("wb") as log:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words, "--no-dashboard"]
            processes.append(psutil.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=env))
        return processes[-1]

    yield start
    for process in processes:
        kill(process)


def kill(process):
    """With its children; a nanny first, else it would start another worker."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def scheduler(spawn, tmp_path):
    """A scheduler's address."""
    file = tmp_path / "scheduler.json"
    spawn("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    until(lambda: file.exists() and file.stat().st_size)
    return json.loads(file.read_text())["address"]


def worker(spawn, scheduler, *words, **env):
    return spawn("worker", scheduler, "--nthreads", "1", *words, **env)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def words(small, tmp_path):
    """What trains the small network for a second on Dask."""

    def make(*more, launcher="dask", out="out", epochs=60):
        base = [word for word in small if word.split("=")[0] not in ("out", "epochs")]
        return ["--multirun", *base, f"hydra/launcher={launcher}", f"out={tmp_path / out}", f"epochs={epochs}", *more]

    return make


def table(done):
    """What a sweep shows at its end, but for where; equals stand as they finished, so without an order."""
    lines = done.stdout.splitlines()
    assert lines[-1].split(";")[0].endswith(" finished")
    return sorted(lines[next(i for i, line in enumerate(lines) if line.split()[:2] == ["run", "state"]) : -1])


def sweeping(*words):
    command = [sys.executable, "-m", "mlp.train", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_killed_midway_costs_nothing(spawn, scheduler, words, command, tmp_path):
    first, second = worker(spawn, scheduler), worker(spawn, scheduler)
    main = sweeping(*words(*GRID, f"hydra.launcher.address={scheduler}", "hydra.launcher.wait=60"))
    out = tmp_path / "out"
    until(lambda: len(list(out.glob("runs/*/status.json"))) >= 4)
    pids = {child.pid: nanny for nanny in (first, second) for child in nanny.children(recursive=True)}
    trainers = {RunDir(path).read_status().pid for path in runs(out).values() if (path / "status.json").exists()}
    kill(second)
    output, errors = main.communicate(timeout=100)
    assert main.returncode == 0, output + errors
    assert "12 finished" in output
    assert errors == ""
    assert {pids[pid] for pid in trainers} == {first, second}
    assert command(*words(*GRID, launcher="pool", out="pool")).returncode == 0
    assert_same(out, tmp_path / "pool")


def test_dask_the_pool_and_a_process_alone_give_the_same_bits(spawn, scheduler, words, command, small, tmp_path):
    worker(spawn, scheduler)
    grid = ("activ=gelu", "optim=sgd,adam")
    on_dask = words(*grid, f"hydra.launcher.address={scheduler}", out="dask", epochs=4)
    done = [command(*line) for line in (on_dask, words(*grid, launcher="pool", out="pool", epochs=4))]
    assert [each.returncode for each in done] == [0, 0]
    assert table(done[0]) == table(done[1])
    for optim in ("sgd", "adam"):
        alone = (*small[:-1], "activ=gelu", f"optim={optim}", "threads=1", f"out={tmp_path / 'alone'}")
        assert command(*alone).returncode == 0
    assert len(runs(tmp_path / "alone")) == 2
    assert_same(tmp_path / "dask", tmp_path / "alone")
    assert_same(tmp_path / "pool", tmp_path / "alone")


def test_ctrl_c_ends_jobs_at_a_checkpoint_and_the_same_command_continues(spawn, scheduler, words, tmp_path):
    worker(spawn, scheduler)
    command = words("lr=0.1,0.01", f"hydra.launcher.address={scheduler}", epochs=2000)
    main = sweeping(*command)
    until(lambda: len(list(tmp_path.glob("out/runs/*/metrics.csv"))) >= 1)
    main.send_signal(signal.SIGINT)
    output, errors = main.communicate(timeout=30)
    assert main.returncode == 130, output + errors
    assert re.search(r"^to continue: \S+ -m mlp\.train --multirun", output, re.M)
    (path,) = runs(tmp_path / "out").values()
    until(lambda: RunDir(path).read_status().state == "interrupted", 10)


def test_jobs_end_when_the_main_process_is_killed(spawn, scheduler, words, tmp_path):
    worker(spawn, scheduler)
    main = sweeping(*words("lr=0.1,0.01", f"hydra.launcher.address={scheduler}", epochs=20000))
    until(lambda: len(list(tmp_path.glob("out/runs/*/metrics.csv"))) >= 1)
    main.kill()
    main.communicate()
    time.sleep(0.5)
    until(lambda: not any(RunDir(path).is_locked() for path in runs(tmp_path / "out").values()), 30)


def test_a_worker_that_comes_late_is_waited_for(spawn, scheduler, words, tmp_path):
    main = sweeping(*words("lr=0.1", f"hydra.launcher.address={scheduler}", "hydra.launcher.wait=60", epochs=2))
    assert "1 to train" in main.stdout.readline()
    assert "waiting for the first worker of tcp://" in main.stdout.readline()
    worker(spawn, scheduler)
    output, errors = main.communicate(timeout=60)
    assert main.returncode == 0, output + errors
    assert list(trained(tmp_path / "out").values()) == [1]


def test_a_sweep_that_all_workers_have_left_gives_up(spawn, scheduler, words, tmp_path):
    only = worker(spawn, scheduler)
    main = sweeping(*words("lr=0.1", f"hydra.launcher.address={scheduler}", "hydra.launcher.wait=3", epochs=20000))
    until(lambda: len(list(tmp_path.glob("out/runs/*/metrics.csv"))) >= 1)
    kill(only)
    output, errors = main.communicate(timeout=60)
    assert main.returncode == 2, output + errors
    assert errors.startswith("error: hydra.launcher.wait=3: no worker came")


def fails(result, *parts):
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    for part in parts:
        assert part in result.stderr


def test_no_worker_is_said(scheduler, words, command):
    address = f"hydra.launcher.address={scheduler}"
    fails(command(*words("lr=0.1", address, "hydra.launcher.wait=1")), "hydra.launcher.wait=1: no worker came")


def test_no_scheduler_is_said(monkeypatch):
    monkeypatch.setattr(dask, "_CONNECT", 1)
    with pytest.raises(InputError, match=r"address=tcp://127\.0\.0\.1:1: no scheduler there"):
        dask.Dask(dask.Options.of(**(OPTIONS | {"address": "tcp://127.0.0.1:1"})))


@pytest.mark.parametrize(
    ("scheme", "reason"), [("tcp", "does not answer as a scheduler within 1 s"), ("tls", "TLS"), ("ws", "Timed out")]
)
def test_a_server_other_than_dask_is_refused_at_once(monkeypatch, scheme, reason):
    monkeypatch.setattr(dask, "_CONNECT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"address={address}: no scheduler there: .*{reason}"):
            dask.Dask(dask.Options.of(**(OPTIONS | {"address": address})))


def test_a_worker_of_many_threads_is_refused(spawn, scheduler, words, command):
    spawn("worker", scheduler, "--nthreads", "2")
    fails(command(*words("lr=0.1", f"hydra.launcher.address={scheduler}")), "2 threads", "--nthreads 1")


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("address", None, "give a scheduler's address"),
        ("address", "foo://host:1", "like tcp://host:8786"),
        ("cluster", "slrum", "did you mean slurm"),
        ("cluster", "slurm", "not both"),
        ("cores", 0, "≥ 1"),
        ("threads", 2, "must be ≥ processes × threads"),
        ("directives", "-A me", "list of lines"),
        ("walltme", "1:00", "did you mean walltime"),
    ],
)
def test_options_are_checked(option, value, part):
    assert dask.Options.of(**OPTIONS).expected_slots is None
    with pytest.raises(InputError, match=r"^hydra\.launcher\.") as caught:
        dask.Options.of(**(OPTIONS | {option: value}))
    assert part in str(caught.value)


def test_a_late_worker_without_the_results_tree_trains_nothing(tmp_path):
    job = Job((), RunSpec("run", {}, 1, tmp_path / "elsewhere", None), stop_file=str(tmp_path / "stop"))
    answer = execute_elsewhere(job, (str(tmp_path / "elsewhere" / "seen"), "token"))
    assert isinstance(answer, Unfit)
    assert "file system that all workers share" in answer.reason
    assert list(tmp_path.iterdir()) == []


def test_a_late_worker_of_another_version_trains_nothing(spawn, scheduler, words, tmp_path):
    worker(spawn, scheduler)
    main = sweeping(*words("seed=0,1,2,3,4,5", f"hydra.launcher.address={scheduler}", epochs=300))
    until(lambda: list(tmp_path.glob("out/runs/*/metrics.csv")))
    other = tmp_path / "other"
    for package in ("mlp", "sweeps", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "mlp" / "losses.py").open("a") as sources:
        sources.write("# another version\n")
    worker(spawn, scheduler, env=os.environ | {"PYTHONPATH": str(other)})
    output, errors = main.communicate(timeout=300)
    assert main.returncode == 0, output + errors
    assert "gets no jobs: hydra/launcher=" in output
    assert "another version of the mlp package" in output
    sources = {
        json.loads((run / "provenance.json").read_text())["sessions"][-1]["source_sha256"]
        for run in runs(tmp_path / "out").values()
    }
    assert len(sources) == 1


@pytest.mark.heavy
def test_a_worker_that_is_stopped_is_named_and_replaced(spawn, scheduler, words, tmp_path):
    worker(spawn, scheduler), worker(spawn, scheduler)
    main = sweeping(*words("seed=0,1", f"hydra.launcher.address={scheduler}", epochs=1000))
    until(lambda: len(list(tmp_path.glob("out/runs/*/metrics.csv"))) == 2)
    stopped = psutil.Process(RunDir(next(iter(runs(tmp_path / "out").values()))).read_status().pid)
    stopped.suspend()
    output, errors = main.communicate(timeout=500)
    assert main.returncode == 0, output + errors
    assert re.search(r"tcp://\S+ has not been heard of since \d\d:\d\d:\d\d", output)
    assert "is to be replaced by its nanny, and its job tried elsewhere" in output
    assert not stopped.is_running()


def test_ctrl_c_ends_a_sweep_whose_scheduler_hangs(spawn, words, tmp_path):
    file = tmp_path / "scheduler.json"
    hung = spawn("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    until(lambda: file.exists() and file.stat().st_size)
    address = json.loads(file.read_text())["address"]
    worker(spawn, address)
    main = sweeping(*words("seed=0,1", f"hydra.launcher.address={address}", epochs=100_000))
    until(lambda: list(tmp_path.glob("out/runs/*/metrics.csv")))
    hung.suspend()
    main.send_signal(signal.SIGINT)
    time.sleep(1)
    main.send_signal(signal.SIGINT)
    main.communicate(timeout=120)
    hung.resume()
    assert main.returncode == 130


BATCH = {"slurm": ("sbatch", "scancel"), "pbs": ("qsub", "qdel"), "sge": ("qsub", "qdel"), "lsf": ("bsub", "bkill")}


@pytest.mark.parametrize(("cluster", "submit"), [(cluster, commands[0]) for cluster, commands in BATCH.items()])
def test_without_the_batch_system_s_commands_nothing_is_waited_for(monkeypatch, tmp_path, cluster, submit):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"cluster={cluster}: needs {submit}, which is not on PATH"):
        dask.Dask(dask.Options.of(**(OPTIONS | {"address": None, "cluster": cluster})))


@pytest.fixture
def batch(tmp_path, request):
    """``sbatch`` and ``scancel`` as far as dask-jobqueue uses them; gives their folder, and which jobs still run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    submit, cancel = BATCH[getattr(request, "param", "slurm")]
    scripts = {
        submit: f"exec 9>>{folder}/ids\nflock 9\nid=$(($(wc -l <{folder}/ids) + 1))\necho >&9\n"
        f'cat "${{1:-/dev/stdin}}" >{folder}/script-$id\n'
        f"setsid bash {folder}/script-$id >{folder}/log-$id 2>&1 9>&- &\n"
        f'echo $! >{folder}/pid-$id\necho "Submitted batch job $id"\n',
        cancel: f"kill -9 -- -$(cat {folder}/pid-$1)\n",
    }
    for name, text in scripts.items():
        path = folder / name
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def jobs():
        return [path for path in folder.glob("pid-*") if _lives(int(path.read_text()))]

    yield folder, jobs
    for path in jobs():
        os.killpg(int(path.read_text()), signal.SIGKILL)


def _lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.heavy
def test_a_batch_system_gets_the_jobs_and_keeps_none(batch, words, command, tmp_path, monkeypatch):
    folder, jobs = batch
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    options = ["cores=2", "processes=2", "threads=1", "jobs=2", "interface=lo", "queue=short", "prologue=['umask 027']"]
    given = [f"hydra.launcher.{option}" for option in options]
    result = command(*words(*GRID, *given, "hydra.launcher.cluster=slurm"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "12 finished" in result.stdout
    assert len(list(folder.glob("script-*"))) == 2
    assert not jobs()
    script = (folder / "script-1").read_text()
    for line in ("#SBATCH -p short", "#SBATCH --cpus-per-task=2", "export OPENBLAS_NUM_THREADS=1", "umask 027"):
        assert line in script.splitlines()
    assert "--nthreads 1 --memory-limit" in script
    assert "--nworkers 2" in script


@pytest.mark.heavy
@pytest.mark.parametrize(("batch", "queue"), [
    ("pbs", "#PBS -q short"), ("sge", "#$ -q short"), ("lsf", "#BSUB -q short")
], indirect=["batch"])  # fmt: skip
def test_the_other_batch_systems_get_them_too(batch, queue, words, command, tmp_path, monkeypatch, request):
    folder, jobs = batch
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    kind = request.node.callspec.params["batch"]
    options = ["jobs=1", "interface=lo", "queue=short"]
    result = command(*words(*GRID, *[f"hydra.launcher.{option}" for option in options], launcher=kind))
    assert result.returncode == 0, result.stdout + result.stderr
    assert queue in (folder / "script-1").read_text().splitlines()
    assert not jobs()
    assert command(*words(*GRID, launcher="pool", out="pool")).returncode == 0
    assert_same(tmp_path / "out", tmp_path / "pool")


@pytest.mark.heavy
def test_a_batch_job_that_ends_is_replaced(batch, words, tmp_path, monkeypatch):
    folder, jobs = batch
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1s")
    main = sweeping(*words("lr=0.1,0.01", "hydra.launcher.cluster=slurm", "hydra.launcher.interface=lo", epochs=500))
    until(lambda: len(list(tmp_path.glob("out/runs/*/metrics.csv"))) >= 1)
    (job,) = jobs()
    os.killpg(int(job.read_text()), signal.SIGKILL)
    output, errors = main.communicate(timeout=200)
    assert main.returncode == 0, output + errors
    assert len(list(folder.glob("script-*"))) == 2
    assert not jobs()


@pytest.mark.heavy
def test_a_batch_system_that_refuses_is_quoted(batch, words, command, monkeypatch):
    folder, _ = batch
    (folder / "sbatch").write_text("#!/usr/bin/env bash\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    fails(command(*words("lr=0.1", "hydra.launcher.cluster=slurm", "hydra.launcher.interface=lo")), "invalid partition")
