"""Any input: an answer or an error that names it. No traceback, no hang, no file outside of ``out``."""

import contextlib
import gzip
import json
import os
import string
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import samples
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import make_report

from mlp import data
from mlp.composition import compose
from mlp.formats import CIFAR10_FILES, IDX_FILES
from mlp.training import train
from sweeps.cli import main
from sweeps.launch.manifest import Manifest
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError

pytestmark = pytest.mark.heavy  # a minute or two

cache, idx_folder, cifar_folder = samples.cache, samples.idx_folder, samples.cifar_folder

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def spliced(content):
    """Bytes near to a real file's: a piece of it replaced by any other."""

    def splice(start, length, piece):
        return content[:start] + piece + content[start + length :]

    places = st.integers(0, len(content))
    return st.builds(splice, places, st.integers(0, 40), st.binary(max_size=40)) | st.binary(max_size=200)


@pytest.fixture(scope="module")
def finished(small_npz, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    config = compose("data=npz", f"data.path={small_npz}", "model.hidden=[4]", "epochs=2", "bsz=200", f"out={out}")
    return config, train(config)


@pytest.mark.parametrize("name", ["metrics.csv", "status.json", "provenance.json", "config.yaml", "checkpoint.npz"])
def test_any_content_of_a_run_s_file_is_found_out_or_harmless(finished, name):
    config, result = finished
    path = result.path / name
    whole = {file: file.read_bytes() for file in result.path.iterdir() if file.is_file()}

    @quick
    @given(spliced(whole[path]))
    def check(content):
        path.write_bytes(content)
        try:
            known = RunDir(result.path).result(2)
        except DamagedRun:
            known = None
        assert known is None or known.history == result.history
        again = train(replace(config, epochs=3))
        assert len(again.history) == 3
        assert again.history[0].train_loss == result.history[0].train_loss
        for file in [file for file in result.path.iterdir() if file.is_file()]:
            file.unlink()
        for file, before in whole.items():
            file.write_bytes(before)

    check()


@quick
@given(json_values)
def test_any_json_for_a_status(tmp_path, values):
    run = RunDir(tmp_path)
    run.status.write_text(json.dumps(values))
    with pytest.raises(DamagedRun):
        run.read_status()


@quick
@given(json_values | st.builds(lambda runs: {"runs": runs}, json_values))
def test_any_json_for_a_manifest(tmp_path, values):
    manifest = Manifest(tmp_path, "any")
    manifest.folder.mkdir(parents=True, exist_ok=True)
    manifest.path.write_text(json.dumps(values))
    (tmp_path / "runs").mkdir(exist_ok=True)
    assert main(["ls", "--sweep", "any", "--out", str(tmp_path)]) in (0, 2)
    manifest.add([], ["python"])
    json.loads(manifest.path.read_text())["runs"]


def test_any_bytes_for_the_user_s_npz(small_npz, tmp_path):
    whole = small_npz.read_bytes()
    options = {"path": str(tmp_path / "any.npz"), "holdout": 0, "holdout_seed": 0}

    @quick
    @given(spliced(whole[:400]) | st.integers(0, len(whole)).map(lambda end: whole[:end]))
    def check(content):
        Path(options["path"]).write_bytes(content + whole[len(content) :] if len(content) < 300 else content)
        try:
            data.load("npz", options)
        except InputError as error:
            assert error.field == "data.path"

    check()


def train_or_blame(name, files, tmp_path):
    """Train on a directory of these files: a result or an error about it, in little memory, and no file elsewhere."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # a new one, lest checksums be remembered
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        words = (f"data={name}", f"data.path={folder}", "model.hidden=[4]", "epochs=1", "threads=1", "bsz=10")
        config = compose(*words, f"out={tmp_path / 'out'}")
        tracemalloc.start()
        try:
            assert len(train(config).history) == 1
        except InputError as error:
            assert (error.field, error.value) == ("data.path", folder)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 2**25
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == files
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "idx", "cifar", "out"}


def damaged(whole):
    """Files of a folder, of which one is replaced by what is near to it, packed or not, or whose packing is damaged."""

    def one(name):
        plain = gzip.decompress(whole[name]) if name.endswith(".gz") else whole[name]
        near = spliced(plain) | st.integers(0, len(plain)).map(lambda end: plain[:end])
        if plain[:2] == b"\0\0":  # an IDX file's header, with sizes that are not so
            sizes = st.lists(st.sampled_from([0, 1, 10, 20, 2**31, 2**32 - 1]) | st.integers(0, 40), max_size=5)
            near |= sizes.map(lambda n: bytes((0, 0, 8, len(n))) + struct.pack(f">{len(n)}I", *n) + plain[-120:])
        stem = name.removesuffix(".gz")
        return st.one_of(
            near.map(lambda content: {stem: content}),
            near.map(lambda content: {f"{stem}.gz": gzip.compress(content, 1)}),
            spliced(gzip.compress(plain, 1)).map(lambda content: {f"{stem}.gz": content}),
        ).map(lambda changed: {key: whole[key] for key in whole if key != name} | changed)

    return st.sampled_from(sorted(whole)).flatmap(one)


def test_any_bytes_for_idx_files(cache, idx_folder, tmp_path):
    whole = {path.name: path.read_bytes() for path in idx_folder.iterdir()}
    assert len(whole) == len(IDX_FILES)

    @settings(parent=quick, max_examples=100)
    @given(damaged(whole))
    def check(files):
        train_or_blame("fashion_mnist", files, tmp_path)

    train_or_blame("fashion_mnist", whole, tmp_path)
    check()


def test_any_bytes_for_cifar_s_files(cache, cifar_folder, tmp_path):
    whole = {path.name: path.read_bytes() for path in cifar_folder.iterdir()}
    assert len(whole) == len(CIFAR10_FILES)

    @quick
    @given(damaged(whole))
    def check(files):
        train_or_blame("cifar10", files, tmp_path)

    train_or_blame("cifar10", whole, tmp_path)
    check()


words = st.text(string.printable, max_size=12)
keys = st.sampled_from(["lr", "bsz", "epochs", "model.hidden", "activ", "optim.name", "data", "seed", "x"])


@settings(parent=quick, max_examples=40)
@given(st.lists(st.builds("{}={}".format, keys, words) | words, max_size=3))
def test_any_words_compose_or_are_an_error(overrides):
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with contextlib.suppress(InputError, HydraException, OmegaConfBaseException):
        compose(*overrides)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    out = tmp_path_factory.mktemp("tree")
    make_report(out, seeds=1)
    return out


@quick
@given(
    st.sampled_from(["ls", "show", "diff", "collect", "tables", "curves", "claims"]),
    st.lists(
        words | st.sampled_from(["--sort", "--columns", "--limit", "lr<1", "activ=relu", "--rows", "activ"]), max_size=3
    ),
)
def test_any_command_line_of_sweeps(tree, command, given_words):
    parent = {path.name for path in tree.parent.iterdir()}
    try:
        assert main([command, "--out", str(tree), *[word for word in given_words if not word.startswith("--o")]]) in (
            0,
            1,
            2,
        )
    except SystemExit as end:  # argparse
        assert end.code in (0, 2)
    assert {path.name for path in tree.parent.iterdir()} == parent


report_flags = {
    "--activ": ["relu", "gelu", "swish"],
    "--loss": ["cross_entropy", "enclidean", "ce"],
    "--nlayer": ["1", "2", "3"],
    "--lr": ["0.1", "1e400", "nan", "-1"],
    "--wd": ["0", "1e-3", "-inf"],
    "--mo": ["0.9", "1", "1_0"],
    "--bsz": ["7", "0", str(10**30)],
}
hydra_s = ["--multirun", "--cfg", "job", "--info", "--resolve", "--config-name", "--version", "lr=0.1,0.2", "~lr"]
no_text = st.binary(min_size=1, max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"\xff")))
flag_and_value = st.sampled_from(sorted(report_flags)).flatmap(
    lambda flag: st.tuples(st.just(flag), st.sampled_from(report_flags[flag]) | words)
)
report_lines = st.builds(
    lambda flags, between, rest: [*(word for pair in flags for word in pair), *between, *rest],
    st.lists(flag_and_value, max_size=3),
    st.sampled_from([[], [], ["--"], ["--help"]]),
    st.lists(st.builds("{}={}".format, keys, words) | no_text | st.sampled_from(hydra_s), max_size=2),
)


def test_any_words_for_the_report_s_script(small_npz, tmp_path):
    """In a process of its own each: an error is one screen, and a file is under ``out``."""
    ours = ["data=npz", f"data.path={small_npz}", "model.hidden=[4]", "epochs=1", "threads=1", "out=out"]

    @settings(parent=quick, max_examples=40)
    @given(report_lines)
    def check(given_words):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            done = subprocess.run(
                [sys.executable, ROOT / "scripts" / "run_mlp.py", *given_words, *ours],
                cwd=folder, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode in (0, 1, 2), (given_words, done.stderr)
            assert "raceback" not in done.stdout + done.stderr, (given_words, done.stderr)  # nor how to see one
            assert done.returncode == 0 or 0 < len(done.stderr.splitlines()) < 25, (given_words, done.stderr)
            assert {path.name for path in Path(folder).iterdir()} <= {"out"}, given_words
        assert not list(tmp_path.iterdir())

    check()
