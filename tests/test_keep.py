"""prune, rm, tag and note through the real command line: what goes, and what must not."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT
from synthetic import make_run
from test_session import measured

import sweeps
from sweeps.cli import main
from sweeps.runs import checkpoint, notes
from sweeps.runs.directory import RunDir, run_dirs
from sweeps.runs.errors import InputError, Pruned
from sweeps.show.payload import payload

LONG = 250  # seconds
FILES = ("checkpoint.npz", "checkpoint-previous.npz", "checkpoint.pruned")


@sweeps.program(budget="epochs", metric="loss", maximize=False)
def fit(cfg, run):
    state = {"steps": 0}
    for epoch in run.epochs(cfg["epochs"], state=state):
        state["steps"] += 1
        run.log(loss=cfg["lr"] / epoch)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    out = tmp_path_factory.mktemp("keep") / "out"
    sweeps.sweep(fit, {"lr": [0.1, 0.2, 0.3], "epochs": 3}, out=out, name="a", workers=2, quiet=True)
    sweeps.sweep(fit, {"lr": [0.3, 0.4], "epochs": 3}, out=out, name="b", workers=2, quiet=True)
    for lr in (0.5, 0.6):
        sweeps.run(fit, {"lr": lr, "epochs": 3}, out=out)
    return out


@pytest.fixture
def out(original, tmp_path):
    """Six runs; the sweeps a and b share one of them."""
    shutil.copytree(original, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def keep(capsys, out):
    """Carry a command line out in this process; returns what it prints."""

    def run(*words, status=0):
        assert main([*words, "--out", str(out)]) == status
        printed, said = capsys.readouterr()
        return printed or said

    return run


def run_of(out, lr):
    return next(run for run in run_dirs(out) if yaml.safe_load(run.config.read_text())["lr"] == lr)


def kept(out):
    """lr → which of its checkpoint's files there are, as letters."""
    return {
        yaml.safe_load(run.config.read_text())["lr"]: "".join(
            letter for letter, name in zip("np#", FILES, strict=True) if (run.path / name).exists()
        )
        for run in run_dirs(out)
    }


# -------------------------------------------------------------------------------------------------------------- prune


def test_prune_keeps_the_last_checkpoint_unless_told_otherwise(keep, out):
    before = kept(out)
    assert set(before.values()) == {"np"}
    assert keep("prune", "--dry-run").startswith("would prune 6 runs: 6 files, ")
    assert kept(out) == before
    assert keep("prune").startswith("pruned 6 runs: 6 files, ")
    assert set(kept(out).values()) == {"n"}
    assert keep("prune") == "pruned 0 runs: 0 files, 0 B\n"
    result = sweeps.run(fit, {"lr": 0.5, "epochs": 5}, out=out)  # nothing was lost
    assert (result.epoch, len(json.loads((result.path / "provenance.json").read_text())["sessions"])) == (5, 2)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--keep", "none", "lr>=0.4"], {0.1: "np", 0.2: "np", 0.3: "np", 0.4: "#", 0.5: "#", 0.6: "#"}),
        (["--keep", "best", "lr!=0.3"], {0.1: "n", 0.2: "#", 0.3: "np", 0.4: "#", 0.5: "#", 0.6: "#"}),
        (["--keep", "best:2", "lr>=0.4"], {0.1: "np", 0.2: "np", 0.3: "np", 0.4: "n", 0.5: "n", 0.6: "#"}),
        (["--keep", "none", "--sweep", "a"], {0.1: "#", 0.2: "#", 0.3: "np", 0.4: "np", 0.5: "np", 0.6: "np"}),
        (["--keep", "none", "--force"], dict.fromkeys((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "#")),
    ],
)
def test_prune_frees_what_is_chosen(keep, out, words, left):
    keep("prune", *words)
    assert kept(out) == left


