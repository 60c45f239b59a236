"""Grids become the right points, in the right order, or a clear error."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.launch.grid import Grids, value_of
from sweeps.launch.plan import sparing
from sweeps.runs import conditions as where
from sweeps.runs.errors import InputError


def points(grids, *arguments):
    return [" ".join(overrides) for overrides, _ in Grids(OverridesParser.create(), grids).points(arguments)]


def test_without_a_grid_the_command_line_is_the_grid():
    assert points(None, "lr=0.1,0.01", "mo=0,0.9", "epochs=3") == [
        f"lr={lr} mo={mo} epochs=3" for lr, mo in itertools.product(("0.1", "0.01"), ("0", "0.9"))
    ]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("lr=choice(0.1,0.2)", ["lr=0.1", "lr=0.2"]),
        ("seed=range(0,3)", ["seed=0", "seed=1", "seed=2"]),
        ("lr=sort(3,1,2)", ["lr=1", "lr=2", "lr=3"]),
        ("model.hidden=[16],[8,8]", ["model.hidden=[16]", "model.hidden=[8,8]"]),
        ("out='a,b'", ["out='a,b'"]),
    ],
)
def test_hydra_s_own_syntax(word, values):
    assert points(None, word) == values


def test_a_list_of_grids_is_their_union_and_a_mapping_too():
    grids = [{"lr": [0.1, 0.01]}, {"wd": "0,0.1", "mo": 0.5}]
    expected = ["lr=0.1", "lr=0.01", "wd=0 mo=0.5", "wd=0.1 mo=0.5"]
    assert points(grids) == expected
    assert points({"a": grids[0], "b": grids[1]}) == expected


def test_zipped_keys_vary_together():
    grid = {"activ": ["relu", "tanh"], "zip": {"model": ["mlp1", "mlp2"], "epochs": [3, 6]}}
    assert points([grid]) == [
        "activ=relu model=mlp1 epochs=3",
        "activ=relu model=mlp2 epochs=6",
        "activ=tanh model=mlp1 epochs=3",
        "activ=tanh model=mlp2 epochs=6",
    ]


def test_seeds_are_outermost_over_all_grids():
    assert points([{"lr": [1, 2]}, {"wd": [3]}], "seed=0,1") == [
        "lr=1 seed=0", "lr=2 seed=0", "wd=3 seed=0", "lr=1 seed=1", "lr=2 seed=1", "wd=3 seed=1",
    ]  # fmt: skip


def test_the_command_line_wins_over_the_grid():
    assert points([{"lr": [1, 2], "mo": [0]}, {"lr": [3]}], "lr=7") == ["lr=7 mo=0", "lr=7"]
    assert points([{"zip": {"lr": [1, 2], "mo": [3, 4]}}], "lr=7") == ["lr=7 mo=3", "lr=7 mo=4"]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ("lr", "must be a list of grids"),
        ([3], "must be a mapping of keys to values"),
        ([{"lr": []}], "must have at least one value"),
        ([{"zip": {"lr": [1, 2], "mo": [3]}}], "must have lists of one length"),
        ([{"zip": {"lr": [1, 2]}}], "must be a mapping of two keys or more"),
        ([{"lr": "interval(0,1)"}], "continuous range"),
        ([{"lr": 1, "zip": 0.1}], r"grids\[1\].zip=0.1: must be a mapping"),  # found by fuzzing
    ],
)
def test_a_grid_that_is_none_is_named(grids, message):
    with pytest.raises(InputError, match=message):
        points(grids)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
@example("0E0")
def test_a_yaml_value_survives_hydra_s_grammar(value):
    """Except for a text that the grammar reads as a number or null: 1e-3 is a text in YAML."""
    text = value_of(value)
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
    except Exception:
        assert "\\" in text or "\x00" in text or not text.isprintable()  # what the grammar cannot say at all
        return
    if isinstance(value, str) and not override.is_sweep_override():
        read = override.value()
        assert read is None or str(read).lower().strip() == value.lower().strip() or read == float(value)
    elif not isinstance(value, (str, list)):
        assert override.value() == value


POINT = {"lr": 0.1, "activ": "relu", "model": "mlp1", "data.holdout": 0, "hidden": [360]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("lr < 0.2", True),
        ("lr <= 0.01 or activ == 'relu'", True),
        ("lr <= 0.01 and activ == 'relu'", False),
        ("not lr > 0.05", False),
        ("activ in ['relu', 'gelu']", True),
        ("activ not in ('relu', 'gelu')", False),
        ("0.01 < lr < 0.2", True),
        ("data.holdout == 0", True),
        ("lr * 10 - 1 == 0", True),
        ("model != 'mlp2'", True),
    ],
)
def test_conditions(condition, expected):
    assert where.holds(condition, POINT) is expected


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os')", "lr.__class__", "(lambda: 1)()", "[x for x in 'a']", "lr if lr else 1", "'a' * 10**9",
        "2 ** 99", "open", "lr ==", "", "model == mlp1", "lr < 'a'", "1 / 0", "f'{lr}'", "hidden[0]", "a" * 2000,
        "(" * 500 + ")" * 500,
    ],
)  # fmt: skip
def test_a_condition_can_do_nothing_but_compare(condition):
    with pytest.raises(InputError, match="where=") as refused:
        where.holds(condition, POINT)
    assert len(str(refused.value)) < 1000  # one screen


NUMBERS = ["0", "17", "-3", "-0", "0.5", "-0.25", "1e5", "1e-05", "2.5e3", "2.5E3", "1234567890123456789", "1_000"]
OTHERS = ["01", "+1", "1.", ".5", "1e400", "1e-400", "inf", "null", "x", "'1'", "[1]", "${a}"]


@pytest.mark.parametrize("value", NUMBERS + OTHERS)
def test_a_point_is_read_as_hydra_reads_it(value):
    parser = OverridesParser.create()
    parse = sparing(parser.parse_override)
    for key in ("lr", "+lr", "model.hidden.0", "a-b", "a@b"):
        text = f"{key}={value}"
        expected = parser.parse_override(text)
        read = parse(text)
        assert (repr(read), type(read.value())) == (repr(expected), type(expected.value()))


def test_of_a_thousand_seeds_one_is_parsed():
    asked = []
    parse = sparing(lambda text: asked.append(text) or OverridesParser.create().parse_override(text))
    assert [parse(f"seed={seed}").value() for seed in range(1000)] == list(range(1000))
    assert len(asked) == 1
