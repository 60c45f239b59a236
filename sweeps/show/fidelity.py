"""How near our curves are to the lines of the report's figures 1–8, and whether its one run could be one of our seeds.

    read_curves    conf/study/report/curves.csv → one row per point
    of_lines       Collection → the epochs of the runs behind each line
    by_line        both → one row per line, the farthest from ours first
    by_figure      that → one row per figure

Epochs are counted as epochs that are complete. The report tested before each epoch, so that its first test is of the
untrained network (epoch 0, which we do not measure, and leave out) and its last of the network after 99 epochs; its
train lines are means over the epoch's batches, which are our running means (``eval_train=running``).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.read import summary
from sweeps.read.collect import Collection

CELL = ["varied", "value", "model"]
"""What tells the networks behind the lines apart: ``lr``, ``0.01``, ``mlp1``."""
LINE = ["figure", *CELL, "metric"]
MODELS: Mapping[str, str] = {"mlp1": "360", "mlp2": "512x256"}
METRICS = ["train_loss", "train_acc", "valid_loss", "valid_acc"]
READING = {"loss": 2e-5, "acc": 1e-3}
"""How far two readings of one curve from two of the report's figures differ: a point this near is not outside."""


def read_curves(path: Path) -> pd.DataFrame:
    """The report's points: columns ``LINE`` (``figure`` whole numbers, else texts), ``epoch`` and ``y``.

    Losses as they are, accuracies in percent.
    """
    wide = pd.read_csv(path, dtype=dict.fromkeys([*CELL, "metric"], "str"), keep_default_na=False, na_values=[""])
    long = wide.melt(LINE, var_name="epoch", value_name="y").dropna(subset="y").astype({"epoch": "int64"})
    return long.sort_values([*LINE, "epoch"], ignore_index=True)


def of_lines(collection: Collection, theirs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the runs at the report's settings, for every cell of ``theirs``.

    Returns:
        Columns ``CELL``, run, epoch and ``METRICS``; a run that is part of several cells is there several times.
    """
    networks = summary.of_networks(collection)
    epochs = networks.epochs[["run", "epoch", *METRICS]]
    parts = []
    for varied, value, model in theirs[CELL].drop_duplicates().itertuples(index=False):
        setting = type(summary.BASE[varied])(value)  # of lr a number, of activ a text
        runs = summary.at(networks.runs, **{"model": MODELS[model], varied: setting})
        chosen = epochs[epochs["run"].isin(runs["run"])]
        parts.append(chosen.assign(varied=varied, value=value, model=model))
    return pd.concat(parts, ignore_index=True)[[*CELL, "run", "epoch", *METRICS]]


def by_line(theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """One row per line of ``theirs``, the farthest from ours first; lines that have no runs of ours last.

    Args:
        theirs: as :func:`read_curves` gives it.
        ours: as :func:`of_lines` gives it; each run is one seed.

    Returns:
        Columns ``LINE`` and

        - ``seeds``, ``points``: runs, and epochs compared
        - ``difference``: mean of theirs − our mean curve; losses as they are, accuracies in percent points
        - ``mean``, ``largest``, ``at``: distance from our mean curve, its mean, its largest and the epoch of that
        - ``relative_mean``, ``relative_largest``: of losses alone, of our mean, in percent
        - ``inside``, ``expected``: share of the points between our lowest and highest seed, and that of one more seed
          of ours, (n − 1) / (n + 1), which only assumes that seeds are exchangeable; points of one line are not
          independent, so that shares of single lines scatter widely
        - ``ratio``: root mean square of the distance, of that expected of one more seed by our seeds' variance (1 is
          what is expected; missing for one seed)
    """
    long = ours.melt([*CELL, "run", "epoch"], METRICS, "metric", "value_of_ours").dropna(subset="value_of_ours")
    keys = [*CELL, "metric", "epoch"]
    mine = long.groupby(keys)["value_of_ours"].agg(["mean", "std", "min", "max", "count"]).reset_index()
    points = theirs.merge(mine, on=keys)
    is_loss = points["metric"].str.endswith("loss").astype(bool)
    reading = np.where(is_loss, READING["loss"], READING["acc"])
    n, difference = points["count"], points["y"] - points["mean"]
    points = points.assign(
        difference=difference,
        distance=difference.abs(),
        relative=(100 * difference / points["mean"]).abs().where(is_loss),
        square=difference**2,
        variance=points["std"] ** 2 * (1 + 1 / n),
        inside=(points["y"] >= points["min"] - reading) & (points["y"] <= points["max"] + reading),
        expected=(n - 1) / (n + 1),
    )
    grouped = points.groupby(LINE)
    farthest = points.loc[grouped["distance"].idxmax()].set_index(LINE)["epoch"]
    table = pd.DataFrame(
        {
            "seeds": grouped["count"].min(),
            "points": grouped.size(),
            "difference": grouped["difference"].mean(),
            "mean": grouped["distance"].mean(),
            "largest": grouped["distance"].max(),
            "at": farthest,
            "relative_mean": grouped["relative"].mean(),
            "relative_largest": grouped["relative"].max(),
            "inside": grouped["inside"].mean(),
            "expected": grouped["expected"].mean(),
            "ratio": np.sqrt(grouped["square"].mean() / grouped["variance"].mean()),
        }
    )
    table = theirs[LINE].drop_duplicates().merge(table.reset_index(), on=LINE, how="left")
    table = table.fillna({"seeds": 0, "points": 0}).astype({"seeds": "int64", "points": "int64", "at": "Int64"})
    return table.sort_values(["ratio", "mean"], ascending=False, ignore_index=True, na_position="last")


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
            "worst": first["model"] + " " + first["varied"] + "=" + first["value"] + " " + first["metric"],
        }
    ).reset_index()
