import csv
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from synthetic import history, make_other, make_report, make_run

from sweeps.cli import _parse, main
from sweeps.overview import GROUPS, example
from sweeps.runs.directory import RunDir
from sweeps.show.listing import Watch


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "results"
    make_report(folder, seeds=1)
    return folder


@pytest.fixture
def sweeps(capsys, out):
    """Run a command in this process: (status, stdout, stderr)."""

    def run(*words):
        status = main([*words, "--out", str(out)])
        return status, *capsys.readouterr()

    return run


def test_collect_warns_of_what_is_broken_and_succeeds(command, out):
    (out / "runs" / "broken\x1b[31m").mkdir()
    done = command("collect", "--out", out, module="sweeps", PYTHONPATH=os.getcwd())
    assert done.returncode == 0
    assert done.stdout.startswith("21 runs (21 finished), 63 epochs\n")
    assert done.stderr == f"warning: {out}/runs/broken\\x1b[31m: not a run's name\n"
    assert {path.name for path in out.glob("*.*")} == {".collect"} | {
        f"{name}.{kind}" for name in ("runs", "epochs") for kind in ("csv", "parquet")
    }


def test_tables_writes_all_or_some(sweeps, out):
    assert sweeps("tables")[0] == 0
    assert len(list((out / "tables").iterdir())) == 15
    status, printed, _ = sweeps("tables", "--only", "lr")
    assert (status, len(printed.splitlines())) == (0, 3)
    status, printed, _ = sweeps(
        "tables", "study=report", "--rows", "activ", "--cols", "model,optim", "--values", "test_acc"
    )
    assert status == 0
    assert "| sigmoid |" in printed
    printed = sweeps("tables", "study=report", "--rows", "activ", "--format", "csv", "model=360")[1]
    assert {row["n"] for row in csv.DictReader(io.StringIO(printed))} == {"1"}


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "lrr=0.1"),
        ("ls", "activ<3"),
        ("ls", "--sort", "bogus"),
        ("ls", "--columns", "bogus"),
        ("ls", "--sweep", "none"),
        ("ls", "--epochs", "0"),
        ("tables", "--only", "table9"),
        ("figures", "--only", "9"),
        ("claims", "--only", "none"),
        ("show", "zzz"),
        ("show", "relu"),
        ("watch", "--interval", "0", "--once"),
        ("timing", "--rounds", "1"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(sweeps, words):
    status, printed, said = sweeps(*words)
    assert (status, printed) == (2, "")
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [("ls", "--bogus"), ("show", "a", "b"), ("nonsense",), ()])
def test_unknown_arguments(sweeps, words):
    with pytest.raises(SystemExit, match="2"):
        sweeps(*words)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (
            ("figures", "--only", "fig5,fig6"),
            {f"figures/fig{n}.{kind}" for n in (5, 6) for kind in ("png", "svg", "pdf")},
        ),
        (("curves", "--by", "lr"), {f"figures/curves-valid_acc-by-lr.{kind}" for kind in ("png", "svg", "pdf")}),
        (
            ("heatmap", "--x", "lr", "--y", "wd", "--value", "test_acc"),
            {f"figures/heatmap-test_acc-lr-wd.{kind}" for kind in ("png", "svg", "pdf")},
        ),
        (("claims",), {"claims.md", "claims.json"}),
        (("report",), {"report/index.html"}),
    ],
)
def test_drawing_and_judging_commands_write_and_name_their_files(sweeps, out, words, files):
    status, printed, _ = sweeps(*words)
    assert status == 0
    assert {str(out / file) for file in files} <= set(printed.splitlines())
    assert all((out / file).stat().st_size for file in files)


def test_help_shows_every_command_in_a_group_and_each_has_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    groups = [block.splitlines() for block in capsys.readouterr().out.split("\n\n") if "\n  " in block]
    listed = {line.split()[0] for _, *lines in groups for line in lines}
    known = {command for commands in GROUPS.values() for command in commands}
    assert listed - {"-h,", "--version"} == known & listed
    assert len(listed) > 25
    for command in sorted(known & listed):
        said = example(command)
        assert said
        program, *words = shlex.split(said)
        assert program == "mlp-sweeps"
        assert _parse(words).run
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("command", ["tables", "fidelity", "claims", "figures"])
def test_without_a_study_s_runs_one_line_says_how_to_make_them(sweeps, out, command):
    for path in (out / "runs").iterdir():
        shutil.rmtree(path)
    make_other(out, {"lr": 0.1}, {"loss": [1.0]})
    status, printed, said = sweeps(command, "study=report")
    assert (status, printed) == (2, "")
    assert re.fullmatch(r"error: .*none of its runs .*; make them: \S*mlp-sweeps.* train study=report --out .*\n", said)
    assert not list(out.rglob("*.md"))


