"""The curves of a study's reference: a CSV file with columns for keys, then metric, epoch and value.

A row is a point of the cell that its keys name; an empty field is the baseline's value. ``epoch`` counts the epochs
that are complete, so that 0 is before the first.
"""

import pandas as pd

from sweeps.runs.errors import InputError
from sweeps.study.file import Study
from sweeps.study.hypotheses import Settings
from sweeps.study.select import equals

_COLUMNS = ("metric", "epoch", "value")


def curves(study: Study) -> pd.DataFrame:
    """Every point of the reference's curves; no rows if the study has none.

    Raises:
        InputError: the file is not such a table.
    """
    path = study.reference and study.reference.curves
    if not path:
        return pd.DataFrame(columns=list(_COLUMNS))
    field = f"reference.curves ({path.name})"
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise InputError(field, path.name, f"cannot be read: {reason}") from None
    for column in _COLUMNS:
        if column not in table:
            raise InputError(field, ",".join(table.columns), f"has no column {column}")
    for key in table.columns:
        if key in ("epoch", "value"):
            numbers = pd.to_numeric(table[key], errors="coerce")
            if numbers.isna().any():
                raise InputError(f"{field}: {key}", table[key][numbers.isna()].iloc[0], "must be a number")
            table[key] = numbers
        elif key != "metric":
            if key not in study.baseline:
                raise InputError(field, key, f"must be a key of the baseline; they are {', '.join(study.baseline)}")
            base = study.baseline[key]
            table[key] = table[key].where(table[key] != "", "" if base is None else str(base))
    return table


def curve(study: Study, points: pd.DataFrame, settings: Settings, metric: str) -> pd.DataFrame:
    """Epoch and value of a cell's curve, ascending; no rows if the reference has none.

    Args:
        points: of :func:`curves`.
    """
    found = points[points["metric"] == metric]
    for key, value in study.complete(settings).items():
        if key in found and key not in _COLUMNS:
            found = found[equals(found[key], value)]
    return found[["epoch", "value"]].astype(float).drop_duplicates("epoch").sort_values("epoch")
