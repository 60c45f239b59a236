"""The measurement for claims about time: the real one, small; and files that are not its own."""

import json
import math

import pytest
from threadpoolctl import threadpool_info

from mlp.timing import measure
from sweeps.judge import timing
from sweeps.runs.errors import InputError

NETS = {f"relu-ce-{model}": (f"model={group}",) for model, group in (("360", "mlp1"), ("512x256", "mlp2"))} | {
    "gelu-ce-360": ("activ=gelu",)
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    assert measure(out, NETS, rounds=2, steps=5) == timing.path(out)
    return out


def test_measures_every_net_in_each_round(measured):
    found = timing.load(measured)
    assert found is not None
    assert list(found.seconds) == list(NETS)
    for values in found.seconds.values():
        assert len(values) == 2
        assert all(0 < value < math.inf for value in values)


def test_tells_its_conditions(measured):
    found = timing.load(measured)
    assert found is not None
    assert found.conditions["threads"] == 1
    assert 0 < found.conditions["cpu_share"] < math.inf
    assert "2 rounds of 5 steps, one process, one thread" in found.describe()


def test_gives_the_threads_back(tmp_path):
    before = [pool["num_threads"] for pool in threadpool_info()]
    measure(tmp_path, NETS, rounds=2, steps=5)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_nothing_measured_is_none(tmp_path):
    assert timing.load(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"{",
        lambda content: b"[]",
        lambda content: json.dumps({**content, "conditions": {}}).encode(),
        lambda content: json.dumps({**content, "nets": {"a": {"seconds": [1, 2]}, "b": {"seconds": [1]}}}).encode(),
        lambda content: json.dumps({**content, "nets": {"a": {"seconds": [1, 0]}}}).encode(),
        lambda content: json.dumps({**content, "nets": {"a": {"seconds": [1, float("nan")]}}}).encode(),
    ],
)
def test_a_damaged_file_is_refused(measured, tmp_path, damage):
    content = json.loads(timing.path(measured).read_bytes())
    timing.path(tmp_path).write_bytes(damage(content))
    with pytest.raises(InputError, match=r"timing=.*is damaged .*mlp-sweeps timing"):
        timing.load(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("rounds", 1), ("steps", 4), ("rounds", 2.5)])
def test_too_few_to_say_anything_is_refused(tmp_path, field, value):
    with pytest.raises(InputError, match=f"{field}={value}"):
        measure(tmp_path, NETS, **{field: value})
    assert timing.load(tmp_path) is None


def test_an_unusable_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="must be a directory"):
        measure(tmp_path / "file", NETS)