def test_a_printed_command_works_where_its_environment_is_not_active(tmp_path):
    """As after scripts/reproduce: the shell's own python knows nothing of this package."""
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    shell = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "sweeps", "tables", "study=report"], timeout=200, **shell)
    assert done.returncode == 2
    words = shlex.split(done.stderr.partition("make them: ")[2])
    assert words[-2:] == ["train", "study=report"]
    assert subprocess.run([*words, "--help"], timeout=200, **shell).returncode == 0
    active = env | {"PATH": f"{os.path.dirname(sys.executable)}:{os.defpath}"}
    done = subprocess.run([sys.executable, "-m", "sweeps", "tables", "study=report"], **shell | {"env": active})
    assert done.stderr.endswith("make them: mlp-sweeps train study=report\n") or "-m sweeps" in done.stderr


def test_a_figure_s_name_says_which_runs_are_on_it(sweeps):
    """So that one does not overwrite another's."""

    def name(*words):
        status, printed, _ = sweeps("curves", "--by", "lr", *words)
        assert status == 0
        return printed.splitlines()[0].rpartition("/")[2]

    chosen = [
        (),
        ("lr<=0.01",),
        ("lr!=0.01",),
        ("activ=relu", "loss=ce"),
        ("--epochs", "2"),
        ("activ=relu", "--epochs", "2"),
        ("lr > 0 and wd >= 0 and mo >= 0 and bsz > 0 and seed >= 0",),
        ("lr > 0 and wd >= 0 and mo >= 0 and bsz > 0 and seed <= 9",),
    ]
    names = [name(*words) for words in chosen]
    assert len(set(names)) == len(chosen)
    assert max(map(len, names)) < 90
    assert names[0] == "curves-valid_acc-by-lr.png"
    assert names[3] == name("loss=ce", "activ=relu") == "curves-valid_acc-by-lr-activ=relu-loss=ce.png"
    assert names[5] == "curves-valid_acc-by-lr-activ=relu-epochs2.png"
    _, printed, _ = sweeps("heatmap", "--x", "lr", "--y", "wd", "seed=0", "--epochs", "2")
    assert "heatmap-best_valid_acc-lr-wd-seed=0-epochs2.png" in printed


def test_no_such_directory(capsys, tmp_path):
    assert main(["ls", "--out", str(tmp_path / "none")]) == 2
    assert "holds no runs" in capsys.readouterr().err


def test_ls_filters_sorts_and_chooses_columns(sweeps):
    words = ("ls", "activ=relu", "--sort", "-lr", "loss=ce", "--columns", "lr,seed", "wd=0.001 mo=0.9", "model=360")
    status, printed, _ = sweeps(*words)
    assert status == 0
    assert printed == "    lr  seed\n   0.1     0\n  0.01     0\n 0.001     0\n0.0001     0\n"
    status, printed, said = sweeps(*words, "--limit", "1")
    assert printed.splitlines()[1:] == ["0.1     0"]
    assert said.startswith("3 more")
    rows = list(csv.DictReader(io.StringIO(sweeps("ls", "--csv", "--sort", "lr")[1])))
    assert len(rows) == 21
    assert rows[0]["lr"] == "0.0001"
    assert float(rows[0]["test_acc"]) == history(3)[-1].test_acc
    assert sweeps("ls", "seed=99")[:2] == (
        0,
        "run  state  epoch  target  lr  wd  mo  seed  test_acc  best_test_acc  epoch_seconds\n",
    )


def test_a_sweep_goes_by_the_beginning_of_its_name(sweeps, out):
    run = next((out / "runs").iterdir()).name
    for name in ("halving-lr-8a5be3", "lr-1", "lr-2"):
        (out / "sweeps" / name).mkdir(parents=True)
        content = {"name": name, "command": ["python"], "runs": [{"run_id": run, "overrides": [], "epochs": 3}]}
        (out / "sweeps" / name / "manifest.json").write_text(json.dumps(content))
    for command in (("ls",), ("watch", "--once"), ("prune", "--dry-run")):
        status, printed, said = sweeps(*command, "--sweep", "halv")
        assert (status, said) == (0, "")
        assert len(printed.splitlines()) >= 1
    assert len(sweeps("ls", "--sweep", "halving")[1].splitlines()) == 2
    status, printed, said = sweeps("sweeps")
    assert (status, said) == (0, "")
    assert [line.split()[:4] for line in printed.splitlines()[1:]] == [
        [name, "1", "1", "finished"] for name in ("halving-lr-8a5be3", "lr-1", "lr-2")
    ]
    (out / "sweeps" / "lr-1" / "manifest.json").write_text("{")
    status, printed, said = sweeps("sweeps")
    assert (status, len(printed.splitlines())) == (0, 3)
    assert said.startswith("warning: sweep=lr-1: ")
    (out / "sweeps" / "lr-1" / "manifest.json").write_text(json.dumps(content))
    status, _, said = sweeps("ls", "--sweep", "lr")
    assert (status, said) == (2, "error: sweep=lr: is the beginning of several: lr-1, lr-2\n")
    assert sweeps("stop", "halv")[1].startswith("halving-lr-8a5be3: told to stop; 0 runs")


