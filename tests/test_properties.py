"""Whatever the input: an answer or an error that names it. No traceback, no hang, no file outside of ``out``."""

import contextlib
import json
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import make_report

from mlp import data
from mlp.files import DamagedRun
from mlp.runs import RunDir
from mlp.schema import InputError
from mlp.session import train
from mlp.train import compose
from sweeps.cli import main
from sweeps.run.manifest import Manifest

pytestmark = pytest.mark.heavy  # a minute or two

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
