"""Every file of a results tree is opened in one place, and what a stranger put there costs one run at most."""

import ast
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from synthetic import make_other, make_report, make_run, make_runs

import sweeps
from mlp.composition import compose
from mlp.epochs import Epoch
from mlp.formats import read_npz
from mlp.training import train
from sweeps.cli import main
from sweeps.launch.job import last_row
from sweeps.read import snapshot
from sweeps.runs import checkpoint, files
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.npy import UNREADABLE, opened_npz, read_npy
from sweeps.runs.schema import integer
from sweeps.search import record

# ------------------------------------------------------------------------------------------------------------ the door

OPENERS = {
    "open", "fdopen", "mkstemp", "read_text", "read_bytes", "write_text", "write_bytes", "save", "load", "loads",
    "glob", "rglob", "iterdir", "scandir", "listdir", "walk", "FileLock", "FileHandler", "ZipFile", "is_zipfile",
    "read_parquet", "read_table", "read_schema", "read_csv", "loadtxt", "genfromtxt", "fromfile", "memmap", "connect",
}  # fmt: skip
MODULES = {
    "os",
    "json",
    "np",
    "yaml",
    "gzip",
    "tarfile",
    "zipfile",
    "sqlite3",
    "OmegaConf",
    "Image",
    "pq",
    "pd",
}
"""Of which ``load``, ``save`` and ``connect`` are about files."""

ALLOWED = {
    "sweeps/runs/files.py": {
        "os.open", "os.fdopen", "os.scandir", "open", "tempfile.mkstemp", "json.loads", "FileLock"
    },
    # what the door has opened or read
    "sweeps/runs/npy.py": {"zipfile.ZipFile", "archive.open"},
    "sweeps/runs/state.py": {"json.loads"},
    "sweeps/runs/reading.py": {"yaml.load"},
    "sweeps/runs/session.py": {"json.loads"},
    "sweeps/read/snapshot.py": {"json.loads"},
    "sweeps/study/measures.py": {"pd.read_csv"},
    # the size of a run
    "sweeps/runs/directory.py": {"os.walk"},
    "sweeps/read/collect.py": {"pq.read_schema"},
    # a new file, which follows no link
    "sweeps/runs/trackers.py": {"open"},
    # the program, its configuration and the system
    "sweeps/runs/code.py": {"path.parent.rglob", "source.read_bytes", "Path(path).read_bytes"},
    "sweeps/runs/command.py": {"os.open"},
    "sweeps/runs/provenance.py": {"Path('/proc/cpuinfo').read_text", "Path('/sys/fs/cgroup/cpu.max').read_text"},
    "sweeps/launch/compose.py": {"(config_dir / group).glob"},
    "sweeps/launch/usage.py": {"file.read_text", "(folder / str(group)).glob", "folder.iterdir"},
    "sweeps/show/report.py": {"(resources.files('sweeps.show') / 'page' / name).read_text"},
    "sweeps/show/serve.py": {"(resources.files('sweeps.show') / 'serve.js').read_text"},
    "sweeps/study/file.py": {"path.read_bytes", "yaml.load", "folder.glob"},
    "sweeps/study/reference.py": {"pd.read_csv"},
    # the header of a plan; the user's own key
    "sweeps/launch/planned.py": {"json.loads", "os.fdopen", "tempfile.mkstemp"},
    # the user's cache
    "mlp/cache.py": {
        "FileLock", "os.open", "(folder / 'cache.json').read_text",
        "(temporary / 'cache.json').open", "json.loads", "np.load", "np.save", "path.open"
    },
    # a data file or image that the user names
    "mlp/formats.py": {"gzip.open", "path.open", "tarfile.open", "zipfile.is_zipfile"},
    "mlp/images.py": {"Image.open"},
}  # fmt: skip