def test_sweeps_says_who_works_on_what(sweeps, out):
    runs = [make_run(out, seed=seed, state="running", epochs=2, target=9) for seed in (91, 92, 93)]
    (out / "sweeps" / "mine").mkdir(parents=True)
    entries = [{"run_id": name} for name in (*(run.path.name for run in runs), "later")]
    (out / "sweeps" / "mine" / "manifest.json").write_text(json.dumps({"runs": entries, "command": ["python", "a b"]}))
    with runs[0].lock(), runs[1].lock():
        line = sweeps("sweeps")[1].splitlines()[1]
    host = socket.gethostname()
    assert line.startswith(f"mine      4  2 running, 1 interrupted, 1 waiting  2 on {host}  ")
    assert line.endswith("  python 'a b'")


def test_show_by_beginning_code_and_path(sweeps, out):
    path = next(out.glob("runs/tanh-ce-360-*"))
    texts = [sweeps("show", word)[1] for word in (path.name, path.name[:-3], path.name[-10:], str(path))]
    assert texts.count(texts[0]) == 4
    for part in ("name: tanh", "state: finished", "best ", "git_commit: " + "1" * 40):
        assert part in texts[0]


def test_show_of_a_damaged_run_is_status_1(sweeps, out):
    path = next(out.glob("runs/tanh-ce-360-*"))
    (path / "metrics.csv").write_text("nonsense\n")
    status, _, said = sweeps("show", path.name)
    assert status == 1
    assert "not a table of epochs" in said


def test_diff_shows_what_differs_alone(sweeps, out):
    a, b = (next(out.glob(f"runs/{activ}-ce-360-*")).name for activ in ("tanh", "gelu"))
    status, printed, _ = sweeps("diff", a, b)
    assert status == 0
    config = printed.split("\n\n")[0]
    assert [line.split()[0] for line in config.splitlines()] == ["config", "activ.name", "activ.approximate"]
    assert "provenance: the same" in printed
    assert "config: the same" in sweeps("diff", a, a)[1]
    longer = make_run(out, seed=5, epochs=6).path.name
    assert "epoch 3" in sweeps("diff", a, longer)[1]


def test_hostile_texts_reach_no_terminal(sweeps, out):
    error = "[red]x[/] \x1b]0;owned\x07 \u202e"
    run = make_run(out, seed=3, state="failed", error=error)
    session = {"cpu": "\x1b[2J", "a\x1bb": 1}
    run.provenance.write_text(json.dumps({"sessions": [session]}))
    for words in (
        ("show", run.path.name),
        ("ls", "--columns", "error,cpu"),
        ("watch", "--once"),
        ("ls", "--csv", "--columns", "error"),
    ):
        status, printed, _ = sweeps(*words)
        assert status == 0
        assert printed.replace("\n", "").isprintable()
    assert "[red]x[/]" in sweeps("ls", "--columns", "error")[1]


def test_ls_in_a_terminal_is_a_table_of_the_same_texts(out):
    make_run(out, seed=3, state="failed", error="[red]x[/] \x1b]0;owned\x07")
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "sweeps", "ls", "--out", str(out), "--columns", "run,error", "seed=3"]
    done = subprocess.run(words, stdout=follower, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}, timeout=60)
    os.close(follower)
    text = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 0
    assert r"[red]x[/] \x1b]0;owned\x07" in text
    assert "\x1b]0" not in text


def test_watch_counts_and_follows(out, tmp_path):
    run = make_run(out, seed=8, state="running", epochs=2, target=9)
    view = Watch(out)
    with run.lock():
        assert view.look()[run.path.name].state == "running"
    assert view.look()[run.path.name].state == "interrupted"
    assert sum(status.state == "finished" for status in view.look().values()) == 21
    run.status.write_text("{")
    assert view.look()[run.path.name] is None


def test_watch_reads_only_what_changed(out, monkeypatch):
    view, reads = Watch(out), []
    read = RunDir.read_status
    monkeypatch.setattr(RunDir, "read_status", lambda run: (reads.append(run.path.name), read(run))[1])
    view.look()
    view.look()
    assert len(reads) == 21


def test_watch_of_a_sweep_knows_what_waits(sweeps, out):
    run = next(out.glob("runs/tanh-ce-360-*")).name
    folder = out / "sweeps" / "mine"
    folder.mkdir(parents=True)
    runs = [{"run_id": name, "overrides": [], "epochs": 3} for name in (run, "later")]
    (folder / "manifest.json").write_text(json.dumps({"name": "mine", "runs": runs}))
    assert sweeps("watch", "--once", "--sweep", "mine")[1].startswith("1 finished  1 waiting")


def test_live_watch_ends_with_130_on_ctrl_c(out):
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "sweeps", "watch", "--out", str(out), "--interval", "0.1"]
    process = subprocess.Popen(words, stdout=follower, stderr=follower, env=os.environ | {"TERM": "xterm"})
    os.close(follower)
    text = b""
    while b"21 finished" not in text:
        text += os.read(leader, 10_000)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    os.close(leader)
    assert b"Traceback" not in text


@pytest.mark.parametrize("words", [("ls", "--csv"), ("ls",)])
def test_a_closed_pipe_is_no_error(out, words):
    for seed in range(400, 440):  # more than a pipe holds
        make_run(out, seed=seed, state="failed", error="x" * 5000)
    columns = ("--columns", "run,error")
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps", *words, *columns, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
