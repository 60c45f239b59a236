import pandas as pd
import pytest

from sweeps.read.filters import apply, parse
from sweeps.runs import conditions
from sweeps.runs.errors import InputError

TABLE = pd.DataFrame(
    {
        "activ": ["relu", "gelu", "tanh", "gelu"],
        "lr": [0.1, 0.01, 0.001, float("nan")],
        "seed": [0, 1, 2, 3],
        "error": pd.Series([None, "out of memory", None, None], dtype="str"),
    }
)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], [0, 1, 2, 3]),
        (["activ=gelu"], [1, 3]),
        (["activ=relu,tanh"], [0, 2]),
        (["activ!=gelu"], [0, 2]),
        (["activ!=gelu,relu"], [2]),
        (["lr=0.01"], [1]),
        (["lr=1e-2,0.10"], [0, 1]),
        (["lr<0.01"], [2]),
        (["lr<=0.01"], [1, 2]),
        (["lr>0.01"], [0]),
        (["lr>=0.01"], [0, 1]),
        (["lr!=0.1"], [1, 2, 3]),
        (["seed=2.0"], [2]),
        (["activ=gelu", "seed<3"], [1]),
        (["activ=gelu seed<3"], [1]),
        (["error='out of memory'"], [1]),
        (["activ=none"], []),
    ],
)
def test_keeps_the_rows_that_fulfil_all(words, rows):
    assert list(apply(TABLE, parse(words)).index) == rows


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("actv=gelu", "did you mean activ"),
        ("activ<gelu", "is a text"),
        ("lr=fast", "must be a number"),
        ("lr<0.1,0.2", "takes one value"),
        ("gelu", "must be KEY=VALUE"),
        ("=gelu", "must be KEY=VALUE"),
        ("lr==", "must be KEY=VALUE"),
        ("activ='gelu", "cannot be read"),
        ("activ=gelu\udcc8", "cannot be read"),  # found by fuzzing: a byte on the command line that is no text
    ],
)
def test_says_what_is_wrong_with_a_filter(word, message):
    with pytest.raises(InputError, match=message):
        apply(TABLE, parse([word]))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("lr >= 0.01 and activ != 'gelu'", "lr>=0.01 activ!=gelu"),
        ("activ in ['relu', 'gelu']", "activ=relu,gelu"),
        ("lr==0.1", "lr=0.1"),
        ("not (activ == 'relu')", "activ!=relu"),
    ],
)
def test_an_expression_is_a_filter_too(text, same):
    table = pd.DataFrame({"activ": ["relu", "gelu", "tanh"] * 2, "lr": [0.1, 0.01, 0.001] * 2})
    found = apply(table, parse([text]))
    assert list(found.index) == list(apply(table, parse([same])).index) != []
    rows = [row for row in table.to_dict("records") if all(conditions.holds(word, row) for word in same.split())]
    assert len(rows) == len(found)


def test_an_expression_about_no_column_is_an_error():
    with pytest.raises(InputError, match="no such column"):
        apply(pd.DataFrame({"lr": [0.1]}), parse(["rl == 0.1 or lr == 0.1"]))
