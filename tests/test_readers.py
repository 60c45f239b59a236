"""What fuzzing found (scripts/fuzz.py): any damaged file gets the reader's own error."""

import io
import json
import zipfile

import numpy as np
import pytest

from mlp import stats
from mlp.composition import compose
from mlp.data import load
from mlp.epochs import Epoch
from mlp.formats import blame, read_npz
from mlp.stats import LayerStats
from mlp.trainer import Trainer
from mlp.training import state as state_of
from sweeps.launch.manifest import Manifest
from sweeps.runs import checkpoint, state
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.metrics import Row

NESTED = b"[" * 100_000
GARBLED = [
    b"{'a':\n",  # numpy raises tokenize.TokenError
    b"  1\n 2\n",  # IndentationError
    b"{'a': 1, b'b': 2}\n",  # TypeError
    b"{'descr': (), 'fortran_order': False, 'shape': ()}\n",  # IndexError
]


def npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def replaced(path, name, member):
    """The archive's bytes with another member, its checksum right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for file in old.namelist():
            new.writestr(file, member if file == f"{name}.npy" else old.read(file))
    return buffer.getvalue()


def resealed(archive, run):
    """As one who forges a checkpoint would: with the checksum of what is in it now."""
    return checkpoint._seal(archive, run.path.name)


def array(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        *map(npy, GARBLED),
        array(np.full((1, 9), np.inf)),
        array(np.ones(9)),
        array(np.float64(1)),
        array(np.ones((1, 2))),
    ],
)
def test_a_checkpoint_with_a_wrong_history_is_damaged(small, tmp_path, member):
    config = compose(*small)
    trainer = Trainer(config, load(config.data.name, config.data.options))
    run = RunDir(tmp_path)
    tree = state.capture(state_of(trainer.network, trainer.optimizer))
    checkpoint.save(run, tree, [Row(Epoch(1, *[0.5] * 8)._asdict())])
    assert len(checkpoint.load(run.checkpoint)[1]) == 1
    run.checkpoint.write_bytes(resealed(replaced(run.checkpoint, "history", member), run))
    with pytest.raises(DamagedRun, match="damaged checkpoint") as error:
        checkpoint.load(run.checkpoint)
    assert "seal" not in str(error.value)
    assert "SHA-256" not in str(error.value)


@pytest.mark.parametrize("header", GARBLED)
def test_a_garbled_header_in_the_user_s_data_is_named(small_npz, tmp_path, header):
    path = tmp_path / "mine.npz"
    path.write_bytes(replaced(small_npz, "x_train", npy(header)))
    with pytest.raises(InputError, match=r"^data\.path="), blame("data.path", "mine.npz"):
        read_npz(path)


def test_a_nested_status_is_damaged(tmp_path):
    run = RunDir(tmp_path)
    run.status.write_bytes(NESTED)
    with pytest.raises(DamagedRun, match=r"status\.json"):
        run.read_status()


def test_stats_of_layer_0_are_damaged(tmp_path):
    run = RunDir(tmp_path)
    stats.write(run, [LayerStats(1, 0, *[0.5] * 7)])
    with pytest.raises(DamagedRun, match=r"stats\.csv"):
        stats.read(run)


@pytest.mark.parametrize("content", [NESTED, b'{"sessions": 5}'])
def test_an_unreadable_provenance_is_restarted(tmp_path, content):
    run = RunDir(tmp_path)
    run.provenance.write_bytes(content)
    run.add_provenance({"python": "3"})
    assert json.loads(run.provenance.read_bytes()) == {"sessions": [{"python": "3"}]}


@pytest.mark.parametrize("content", [NESTED, b'{"runs": [{"run_id": ["a"], "epochs": 3}]}'])
def test_an_unreadable_manifest_is_set_aside(tmp_path, content):
    manifest = Manifest(tmp_path, "s")
    manifest.folder.mkdir(parents=True)
    manifest.path.write_bytes(content)
    manifest.add([], ["command"])
    assert json.loads(manifest.path.read_bytes())["runs"] == []
    assert manifest.path.with_suffix(".damaged").read_bytes() == content
