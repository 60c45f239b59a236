"""What a stranger packed into a results tree or a data file: it is data, and stays where it is."""

import ast
import gzip
import io
import json
import os
import resource
import struct
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT
from synthetic import make_report

from mlp.composition import compose
from mlp.config import RunConfig
from mlp.training import train
from sweeps.cli import main
from sweeps.launch.manifest import Manifest
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError

IN_RUN = ("train.log", ".lock", ".hydra", ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml")


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mine(tmp_path):
    """A directory that a link may lead to, and that must not be touched."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work\n")
    return folder


@pytest.fixture
def trapped(small, mine, tmp_path):
    """Put a link at a place in a results tree."""
    config = compose(*small)

    def make(place, run=True):
        path = config.out / "runs" / config.run_id / place if run else config.out / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(mine if "." not in path.name[1:] and path.name != ".lock" else mine / "thesis.txt")
        return path

    return make


@pytest.mark.parametrize("place", ["runs", "run", *IN_RUN])
def test_no_link_in_the_tree_has_us_write_elsewhere(small, mine, trapped, place):
    before = snapshot(mine)
    path = trapped(place, run=False) if place == "runs" else trapped("" if place == "run" else place)
    with pytest.raises(InputError, match="is a symbolic link inside of the results tree") as error:
        train(compose(*small))
    assert error.value.value == str(path)
    assert snapshot(mine) == before


def test_nor_does_one_have_hydra_or_a_sweep(small, command, mine, trapped):
    before = snapshot(mine)
    trapped(".hydra/config.yaml")
    for flags, status in (((), 2), (("--multirun",), 1)):
        done = command(*flags, *small)
        assert done.returncode == status, done.stdout + done.stderr
        assert ".hydra/config.yaml: is a symbolic link" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert snapshot(mine) == before


def test_no_link_for_a_sweep_s_own_files(small, command, mine, trapped):
    before = snapshot(mine)
    for place in ("sweeps", "sweeps/trap"):
        path = trapped(place, run=False)
        done = command("--multirun", *small, "hydra.sweeper.name=trap")
        assert done.returncode == 2
        assert "symbolic link" in done.stderr
        path.unlink()
    assert snapshot(mine) == before


def test_a_log_that_is_a_pipe_does_not_hang(small, command, tmp_path):
    config = compose(*small)
    run = RunDir.of(config.out, config.run_id)
    run.path.mkdir(parents=True)
    os.mkfifo(run.log)
    done = command(*small, timeout=60)
    assert done.returncode == 2
    assert "train.log: must be a file" in done.stderr


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("runs", ["collect"]),
        (".collect", ["collect"]),
        ("tables", ["tables"]),
        ("figures", ["figures", "--only", "fig1"]),
        ("report", ["report"]),
    ],
)
def test_readers_follow_no_link_either(mine, tmp_path, capsys, place, words):
    out = tmp_path / "out"
    make_report(out, seeds=1)
    if place == "runs":
        (out / "runs").rename(tmp_path / "elsewhere")
        (out / "runs").symlink_to(tmp_path / "elsewhere")
    else:
        (out / place).symlink_to(mine)
    before = snapshot(mine)
    assert main([*words, "--out", str(out)]) == 2
    assert "is a symbolic link" in capsys.readouterr().err
    assert snapshot(mine) == before


@pytest.mark.parametrize("name", ["../up", "..", "/tmp/x", "a/b", "a\nb", ""])
def test_a_sweep_s_name_cannot_climb(tmp_path, capsys, name):
    with pytest.raises(InputError, match="must be letters, digits"):
        Manifest(tmp_path, name)
    make_report(tmp_path, seeds=1)
    assert main(["ls", "--sweep", name, "--out", str(tmp_path)]) == 2
    assert "no such sweep" in capsys.readouterr().err


def test_show_tells_nothing_of_what_is_no_run(mine, tmp_path, capsys):
    (mine / "status.json").write_text('{"secret": "42"}')
    (mine / "metrics.csv").write_text("secret,42\n")
    (tmp_path / "out" / "runs").mkdir(parents=True)
    for name in (f"{tmp_path}/out/../mine", str(mine), "../../etc", "/etc"):
        assert main(["show", name, "--out", str(tmp_path / "out")]) in (1, 2)
        said = "".join(capsys.readouterr())
        assert "42" not in said
        assert "error: " in said


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b'{"runs": 3}', b"null", b'{"runs": [{}]}', b"{}"])
def test_a_hostile_manifest_is_set_aside(tmp_path, capsys, content):
    manifest = Manifest(tmp_path, "trap")
    manifest.folder.mkdir(parents=True)
    make_report(tmp_path, seeds=1)
    manifest.path.write_bytes(content)
    assert main(["ls", "--sweep", "trap", "--out", str(tmp_path)]) == 2
    assert "manifest.json cannot be read" in capsys.readouterr().err
    manifest.add([], ["python"])
    assert json.loads(manifest.path.read_text())["runs"] == []
    assert manifest.path.with_suffix(".damaged").read_bytes() == content


# ---------------------------------------------------------------------------------------------------------- data files


def _idx(dimensions, *shape):
    return bytes((0, 0, 8, dimensions)) + struct.pack(f">{dimensions}I", *shape) + bytes(1000)


def _npy(shape, extra=b""):
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(1000) + extra


def _boasting(folder, kind):
    """Files that promise 10¹² images, in a kilobyte; the words that train on them."""
    if kind in ("idx", "idx.gz"):
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            images, labels = _idx(3, 2**31, 20, 30), _idx(1, count)
            for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
                zipped = kind.endswith("gz")
                (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
        return "data=fashion_mnist", f"data.path={folder}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            if kind == "npz-header":
                archive.writestr(f"{key}.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 1000)
            else:
                archive.writestr(f"{key}.npy", _npy((10**12,)))
    (folder / "mine.npz").write_bytes(buffer.getvalue())
    return "data=npz", f"data.path={folder}/mine.npz"


@pytest.mark.parametrize("kind", ["idx", "idx.gz", "npz", "npz-header"])
def test_a_file_that_promises_a_terabyte_takes_no_memory(tmp_path, kind):
    words = _boasting(tmp_path, kind)
    limit = 3 * 2**30  # of address space, of which the libraries and their threads take the most
    done = subprocess.run(
        [sys.executable, "-m", "mlp.train", *words, "epochs=1", f"out={tmp_path / 'out'}"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "data.path=" in done.stderr
    assert "Traceback" not in done.stderr
    assert "MemoryError" not in done.stderr
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------------------- code


def test_a_configuration_names_no_code(small_npz):
    plain = {
        "model": {"hidden": [4], "init_std": 0.01}, "activ": {"name": "relu"}, "loss": {"name": "ce"},
        "optim": {"name": "sgd"}, "data": {"name": "npz", "path": str(small_npz), "holdout": 0, "holdout_seed": 0},
        "lr": 0.1, "wd": 0.0, "mo": 0.0, "bsz": 50, "seed": 0, "dtype": "float32", "eval_train": "running",
        "epochs": 1, "out": "outputs", "checkpoint_every": 1, "threads": 1,
        "stats": False, "tracker": {"name": "none"},
    }  # fmt: skip
    RunConfig.from_mapping(plain)
    for group in ("activ", "loss", "optim", "data"):
        with pytest.raises(InputError, match="_target_"):
            RunConfig.from_mapping(plain | {group: {**plain[group], "_target_": "os.system"}})
        with pytest.raises(InputError, match="must be one of"):
            RunConfig.from_mapping(plain | {group: {**plain[group], "name": "os.system"}})


BETWEEN_PROCESSES = {ROOT / "sweeps" / "launch" / name for name in ("application.py", "pool.py", "sending.py")}
"""Where a sweep pickles jobs for its own workers; none of it comes from a file."""
SEALED = {ROOT / "sweeps" / "launch" / "planned.py"}
"""What unpickles files that are sealed with the user's own key; tests/test_work.py tries others."""


def test_the_sources_hold_no_pickle_and_evaluate_nothing():
    for path in [path for package in ("mlp", "sweeps", "hydra_plugins") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            pickles = {"pickle", "cloudpickle", "dill", "shelve", "marshal"} & set(names)
            assert not pickles or path in BETWEEN_PROCESSES | SEALED, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "__import__", "os.system", "yaml.unsafe_load"), path
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("shell") != "True", path
                if called in ("np.load", "np.lib.format.read_array", "np.save", "np.savez"):
                    assert given.get("allow_pickle") == "False", (path, node.lineno)


def test_downloads_are_over_https_and_have_checksums():
    from mlp import datasets

    assert datasets._FASHION_URL.startswith("https://")
    assert datasets._CIFAR10_URL.startswith("https://")
    for checksums in (datasets._FASHION, datasets._CIFAR10, datasets._MNIST):
        assert all(checksum.startswith("sha256:") and len(checksum) == 71 for checksum in checksums.values())