def test_a_run_of_two_sweeps_is_named_and_kept_unless_it_is_asked_for(keep, out):
    shared = run_of(out, 0.3)
    said = keep("prune", "--keep", "none", "--sweep", "b")
    assert f"kept 1 run of the sweep a too: {shared.path.name}\n" in said
    said = keep("rm", "--sweep", "b")
    assert f"kept 1 run of the sweep a too: {shared.path.name}\n" in said
    assert sorted(kept(out)) == [0.1, 0.2, 0.3, 0.5, 0.6]
    assert f"kept 1 run of the sweeps a, b: {shared.path.name}\n" in keep("rm", "lr=0.3")
    assert keep("rm", "lr=0.3", "--force", "--dry-run").startswith("would remove 1 run: ")
    assert keep("rm", shared.path.name).startswith("removed 1 run: ")
    assert sorted(kept(out)) == [0.1, 0.2, 0.5, 0.6]
    sweeps.sweep(fit, {"lr": [0.3, 0.4], "epochs": 3}, out=out, name="b", workers=2, quiet=True)
    assert sorted(kept(out)) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_a_pruned_run_stays_finished_and_is_not_begun_again(keep, out):
    keep("prune", "--keep", "none", "--force")
    before = {run.path.name: run.provenance.read_bytes() for run in run_dirs(out)}
    found = sweeps.sweep(fit, {"lr": [0.1, 0.2, 0.3], "epochs": 3}, out=out, name="a", workers=2, quiet=True)
    assert list(found.runs["state"]) == ["finished"] * 3
    assert sweeps.run(fit, {"lr": 0.1, "epochs": 2}, out=out).reused
    table = run_of(out, 0.1).metrics.read_bytes()
    for more in (
        lambda: sweeps.run(fit, {"lr": 0.1, "epochs": 4}, out=out),
        lambda: sweeps.sweep(fit, {"lr": [0.1, 0.2], "epochs": 4}, out=out, workers=2, quiet=True),
    ):
        with pytest.raises(Pruned, match=r"^run=fit-\w+: was pruned, so .* again: mlp-sweeps rm fit-\w+$"):
            more()
    assert run_of(out, 0.1).metrics.read_bytes() == table
    assert {run.path.name: run.provenance.read_bytes() for run in run_dirs(out)} == before


def test_what_is_not_finished_or_is_being_trained_is_kept(keep, out):
    busy, broken = run_of(out, 0.5), run_of(out, 0.6)
    status = json.loads(broken.status.read_text())
    broken.status.write_text(json.dumps({**status, "state": "interrupted", "sha256": None}))
    with busy.lock():
        said = keep("prune", "--keep", "none", "lr>=0.5")
        assert f"kept 1 run that are being trained: {busy.path.name}\n" in said
        assert f"kept 1 run that are not finished, and continue from their checkpoints: {broken.path.name}\n" in said
        for words in (["prune", "--keep", "none", "--force"], ["rm"], ["rm", "--force"]):
            assert "being trained" in keep(*words, busy.path.name, status=1)
        assert "being trained" in keep("rm", "--dry-run", busy.path.name, status=1)
    assert kept(out)[0.5] == kept(out)[0.6] == "np"
    assert keep("rm", busy.path.name, broken.path.name).startswith("removed 2 runs: ")


def test_a_sweep_that_wants_to_go_on_keeps_its_checkpoints(keep, out):
    path = out / "sweeps" / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["runs"]:
        entry["epochs"] = 9
    path.write_text(json.dumps(manifest))
    assert "kept 2 runs that the sweep a may take to epoch 9: " in keep("prune", "--keep", "none", "lr<0.3")
    assert keep("prune", "--keep", "none", "--force", "lr<0.3").startswith("pruned 2 runs: ")


def test_pruning_beside_a_sweep_changes_none_of_its_numbers(small, command, tmp_path):
    """Again and again, while another process trains: nothing is trained twice, and all come to their end."""
    out, words = tmp_path / "out", ("--multirun", *small, "epochs=40", "seed=range(0,6)", "hydra.launcher.workers=2")
    said, times = tmp_path / "said", 0
    with open(said, "w") as file:
        sweep = [sys.executable, "-m", "mlp.train", *words]
        process = subprocess.Popen(sweep, cwd=tmp_path, stdout=file, stderr=file)
    while process.poll() is None:
        if (out / "runs").is_dir():
            assert main(["prune", "--keep", "none", "--out", str(out)]) == 0
            times += 1
    assert process.returncode == 0, said.read_text()
    assert times
    reference = tmp_path / "reference"
    done = command(*words, f"out={reference}")
    assert done.returncode == 0, done.stderr
    assert main(["prune", "--keep", "none", "--out", str(out)]) == 0
    names = [run.path.name for run in run_dirs(out)]
    assert names == [run.path.name for run in run_dirs(reference)]
    for name in names:
        run = RunDir.of(out, name)
        assert run.read()[0].state == "finished"
        assert not run.checkpoint.exists()
        assert len(json.loads(run.provenance.read_text())["sessions"]) == 1
        assert measured(run.path) == measured(RunDir.of(reference, name).path)