def openings(source):
    """What opens, reads, writes or lists files in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            first, _, last = name.rpartition(".")
            if last in OPENERS and (last not in ("load", "loads", "save", "connect", "walk") or first in MODULES):
                yield name


def test_nothing_but_the_door_opens_files():
    found = {}
    for path in [path for package in ("mlp", "sweeps", "hydra_plugins") for path in (ROOT / package).rglob("*.py")]:
        if names := set(openings(path.read_text())):
            found[str(path.relative_to(ROOT))] = names
    assert found == ALLOWED


def test_an_opening_elsewhere_would_be_found():
    for line in (
        "open(p)",
        "p.read_text()",
        "np.load(p)",
        "yaml.load(p)",
        "json.load(f)",
        "os.scandir(p)",
        "a.b.rglob('*')",
    ):
        assert list(openings(line)), line
    assert not list(openings("model.load(p)\nextras.load('x')\nstate.save(run)"))


@pytest.fixture
def tree(tmp_path):
    """Two runs, a sweep and a search."""
    out = tmp_path / "out"
    make_runs(out, 2, epochs=3)
    folder = files.folder(out, "sweeps", "s")
    (folder / "manifest.json").write_text(
        json.dumps({"runs": [{"run_id": run, "epochs": 3} for run in os.listdir(out / "runs")]})
    )
    return out


PLACES = (
    "metrics.csv", "status.json", "config.yaml", "provenance.json", "stats.csv", "steps.csv", "checkpoint.npz", ".lock",
    "items.npz", "notes.json", ".hydra/config.yaml", "out:sweeps/s/manifest.json", "out:sweeps/s/search.json",
    "out:timing.json", "out:.collect/runs.npz", "out:runs.parquet", "out:runs.csv",
)  # fmt: skip

READERS = """
import io, os, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
import sweeps
from mlp.model import load
from sweeps.cli import main
from sweeps.launch.job import epochs_done
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError, SweepsError
run = Path(sys.argv[1])
out = str(run.parent.parent)
for path in map(Path, sys.argv[2:]):
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name("aside")
    if there := path.exists():
        path.rename(aside)
    if os.environ["KIND"] == "pipe":
        os.mkfifo(path)
    elif os.environ["KIND"] == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(20 * 2**30)
    of_the_tree = ("ls --sweep s", "claims", "report") if run not in path.parents else ("gradients",)
    for words in ("ls", "collect", f"show {run}", "watch --once", *of_the_tree):
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            status = main([*words.split(), "--out", out])
        print(path.name, words, status, said.getvalue()[:300].replace(chr(10), " | "), flush=True)
        assert status in (0, 1, 2)
    epochs_done(RunDir(run))
    collection = sweeps.load(out)
    assert collection.steps().empty
    try:
        collection.items("a")
    except InputError as error:
        assert "no run has logged them" in str(error)
    try:
        load(run)
    except SweepsError as error:
        print(path.name, error)
    path.unlink()
    if there:
        aside.rename(path)
