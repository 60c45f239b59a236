"""How close our curves are to a reference's, and whether the reference could be one more of our seeds.

    by_line      a study and its runs → one row per line of the reference, the farthest from ours first
    by_figure    that → one row per figure
    write        both, as Markdown and CSV

A line is compared at the epochs that both have. Where a reference tested before each epoch, its point at epoch e is of
the network after e epochs, as ours is; that of the untrained network is left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.read.collect import Collection
from sweeps.runs.files import write_atomic
from sweeps.study import reference
from sweeps.study.hypotheses import Settings, is_written
from sweeps.study.select import select
from sweeps.study.study import Study

LINE = ["figure", "cell", "metric"]


def by_line(study: Study, collection: Collection) -> pd.DataFrame:
    """One row per line of the study's reference, the farthest from ours first; lines without runs of ours last.

    Returns:
        Columns ``LINE`` and

        - ``seeds``, ``points``: runs, and epochs compared
        - ``difference``: mean of theirs − our mean curve, in the metric's unit
        - ``mean``, ``largest``, ``at``: distance from our mean curve, its mean, its largest and the epoch of that
        - ``relative_mean``, ``relative_largest``: of metrics on a logarithmic scale, of our mean, in percent
        - ``inside``, ``expected``: share of the points between our lowest and highest seed, and that of one more seed
          of ours, (n − 1) / (n + 1), which only assumes that seeds are exchangeable; points of one line are not
          independent, so that shares of single lines scatter widely
        - ``ratio``: root mean square of the distance, of that expected of one more seed by our seeds' variance (1 is
          what is expected; missing for one seed)
    """
    theirs = reference.curves(study)
    keys = [column for column in theirs.columns if column not in reference.POINTS]
    rows = []
    for _, points in theirs.groupby("line"):
        first = points.iloc[0]
        settings = {key: _typed(study, key, first[key]) for key in keys if first[key] != ""}
        line = {"figure": first["figure"], "cell": study.label(settings), "metric": first["metric"]}
        rows.append(line | _distances(study, collection, settings, first["metric"], points))
    table = pd.DataFrame(rows, columns=[*LINE, *_NUMBERS]).astype({"seeds": "int64", "points": "int64", "at": "Int64"})
    return table.sort_values(["ratio", "mean"], ascending=False, ignore_index=True, na_position="last")


_NUMBERS = (
    "seeds", "points", "difference", "mean", "largest", "at", "relative_mean", "relative_largest", "inside",
    "expected", "ratio",
)  # fmt: skip


def _typed(study: Study, key: str, value: str) -> object:
    """A key's value as the study has it, from its text."""
    known = [*study.axis(key).values, study.baseline[key]]
    return next((item for item in known if is_written(item, value)), value)


def _distances(
    study: Study, collection: Collection, settings: Settings, metric: str, points: pd.DataFrame
) -> dict[str, float]:
    runs = select(study, collection.runs, settings)["run"]
    if metric not in collection.epochs:
        return {"seeds": 0, "points": 0}
    epochs = collection.epochs[collection.epochs["run"].isin(runs)]
    ours = epochs.pivot_table(metric, "epoch", "run", observed=True)  # (epochs, seeds)
    found = points.set_index("epoch")["value"]
    found = found[found.index.isin(ours.index)]
    if found.empty:
        return {"seeds": 0, "points": 0}
    values = ours.loc[found.index].to_numpy(float)
    n = int(np.isfinite(values).sum(axis=1).min())
    mean, theirs = np.nanmean(values, axis=1), found.to_numpy(float)
    difference = theirs - mean
    distance, reading = np.abs(difference), _reading(study, metric)
    inside = (theirs >= np.nanmin(values, axis=1) - reading) & (theirs <= np.nanmax(values, axis=1) + reading)
    relative = 100 * distance / mean if study.metric(metric).scale == "log" else np.full(len(mean), np.nan)
    spread = np.nanvar(values, axis=1, ddof=1) * (1 + 1 / n) if n > 1 else np.full(len(mean), np.nan)
    return {
        "seeds": n,
        "points": len(theirs),
        "difference": difference.mean(),
        "mean": distance.mean(),
        "largest": distance.max(),
        "at": int(found.index[int(distance.argmax())]),
        "relative_mean": relative.mean(),
        "relative_largest": relative.max(),
        "inside": inside.mean(),
        "expected": (n - 1) / (n + 1),
        "ratio": np.sqrt((difference**2).mean() / spread.mean()),
    }


def _reading(study: Study, metric: str) -> float:
    """How far two readings of one point of the reference may differ: a point this near is not outside."""
    return study.reference.reading.get(metric, 0.0) if study.reference else 0.0


def by_figure(lines: pd.DataFrame) -> pd.DataFrame:
    """One row per figure, in order, of those of its lines that have runs.

    Args:
        lines: as :func:`by_line` gives it.

    Returns:
        Columns figure, ``lines`` (how many), ``seeds`` (the fewest of a line), means over the lines of ``mean``,
        ``relative_mean``, ``inside`` and ``expected``, the largest of ``largest`` and ``relative_largest``, the root
        mean square of ``ratio``, and ``worst``, the line of the largest ratio (without one, of the largest mean).
    """
    known = lines[lines["seeds"] > 0]
    grouped = known.groupby("figure")
    first = grouped.head(1).set_index("figure")
    return pd.DataFrame(
        {
            "lines": grouped.size(),
            "seeds": grouped["seeds"].min(),
            **{name: grouped[name].mean() for name in ("mean", "relative_mean")},
            **{name: grouped[name].max() for name in ("largest", "relative_largest")},
            **{name: grouped[name].mean() for name in ("inside", "expected")},
            "ratio": np.sqrt((known["ratio"] ** 2).groupby(known["figure"]).mean()),
            "worst": first["cell"] + " " + first["metric"],
        }
    ).reset_index()


def write(study: Study, collection: Collection, folder: Path) -> list[Path]:
    """``fidelity.md`` and ``fidelity.csv`` in a folder, and their paths."""
    lines = by_line(study, collection)
    paths = [folder / "fidelity.md", folder / "fidelity.csv"]
    write_atomic(paths[0], "\n".join(_markdown(study, lines)).encode() + b"\n")
    write_atomic(paths[1], lines.to_csv(index=False, float_format="%.6g").encode())
    return paths


def _markdown(study: Study, lines: pd.DataFrame) -> Iterator[str]:
    name = study.reference.name if study.reference else "reference"
    known = lines[lines["seeds"] > 0]
    yield f"# Our curves and those of the {name}"
    yield ""
    yield f"{len(known)} of the {name}'s {len(lines)} lines have runs of ours. Accuracies are in points. Distances are"
    yield "from the mean of our seeds; *inside* is the share of points between our lowest and highest seed, *expected*"
    yield "that of one more seed of ours; *ratio* is the root mean square of the distance, of that expected of one more"
    yield "seed."
    for title, table in (("By figure", by_figure(lines)), ("By line", known.drop(columns=["difference", "points"]))):
        yield from ("", f"## {title}", "", f"| {' | '.join(table.columns)} |", "| --- " * len(table.columns) + "|")
        for row in table.itertuples(index=False):
            yield f"| {' | '.join(map(_shown, row))} |"


def _shown(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