def test_halving_keeps_what_it_may_still_promote(command, small, tmp_path):
    words = ("--multirun", *small, "data.holdout=100", "hydra/sweeper=halving", "hydra.sweeper.min_epochs=1")
    words = (*words, "epochs=4", "hydra.sweeper.eta=2", "lr=0.1,0.01,0.001,0.0001", "hydra.sweeper.name=h")
    assert command(*words).returncode == 0
    out = tmp_path / "out"
    path = out / "sweeps" / "h" / "search.json"
    search = path.read_text()
    content = json.loads(search)
    content["trials"][0] |= {"state": "running", "values": None}
    path.write_text(json.dumps(content))
    said = command("prune", "--keep", "none", "--out", out, module="sweeps").stdout
    assert "that the sweep h may take to epoch 4" in said
    path.write_text(search)
    said = command("prune", "--keep", "none", "--out", out, module="sweeps").stdout
    assert said.startswith("pruned ")
    assert "kept" not in said


def test_what_needs_a_network_says_that_it_was_pruned(command, tmp_path):
    """Real MNIST, one epoch."""
    out = tmp_path / "out"
    words = ("epochs=1", "lr=0.1", "threads=1", f"out={out}")
    assert command(*words).returncode == 0
    (run,) = run_dirs(out)
    name = run.path.name
    assert command(name, "--out", out, module="mlp.evaluate").returncode == 0
    freed = run.checkpoint.stat().st_size
    said = command("prune", "--keep", "none", "--out", out, module="sweeps").stdout
    assert said == f"pruned 1 run: 1 file, {freed / 1e6:.3g} MB\n"
    assert command(*words).returncode == 0  # finished as before
    message = f"error: run={name}: was pruned, so its checkpoint is gone; to train it again: mlp-sweeps rm {name}"
    for again in (
        command(name, "--out", out, module="mlp.evaluate"),
        command("epochs=2", *words[1:]),
        command("--multirun", "epochs=2", *words[1:], "lr=0.1,0.01"),
        command("landscape", name, "--out", out, module="sweeps"),
    ):
        assert again.stderr.splitlines()[-1].startswith(message), again.stderr
        assert (again.returncode, "Traceback" in again.stderr) == (2, False)
    assert command("rm", name, "--out", out, module="sweeps").returncode == 0
    assert not list(run_dirs(out))
    assert not (out / ".removed").exists()
    assert command(*words).returncode == 0
    assert command(name, "--out", out, module="mlp.evaluate").returncode == 0


def test_a_kill_inside_prune_leaves_a_run_that_goes_on_or_says_why_not(out):
    """Each of the three steps that prune consists of."""
    run = run_of(out, 0.5)
    run.pruned.touch()
    run.checkpoint_before.unlink()
    assert sweeps.run(fit, {"lr": 0.5, "epochs": 4}, out=out).epoch == 4  # marked, but still there
    checkpoint.remove(run)
    with pytest.raises(Pruned):
        sweeps.run(fit, {"lr": 0.5, "epochs": 5}, out=out)


# ----------------------------------------------------------------------------------------------------------------- rm


def test_links_are_not_followed_and_nothing_outside_is_touched(keep, out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "runs").mkdir(parents=True)
    (elsewhere / "precious").write_text("x")
    run, other = run_of(out, 0.5), run_of(out, 0.6)
    (run.path / "link").symlink_to(elsewhere)
    run.checkpoint.unlink()
    run.checkpoint.symlink_to(elsewhere / "precious")
    run.pruned.symlink_to(elsewhere / "made")
    (out / "runs" / "linked").symlink_to(elsewhere)
    keep("prune", "--keep", "none", run.path.name)
    assert keep("rm", run.path.name).startswith("removed 1 run: ")
    for name in ("linked", str(out / "runs" / "linked"), str(elsewhere)):
        assert keep("rm", name, status=2).startswith("error: run=")
    (out / ".removed").symlink_to(elsewhere)
    assert "symbolic link" in keep("rm", other.path.name, status=2)
    assert other.config.exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["precious", "runs"]


