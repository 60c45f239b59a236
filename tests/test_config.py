"""The configuration: YAML and registries agree, every bad value is named, and the identity is what it should be."""

from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlp.activations import ACTIVATIONS
from mlp.composition import CONF, compose
from mlp.config import RunConfig
from mlp.datasets import DATASETS
from mlp.losses import LOSSES
from mlp.optim import OPTIMIZERS
from sweeps.runs.errors import InputError
from sweeps.runs.identity import digest

GROUPS = {"activ": ACTIVATIONS, "loss": LOSSES, "optim": OPTIMIZERS, "data": DATASETS}


@pytest.mark.parametrize("group", GROUPS)
def test_yaml_stems_are_the_registry_s_keys(group):
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / group).glob("*.yaml")}
    assert set(files) == set(GROUPS[group])
    for stem, content in files.items():
        assert content["name"] == stem
        assert set(content) == {"name", *GROUPS[group][stem].options}


@pytest.mark.parametrize(
    ("group", "name"), [(g, name) for g in GROUPS if g != "data" for name in GROUPS[g]], ids=lambda x: x
)
def test_every_entry_composes(group, name):
    assert getattr(compose(f"{group}={name}"), group).name == name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=-1", "lr=-1: must be a number > 0"),
        ("lr=0", "lr=0: must be a number > 0"),
        ("lr=nan", "lr=nan: must be a number > 0"),
        ("lr=abc", "lr=abc: must be a number > 0"),
        ("lr=true", "lr=True: must be a number > 0"),
        ("wd=-0.1", "wd=-0.1: must be a number ≥ 0"),
        ("mo=1.5", "mo=1.5: must be a number ≥ 0 and < 1"),
        ("mo=1", "mo=1: must be a number ≥ 0 and < 1"),
        ("bsz=0", "bsz=0: must be a whole number ≥ 1"),
        ("bsz=1.5", "bsz=1.5: must be a whole number ≥ 1"),
        ("epochs=0", "epochs=0: must be a whole number ≥ 1"),
        ("seed=-1", "seed=-1: must be a whole number ≥ 0"),
        ("model.hidden=[]", "model.hidden=[]: must be a list of 1 to 100 layer widths"),
        ("model.hidden=360", "model.hidden=360: must be a list"),
        ("model.hidden=[3,0]", "model.hidden[1]=0: must be a whole number ≥ 1"),
        ("dtype=int8", "dtype=int8: must be one of float32, float64"),
        ("dtype=flaot32", "did you mean float32?"),
        ("activ.name=gellu", "activ=gellu: must be one of relu, sigmoid, gelu, tanh (did you mean gelu?)"),
        ("activ.name=gelu", "activ.approximate=???: is missing"),
        ("+activ.foo=1", "activ.foo=1: no such field"),
        ("+lrr=1", "lrr=1: no such field; known: model"),
        ("data.holdout=-1", "data.holdout=-1: must be a whole number ≥ 0"),
        ("out=''", "out=: must be a text"),
        ("threads=0", "threads=0: must be a whole number ≥ 1"),
        ("stats=1", "stats=1: must be true or false"),
        ("tracker.name=mflow", "tracker=mflow: must be one of none, mlflow, tensorboard, wandb (did you mean mlflow?)"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(override, message):
    with pytest.raises(InputError) as caught:
        compose(override)
    assert message in str(caught.value)


def test_the_identity_leaves_out_what_changes_no_trajectory():
    base = compose()
    same = [compose("epochs=3"), compose("out=/elsewhere"), compose("threads=1"), compose("checkpoint_every=5")]
    same += [compose("stats=true")]
    assert {config.run_id for config in same} == {base.run_id}
    assert compose("data.holdout_seed=7").run_id == base.run_id  # nothing is held out


@pytest.mark.parametrize(
    "override",
    ["lr=0.02", "wd=0", "mo=0", "bsz=100", "seed=1", "dtype=float64", "eval_train=full", "model.hidden=[361]",
     "model.init_std=0.02", "activ=tanh", "loss=hinge", "optim=nesterov", "data.holdout=5"],
)  # fmt: skip
def test_the_identity_has_what_decides_the_trajectory(override):
    assert compose(override).run_id != compose().run_id


def test_equal_values_are_one_identity_however_written():
    assert compose("lr=1e-2").run_id == compose("lr=0.01").run_id == compose("lr=0.0100").run_id
    assert compose("wd=0").run_id == compose("wd=0.0").run_id == compose("wd=-0.0").run_id
    assert compose("model=mlp2", "model.hidden=[360]").run_id == compose().run_id


def test_run_ids_stay_what_they_were():
    """A change here orphans every result that users have; raise it with them first."""
    assert compose().run_id == "relu-ce-360-b89f8a861f"
    assert compose("activ=gelu", "model=mlp2").run_id.startswith("gelu-ce-512x256-")


def test_the_name_of_a_deep_network_stays_a_file_name():
    run_id = compose("model.hidden=[" + ",".join(["1000"] * 100) + "]").run_id
    assert run_id.startswith("relu-ce-100layers-")
    assert len(run_id) < 64


def test_an_npz_is_its_content_and_not_its_path(small_npz, tmp_path):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(small_npz.read_bytes())
    changed = tmp_path / "changed.npz"
    with np.load(small_npz) as arrays:
        np.savez(changed, **{**arrays, "x_test": arrays["x_test"] + 1})
    ids = [compose("data=npz", f"data.path={path}").run_id for path in (small_npz, moved, changed)]
    assert ids[0] == ids[1] != ids[2]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON, max_size=4))
def test_the_digest_does_not_depend_on_order(identity):
    assert digest(identity) == digest(dict(reversed(identity.items())))


@given(st.dictionaries(st.sampled_from(["lr", "bsz", "model", "activ", "data", "seed", "x"]), _JSON))
def test_any_mapping_is_accepted_or_named_as_bad(changes):
    plain = {
        "model": {"hidden": [3], "init_std": 0.01},
        "activ": {"name": "relu"},
        "loss": {"name": "ce"},
        "optim": {"name": "sgd"},
        "data": {"name": "mnist", "holdout": 0, "holdout_seed": 0},
        "lr": 0.1, "wd": 0.0, "mo": 0.0, "bsz": 1, "seed": 0, "dtype": "float32", "eval_train": "running",
        "epochs": 1, "out": "o", "checkpoint_every": 1, "threads": None,
    }  # fmt: skip
    try:
        assert len(RunConfig.from_mapping(plain | changes).run_id) < 64
    except InputError as error:
        assert len(str(error)) < 1000


def test_bounds_read_well():
    messages = []
    for override in ("mo=1.5", "mo=-1"):
        with pytest.raises(InputError) as caught:
            compose(override)
        messages.append(caught.value.allowed)
    assert all(a == b for a, b in pairwise(messages))