"""


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_anything_in_a_file_s_place_costs_only_that_file(tree, tmp_path, kind):
    """In 4 GB of address space, of which the libraries take the most; a reader that waits would never end."""
    run = next((tree / "runs").iterdir())
    places = [tree / place[4:] if place.startswith("out:") else run / place for place in PLACES]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", sys.executable, "-c", READERS, run, *places],
        capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env=os.environ | {"KIND": kind, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line.split(" collect 0 ")[1] for line in done.stdout.splitlines() if " collect 0 " in line]
    assert len(collected) == len(PLACES)
    assert all("runs (" in line and not line.startswith("0 runs") for line in collected), collected


# -------------------------------------------------------------------------------------------------------------- locks


def test_a_run_in_a_tree_that_is_not_ours_is_read(tmp_path):
    """By another user, for whom root's rights would hide the question."""
    make_run(tmp_path)
    sweeps.load(tmp_path)  # imports what the other user may have no right to import
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run = make_run(out, state="running", epochs=2, target=5)
        with run.lock():
            assert run.read_status().state == "running"
        out.chmod(0o555)
        for path in out.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = stat.S_IMODE((run.path / ".lock").stat().st_mode)
        if (pid := os.fork()) == 0:
            if os.getuid() == 0:
                os.setuid(65534)
            found = sweeps.load(out)
            os._exit(0 if (list(found.runs["state"]), found.problems) == (["interrupted"], ()) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert before == 0o444
        with run.lock():
            assert run.read_status().state == "running"
        out.chmod(0o755)
        for path in out.rglob("*"):
            path.chmod(0o755)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_is_a_file(tmp_path, kind):
    path = tmp_path / ".lock"
    (tmp_path / "mine").write_text("mine")
    {"link": lambda: path.symlink_to("mine"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    assert not files.is_locked(path)
    with pytest.raises(InputError, match="symbolic link" if kind == "link" else "must be a file"):
        files.lock(path)
    assert (tmp_path / "mine").read_text() == "mine"


# -------------------------------------------------------------------------------------------------------------- links


def test_appending_follows_no_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    os.mkfifo(tmp_path / "pipe")
    for write in (lambda path: files.append(path, b"x"), files.appending):
        for name in ("link", "pipe"):
            with pytest.raises(InputError):
                write(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_run_s_folder_that_is_a_link_is_not_read(tmp_path, small):
    config = compose(*small)
    path = train(config).path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a symbolic link"):
        train(config)


def test_a_sweep_s_folder_that_is_a_link_is_not_read(tree, tmp_path, capsys):
    (tree / "sweeps" / "s").rename(tmp_path / "s")
    (tree / "sweeps" / "s").symlink_to(tmp_path / "s")
    (tmp_path / "s" / record.FILE).write_text("{}")
    assert main(["ls", "--sweep", "s", "--out", str(tree)]) == 2
    assert "no such sweep" in capsys.readouterr().err
    (found,) = record.read_all(tree)
    assert "is a symbolic link" in str(found)


@pytest.mark.parametrize("place", ["evaluations", "evaluations/run"])
def test_evaluations_stay_in_the_tree(small, tmp_path, command, place):
    result = train(compose(*small))
    mine = tmp_path / "mine"
    mine.mkdir()
    path = tmp_path / "out" / place.replace("run", result.run_id)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(mine)
    for module, words in (("mlp.evaluate", ()), ("sweeps", ("mistakes",))):
        done = command(*words, result.run_id, *small[:2], "--out", tmp_path / "out", module=module)
        assert done.returncode == 2, done.stderr
        assert "is a symbolic link" in done.stderr
    assert not list(mine.iterdir())


def test_an_application_s_multirun_yaml_replaces_a_link(tmp_path):
    shutil.copytree(ROOT / "examples" / "hydra_app", tmp_path / "app")
    words = ("--multirun", "model=linear,cubic", "hydra/sweeper=grid", "hydra.sweeper.name=s", "hydra/launcher=pool")
    (tmp_path / "mine").write_text("mine")
    link = files.folder(tmp_path / "app" / "outputs", "sweeps", "s") / "multirun.yaml"
    link.symlink_to(tmp_path / "mine")
    done = subprocess.run([sys.executable, "app.py", *words], cwd=tmp_path / "app", capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "mine").read_text() == "mine"
    assert "hydra:" in link.read_text()
    assert not link.is_symlink()


@pytest.mark.parametrize("name", ["study.db", "study.db-journal", "study.db-wal"])
def test_a_search_s_database_is_no_link(tmp_path, name):
    mine = tmp_path / "mine.db"
    mine.write_bytes(b"mine")
    (tmp_path / name).symlink_to(mine)
    with pytest.raises(InputError, match="is a symbolic link"):
        files.refuse_database(tmp_path / "study.db")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="must be a file"):
        files.refuse_database(tmp_path / "study.db")


# ------------------------------------------------------------------------------------------------------- wrong numbers


def test_a_damaged_table_and_a_smaller_budget_give_the_smaller_one_s_numbers(small):
    config = compose(*small)
    whole = train(config)
    content = whole.path.joinpath("metrics.csv").read_bytes()
    (whole.path / "metrics.csv").write_bytes(content.replace(b"\n2,", b"\n3,"))
    result = train(replace(config, epochs=2))
    assert result.history == whole.history[:2]
    assert (result.epoch, result.last.epoch) == (2, 2)
    assert RunDir(whole.path).read_status().target == 4
    again = train(config)
    assert (again.reused, again.history) == (True, whole.history)


# --------------------------------------------------------------------------------------------------------- one bad run


@pytest.mark.parametrize(
    "changes",
    [
        {"target": True}, {"target": 0}, {"target": 10**400}, {"target": None}, {"epoch": -(10**400)}, {"epoch": 1.0},
        {"pid": "\x1b[31m"}, {"host": 5}, {"error": ["\x1b[31m"]}, {"metric": {}}, {"maximize": "yes"}, {"program": 1},
        {"state": "busy"}, {"state": []}, {"checksums": None}, {"\x1b[31mkey": 1}, {"updated": None},
    ],
    ids=repr,
)  # fmt: skip
def test_a_status_that_is_none_costs_its_run(tree, capsys, changes):
    run = RunDir(next((tree / "runs").iterdir()))
    run.status.write_text(json.dumps(json.loads(run.status.read_text()) | changes))
    with pytest.raises(DamagedRun, match="not a run's status") as damage:
        run.read_status()
    assert str(damage.value).isprintable()
    for words in (["ls"], ["show", run.path.name], ["watch", "--once"]):
        assert main([*words, "--out", str(tree)]) in (0, 1)
    said = "".join(capsys.readouterr())
    assert "\x1b[31m" not in said
    assert len(sweeps.load(tree).runs) == 1


def test_what_a_status_says_has_no_control_characters(tree):
    run = RunDir(next((tree / "runs").iterdir()))
    texts = dict.fromkeys(("host", "started", "updated", "program", "metric"), f"\x1b]0;x\x07{chr(0xD800)}")
    run.status.write_text(
        json.dumps(json.loads(run.status.read_text()) | texts | {"error": "a\x1b[31m\nb", "state": "failed"})
    )
    status = run.read_status()
    assert status.error == "a\\x1b[31m\nb"
    assert all(getattr(status, name) == "\\x1b]0;x\\x07\\ud800" for name in texts)


@pytest.mark.parametrize("value", [10**20, 2**63, True, 1.0, "1", -1])
def test_whole_numbers_have_an_upper_bound(value):
    with pytest.raises(InputError, match="must be a whole number"):
        integer(ge=0)("n", value)
    assert integer(ge=0)("n", 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("extreme", [1e308, -1e308, float("inf"), 5e-324])
def test_an_extreme_number_in_one_run_affects_no_other(tmp_path, capsys, extreme):
    make_report(tmp_path, seeds=2)
    rows = [Epoch(epoch, *[extreme] * 8) for epoch in (1, 2, 3)]
    make_run(tmp_path, seed=77, rows=rows, lr=1e308, bsz=2**63 - 1)
    make_run(tmp_path, seed=77, rows=rows)
    make_other(tmp_path, {"lr": 1e308, "n": 10**400}, {"loss": [extreme, 1.0]}, metric="loss")
    for words in (
        "ls",
        "tables",
        "figures",
        "curves --by lr",
        "curves --metric seconds",
        "claims",
        "report",
        "ls lr<1e400",
    ):
        assert main([*words.split(), "--out", str(tmp_path)]) == 0, (words, capsys.readouterr().err)


@pytest.mark.parametrize("threads", [10**400, True, -1, "four"])
def test_provenance_of_any_number_of_threads(tree, threads):
    run = RunDir(next((tree / "runs").iterdir()))
    provenance = json.loads(run.provenance.read_text())
    provenance["sessions"][-1]["threads"] = threads
    run.provenance.write_text(json.dumps(provenance))
    assert len(sweeps.load(tree).runs) == 2


def test_runs_cannot_widen_the_tables_without_end(tmp_path):
    make_runs(tmp_path, 2, epochs=3)
    for i in range(3):
        make_other(tmp_path, {"i": i}, {f"m{i}_{j}": [1.0] for j in range(400)})
    found = sweeps.load(tmp_path)
    assert len(found.runs) == 4
    assert "more than 1000 metrics" in found.problems[0]


@pytest.mark.parametrize("last", [b"-9,1\n", b"1" * 400 + b",1\n", b"9,1e999\n", b"\xff,1\n", b"\n", b"9\n"])
def test_the_last_row_of_a_hostile_table(tmp_path, last):
    run = make_run(tmp_path)
    run.metrics.write_bytes(b"epoch,loss\n1,1\n" + last)
    row = last_row(run)
    assert row is None or row.epoch == 9


# --------------------------------------------------------------------------------------------------------------- arrays


def _member(header, body=b"", version=1):
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + body


def _archive(members, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _read(content, key="a", **options):
    with opened_npz(io.BytesIO(content), len(content)) as archive:
        return read_npy(archive, key, **options)


@pytest.mark.parametrize(
    "header",
    [
        b"-" * 3000 + b"1", b"(" * 3000, b"[" * 200 + b"-" * 3000, b"lambda:" * 400 + b"1",
        b"{" * 3000, b"not " * 900 + b"1",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 3000 + b",)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<U0', 'fortran_order': False, 'shape': (9,)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}", b"{'descr': '|u1', 'shape': (1,)}", b"", b"{}",
        b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<f999999999', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1," * 40 + b")}",
    ],
    ids=lambda header: header[:60].decode(),
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2, 3])
def test_no_header_of_an_array_is_more_than_wrong(header, version):
    with pytest.raises(UNREADABLE) as error:
        _read(_archive({"a": _member(header, b"\0", version)}))
    assert not isinstance(error.value, MemoryError)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=">i4").reshape(3, 2)), np.array(5),
        np.empty((0, 3)), np.array([True, False]), np.array(["a", "bc"]),
        np.zeros((1,) * 32, np.uint8), np.array([1 + 2j]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_numpy_wrote_them(array, save):
    buffer = io.BytesIO()
    save(buffer, a=array, allow_pickle=False)
    found = _read(buffer.getvalue(), kinds="biufcU", ratio=1032)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def _packed(size, packing):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".encode()
    return _archive(
        {name: _member(header, bytes(size)) for name in ("x_train", "y_train", "x_test", "y_test", "a")}, packing
    )


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_what_is_packed_without_a_bound_is_refused(tmp_path, packing):
    (tmp_path / "b.npz").write_bytes(_packed(2**20, packing))
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        read_npz(tmp_path / "b.npz")


def test_members_that_lie_upon_one_another_are_refused():
    content = bytearray(
        _archive({"a": _member(b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000,), }", bytes(4000))})
    )
    at = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    entry = bytes(content[at:end])
    count = (100).to_bytes(2, "little")
    tail = content[end : end + 8] + count + count + (100 * len(entry)).to_bytes(4, "little") + content[end + 16 :]
    with pytest.raises(ValueError, match="larger than the file"):
        _read(bytes(content[:at]) + 100 * entry + bytes(tail))


def test_a_long_header_takes_no_memory():
    content = _archive({"a": _member(b" " * 2**26, version=2)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="garbled header"):
        _read(content, ratio=1032)


@pytest.mark.parametrize("kind", ["bzip2", "lzma", "deflate", "header"])
def test_a_sealed_checkpoint_is_not_believed_either(small, kind, caplog):
    config = compose(*small)
    run = RunDir(train(replace(config, epochs=3)).path)
    packing = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA, "deflate": zipfile.ZIP_DEFLATED}.get(kind)
    content = (
        _packed(2**20, packing)
        if packing
        else _archive({name: _member(b"-" * 3000) for name in ("history", "columns", "state.json")})
    )
    run.checkpoint.write_bytes(checkpoint._seal(content, run.path.name))
    assert train(config).epoch == 4
    assert "continuing from the one before" in caplog.text
    assert "training from epoch 3 to 4" in run.log.read_text()


# ---------------------------------------------------------------------------------------------------------- the cache


def _cache(out, entries, epochs, packing=zipfile.ZIP_STORED):
    lines = [json.dumps(snapshot._head()), *map(json.dumps, entries)]
    members = {}
    for name, array in (("records", np.frombuffer("\n".join(lines).encode(), np.uint8)), ("epochs", epochs)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        members[name] = buffer.getvalue()
    (out / ".collect" / "runs.npz").write_bytes(_archive(members, packing))


@pytest.fixture
def cached(tmp_path):
    """A tree, its tables, and what its cache holds: name, signature, live, row, columns, count of each; the epochs."""
    make_runs(tmp_path, 2, epochs=3)
    before = sweeps.load(tmp_path)
    with np.load(tmp_path / ".collect" / "runs.npz") as cache:
        entries = [json.loads(line) for line in cache["records"].tobytes().decode().split("\n")[1:]]
        epochs = cache["epochs"]
    return tmp_path, before, entries, epochs


def _changed(index, value, key=None):
    def change(entries, epochs):
        if key is None:
            entries[0][index] = value
        else:
            entries[0][index] = entries[0][index] | {key: value}
        return entries, epochs

    return change


FORGERIES = {
    "another count": _changed(5, 2),
    "no count": _changed(5, True),
    "a negative count": _changed(5, -3),
    "a huge count": _changed(5, 10**30),
    "columns of no metrics": _changed(4, ["epoch", "\x1b"]),
    "two columns of one name": _changed(4, ["epoch", *["a"] * 8]),
    "no columns": _changed(4, []),
    "a state of none": _changed(3, "\x1b[31m", "state"),
    "a target of none": _changed(3, 10**400, "target"),
    "an escape code": _changed(3, "\x1b[31m", "error"),
    "a key too many": _changed(3, 1, "extra"),
    "a configuration of none": _changed(3, {"lr": [1]}, "config"),
    "a number of none": _changed(3, {"lr": 10**400}, "config"),
    "an escape code in a key": _changed(3, {"\x1b": 1}, "config"),
    "no row": _changed(3, None),
    "no live": _changed(2, 1),
    "a name of none": _changed(0, ["x"]),
    "one run twice": lambda entries, epochs: ([entries[0], entries[0]], epochs),
    "epochs too few": lambda entries, epochs: (entries, epochs[:-1]),
    "epochs of nobody": lambda entries, epochs: (entries, np.append(epochs, 1.0)),
    "epochs not in order": lambda entries, epochs: (entries, np.roll(epochs, 9)),
    "epochs of another kind": lambda entries, epochs: (entries, epochs.astype(np.float32)),
    "epochs in two dimensions": lambda entries, epochs: (entries, epochs.reshape(-1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_cache_is_checked_as_a_run_is(cached, forgery):
    out, before, entries, epochs = cached
    _cache(out, *FORGERIES[forgery](entries, epochs))
    after = sweeps.load(out)
    assert (after.runs.equals(before.runs), after.epochs.equals(before.epochs), after.problems) == (True, True, ())


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packed_cache_is_none(cached, packing):
    out, before, entries, epochs = cached
    entries[0][3]["state"] = "failed"
    _cache(out, entries, epochs, packing)
    assert sweeps.load(out).runs.equals(before.runs)


def test_a_cache_larger_than_its_runs_could_make_it_is_not_read(cached):
    out, before, entries, epochs = cached
    entries[0][3]["state"] = "failed"
    entries[0][3]["error"] = "x" * 2**22
    _cache(out, entries, epochs)
    assert sweeps.load(out).runs.equals(before.runs)


@pytest.mark.parametrize("signature", ["", "- - - -", "- - 1:1:1 -"])
def test_a_directory_without_files_is_no_run_despite_the_cache(cached, signature):
    out, _, entries, epochs = cached
    (out / "runs" / "evil").mkdir()
    _cache(out, [*entries, ["evil", signature, *entries[0][2:]]], np.concatenate([epochs, epochs[:27]]))
    found = sweeps.load(out)
    assert len(found.runs) == 2
    assert "evil" in found.problems[0]


def test_the_cache_is_believed_where_it_is_right(cached, monkeypatch):
    out, before, entries, epochs = cached
    _cache(out, entries, epochs)
    monkeypatch.setattr(snapshot, "read", None)
    assert sweeps.load(out).runs.equals(before.runs)


def test_a_number_that_python_cannot_write_is_an_error_of_one_line():
    with pytest.raises(InputError, match="a huge int: must be a whole number") as error:
        integer(ge=1)("bsz", 1 << 20_000)
    assert str(error.value).isprintable()