def test_what_a_killed_rm_left_is_no_run_and_goes_with_the_next(keep, out):
    run = run_of(out, 0.5)
    (out / ".removed").mkdir()
    run.move(out / ".removed" / "half")
    assert len(sweeps.load(out).runs) == 5
    keep("rm", "lr=0.6")
    assert not (out / ".removed").exists()
    assert sorted(kept(out)) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "words",
    [
        ["rm"], ["rm", "zzz"], ["rm", "fit", "lr=0.1"], ["rm", "lr=a"], ["rm", "--sweep", "none"],
        ["prune", "--keep", "first"], ["prune", "--keep", "best:0"], ["prune", "fit"],
        ["tag", "lr=0.1", "a b"], ["tag", "lr=0.1", "a,b"], ["tag", "lr=0.1", ""], ["tag", "lr=0.1", "a=b"],
        ["tag", "lr=0.1", "x" * 101], ["tag", "lr=0.1", "\x1b[31m"], ["tag", "lr=0.1", "\udcff"],
        ["tag", "lr=0.1", *map(str, range(101))], ["note", "fit", "x"],
        ["ls", "tag<a"], ["ls", "tags>=1"],
    ],
)  # fmt: skip
def test_unusable_input_is_one_line_and_changes_nothing(keep, out, words):
    before = {run.path.name: sorted(path.name for path in run.path.iterdir()) for run in run_dirs(out)}
    said = keep(*words, status=2)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    after = {run.path.name: sorted(path.name for path in run.path.iterdir()) for run in run_dirs(out)}
    assert [name for name in after if set(after[name]) - {".notes.lock"} != set(before[name])] == []


# ------------------------------------------------------------------------------------------------------ tags and notes


def test_tags_filter_everywhere(keep, out):
    odd = "größe👍#1:/β*?[$HOME]-"
    assert keep("tag", "lr<=0.2", "good", odd) == "2 runs tagged\n"
    assert keep("tag", "lr=0.1", "bad", "good") == "1 run tagged\n"
    assert keep("note", run_of(out, 0.1).path.name, "two\nlines \x1b[31m") == "two\nlines \\x1b[31m\n"
    assert keep("note", run_of(out, 0.1).path.name) == "two\nlines \\x1b[31m\n"

    def rates(*filters):
        return sorted(sweeps.load(out, *filters).runs["lr"])

    assert rates("tag=good") == rates(f"tags={odd}") == [0.1, 0.2]
    assert rates("tag=good", "tag!=bad") == rates("'good' in tags and tag != 'bad'") == [0.2]
    assert rates("tag=bad,other") == rates("tag == 'bad'") == rates("tag in ['bad', 'other']") == [0.1]
    assert rates("tag=goo") == []
    assert rates("tag=", "lr<0.5") == rates("tag == '' and lr < 0.5") == [0.3, 0.4]
    assert rates("tag=bad lr=0.1") == [0.1]
    found = sweeps.load(out, "lr=0.1")
    assert found.runs[["tags", "note"]].to_numpy().tolist() == [[f"bad,good,{odd}", "two\\nlines \\x1b[31m"]]
    listed = keep("ls", "tag=bad")
    assert listed.splitlines()[0].endswith("tags" + " " * (len(f"bad,good,{odd}") - 2) + "note")
    shown = keep("show", run_of(out, 0.1).path.name)
    assert f"\ntags: bad good {odd}\n\nnote\n  two\n  lines \\x1b[31m\n" in shown
    columns = {column["name"]: column for column in json.loads(payload(sweeps.load(out)))["columns"]}
    assert columns["tags"]["main"]
    assert columns["note"]["main"]
    assert keep("untag", "lr=0.1", "bad", "none") == "1 run untagged\n"
    assert rates("tag=bad") == []
    assert keep("prune", "--keep", "none", "tag!=good", "lr!=0.3").startswith("pruned 3 runs")
    keep("untag", "lr<=0.2", "good", odd)
    assert keep("note", run_of(out, 0.1).path.name, "") == "\n"
    assert not list(out.glob("runs/*/notes.json"))
    assert not {"tags", "note"} & set(keep("ls").splitlines()[0].split())


