"""The curves of a study's reference: a CSV file with a line in each row.

Its columns are ``figure`` (may be left out), keys of the baseline, ``metric``, and epochs: 0, 1, 2, … An empty key is
the baseline's, an empty epoch has no value. Epochs count what is complete, so that 0 is before the first.
"""

import pandas as pd

from sweeps.runs.errors import InputError
from sweeps.study.hypotheses import Settings
from sweeps.study.select import equals
from sweeps.study.study import Study

POINTS = ("line", "figure", "metric", "epoch", "value")
"""Columns of :func:`curves` that are not keys of the baseline."""


def curves(study: Study) -> pd.DataFrame:
    """A row per point of the reference's curves, keys as texts and ``POINTS``; no rows if the study has none.

    ``line`` is the row of the file. An empty key is the baseline's.

    Raises:
        InputError: the file is not such a table.
    """
    path = study.reference and study.reference.curves
    if not path:
        return pd.DataFrame(columns=list(POINTS))
    field = f"reference.curves ({path.name})"
    try:
        wide = pd.read_csv(path, dtype="str", keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise InputError(field, path.name, f"cannot be read: {reason}") from None
    epochs = [column for column in wide.columns if column.isdecimal()]
    keys = [column for column in wide.columns if column not in epochs and column not in ("figure", "metric")]
    if "metric" not in wide or not epochs:
        raise InputError(field, ",".join(wide.columns), "must have the column metric, and epochs: 0, 1, 2, …")
    for key in keys:
        if key not in study.baseline:
            raise InputError(field, key, f"must be a key of the baseline; they are {', '.join(study.baseline)}")
    wide = wide.assign(figure=wide.get("figure", ""), line=range(len(wide)))
    long = wide.melt(["line", "figure", *keys, "metric"], epochs, "epoch", "value")
    long = long[long["value"] != ""]
    value = pd.to_numeric(long["value"], errors="coerce")
    if value.isna().any():
        raise InputError(field, long["value"][value.isna()].iloc[0], "must be a number")
    return long.assign(value=value, epoch=long["epoch"].astype("int64"))


def curve(study: Study, points: pd.DataFrame, settings: Settings, metric: str, figure: str = "") -> pd.DataFrame:
    """Epoch and value of a cell's curve, ascending; no rows if the reference has none.

    Args:
        points: of :func:`curves`.
        figure: whose line it is, where a cell has one in several.
    """
    found = points[points["metric"] == metric]
    for key, value in study.complete(settings).items():
        if key in found and key not in POINTS:
            is_base = bool(equals(pd.Series([study.baseline[key]]), value).all())
            found = found[equals(found[key], value) | ((found[key] == "").to_numpy() & is_base)]
    of_figure = found[found["figure"] == figure]
    found = of_figure if len(of_figure) else found
    return found[["epoch", "value"]].astype(float).drop_duplicates("epoch").sort_values("epoch")
