import pandas as pd
import pytest

from sweeps.read.filters import apply, parse
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
        ("lr==0.1", "must be KEY=VALUE"),
        ("activ='gelu", "cannot be read"),
        ("activ=gelu\udcc8", "cannot be read"),  # found by fuzzing: a byte on the command line that is no text
    ],
)
def test_says_what_is_wrong_with_a_filter(word, message):
    with pytest.raises(InputError, match=message):
        apply(TABLE, parse([word]))