def test_tags_are_no_part_of_the_run_and_survive_it_being_replaced(keep, out):
    run = run_of(out, 0.1)
    keep("tag", run.path.name, "good")
    assert sweeps.run(fit, {"lr": 0.1, "epochs": 4}, out=out).epoch == 4
    assert notes.read(run).tags == ("good",)
    sessions = json.loads(run.provenance.read_text())
    sessions["sessions"][-1]["code"] = {"test_keep": "0" * 64}
    status = json.loads(run.status.read_text())
    del status["checksums"]["provenance.json"]
    run.status.write_text(json.dumps({**status, "sha256": None}))
    run.provenance.write_text(json.dumps(sessions))
    found = sweeps.sweep(fit, {"lr": [0.1], "epochs": 4}, out=out, code="retrain", workers=1, quiet=True)
    assert len(list((out / "replaced").iterdir())) == 1
    assert found.runs["tags"].tolist() == ["good"]
    assert len(json.loads(run.provenance.read_text())["sessions"]) == 1


def test_concurrent_tags_of_a_run_are_all_kept(out):
    run = run_of(out, 0.5)
    with run.lock():  # it may be trained meanwhile
        words = [
            [sys.executable, "-m", "sweeps", "tag", run.path.name, f"word{i}", "--out", str(out)] for i in range(4)
        ]
        for process in [subprocess.Popen(line, stdout=subprocess.DEVNULL, cwd=ROOT) for line in words]:
            assert process.wait(LONG) == 0
    assert notes.read(run).tags == tuple(f"word{i}" for i in range(4))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"tags": ["a b"], "text": ""}', b'{"tags": [], "text": 1}', b"[" * 99999]
)
def test_notes_that_cannot_be_read_hide_no_run_and_are_left_alone(keep, out, content):
    run = run_of(out, 0.5)
    notes.path_of(run).write_bytes(content)
    assert sweeps.load(out, "lr=0.5").runs["note"].str.startswith("notes.json: not ").all()
    assert "notes.json: not " in keep("tag", run.path.name, "x", status=1)
    assert notes.path_of(run).read_bytes() == content


def test_keys_and_metrics_called_tag_make_way(tmp_path):
    @sweeps.program(name="named")
    def named(cfg):
        return {"tag": 1.0, "note": 2.0}

    sweeps.run(named, {"tags": "mine", "tag": 3, "note": "n"}, out=tmp_path)
    row = sweeps.load(tmp_path, "config.tag=3", "config.tags=mine", "metric.tag=1").runs.iloc[0]
    assert (row["config.note"], row["metric.note"]) == ("n", 2.0)
    assert row[["tags", "note"]].isna().all()


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_ten_thousand_runs_are_pruned(command, tmp_path):
    out = tmp_path / "out"
    first = make_run(out, seed=0)
    for i in range(1, 10_000):
        make_run(out, seed=i)
    for run in run_dirs(out):
        run.checkpoint.write_bytes(b"x" * 1000)
        run.checkpoint_before.write_bytes(b"x" * 1000)
    start = time.monotonic()
    done = command("prune", "--keep", "none", "--out", out, module="sweeps", timeout=600)
    print(f"{time.monotonic() - start:.1f} s")
    assert done.stdout == "pruned 10000 runs: 20000 files, 20 MB\n"
    start = time.monotonic()
    done = command("rm", "--out", out, "epoch=3", module="sweeps", timeout=600)
    print(f"{time.monotonic() - start:.1f} s")
    assert done.stdout.startswith("removed 10000 runs: ")
    assert not first.path.exists()


def test_a_selection_is_of_names_or_of_filters(out):
    from sweeps import keep

    with pytest.raises(InputError, match="names, or filters"):
        keep.select(out, [run_of(out, 0.1).path.name], "a")
