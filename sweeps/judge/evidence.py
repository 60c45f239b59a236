"""What a claim rests on: which nets, what is measured of each run, and the differences seed by seed.

Nothing is left out in silence. A run that is missing, unfinished or failed is an obstacle that the claim names, with
the command that removes it; a run that diverged counts as guessing (10 % accuracy) from there on, and is named too.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sweeps.judge.timing import COMMAND, Timing
from sweeps.judge.verdicts import Claim, Comparison
from sweeps.read.collect import Collection
from sweeps.read.summary import BASE, at, paired

EPOCHS = 100
"""The report's: what it says of trained nets is said of this epoch."""

_CHANCE = 10.0  # percent: a net whose parameters are NaN calls every image the same digit
_DEFAULT_SEEDS = (0, 1, 2)
_GROUPS = {"360": "mlp1", "512x256": "mlp2"}
_DEPTHS = {"360": "1L", "512x256": "2L"}
_NAMES = {"relu": "ReLU", "gelu": "GeLU", "ce": "CE"}


class Net:
    """A cell: the base point but for ``settings``, e.g. ``Net(activ="gelu", model="512x256")``."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Mapping[str, Any] = settings

    def __str__(self) -> str:
        named = [
            _NAMES.get(value, str(value).capitalize()) if key in ("activ", "loss") else f"{key} {value:g}"
            for key, value in self.settings.items()
            if key != "model"
        ]
        return " ".join([*named, _DEPTHS[self.settings["model"]]] if "model" in self.settings else named)

    @property
    def overrides(self) -> str:
        """As ``mlp.train`` takes them."""
        words = {**self.settings, "model": _GROUPS[self.settings.get("model", BASE["model"])]}
        return " ".join(f"{key}={value if isinstance(value, str) else f'{value:g}'}" for key, value in words.items())

    @property
    def timed(self) -> str:
        """Its key in :class:`sweeps.judge.timing.Timing`."""
        return "-".join(self.settings.get(key, BASE[key]) for key in ("activ", "loss", "model"))


@dataclass(frozen=True)
class Measure:
    """One number of a run, from its learning curve."""

    text: str
    unit: str
    needs: int
    """Epochs; later ones are not looked at, so that an extended run counts like the others."""
    of: Callable[[pd.DataFrame], float]
    """(needs,) epochs, with the columns of ``Collection.epochs`` → the number."""
    resolution: float = 0.0
    from_loss: bool = False
    """Whether it has no value for a run that diverged."""


def final_accuracy(last: int) -> Measure:
    """Mean test accuracy over the last epochs: the accuracy after training, with less of the epoch-to-epoch noise."""
    span = f"mean test accuracy over epochs {EPOCHS - last + 1}–{EPOCHS}"
    text = span if last > 1 else f"test accuracy at epoch {EPOCHS}"
    return Measure(text, "points", EPOCHS, lambda curve: float(curve["test_acc"].iloc[-last:].mean()), 0.01)


def best_accuracy() -> Measure:
    """Test accuracy at the epoch of the best validation accuracy: as the report seems to quote it."""
    return Measure(
        "best epoch's test accuracy",
        "points",
        EPOCHS,
        lambda curve: float(curve["test_acc"].iloc[int(curve["valid_acc"].to_numpy().argmax())]),
        0.01,
    )


def speed(epochs: int) -> Measure:
    """Area under the validation-accuracy curve over the first epochs, as the mean height.

    Accuracies can be compared between losses of different kinds, and an area exists for nets that never get far,
    where a number of epochs until some level would not.
    """
    text = f"mean valid accuracy over the first {epochs} epochs"
    return Measure(text, "points", epochs, lambda curve: float(curve["valid_acc"].mean()), 0.01)


def plateau() -> Measure:
    """Epochs until the validation loss is 5 % below ln 10, the cross entropy of guessing, between which it is
    interpolated; an untrained net stands at ln 10, and one that never leaves it counts with all its epochs."""
    guessing = math.log(10)

    def epochs(curve: pd.DataFrame) -> float:
        losses = np.concatenate([[guessing], curve["valid_loss"].to_numpy(float)])
        below = np.flatnonzero(losses < 0.95 * guessing)
        if not below.size:
            return float(len(curve))
        end = int(below[0])
        return float(end - 1 + (losses[end - 1] - 0.95 * guessing) / (losses[end - 1] - losses[end]))

    return Measure("epochs until the valid loss is 5 % below that of guessing, ln 10", "epochs", 20, epochs, 0, True)


def rise() -> Measure:
    """How far the validation loss has turned up at the end, in means of ten epochs, against the lowest before."""

    def percent(curve: pd.DataFrame) -> float:
        blocks = curve["valid_loss"].to_numpy(float).reshape(-1, 10).mean(axis=1)
        return float(100 * (blocks[-1] / blocks[:-1].min() - 1))

    text = f"mean valid loss over epochs {EPOCHS - 9}–{EPOCHS} against the lowest earlier mean of ten epochs"
    return Measure(text, "%", EPOCHS, percent, 0, True)


@dataclass(frozen=True)
class Versus:
    """What is to be compared: a − b (or a alone) should lie between ``low`` and ``high``."""

    a: Net
    b: Net | None = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def nets(self) -> tuple[Net, ...]:
        return (self.a,) if self.b is None else (self.a, self.b)


def greater(*nets: Net, by: float = 0.0) -> list[Versus]:
    """Each net above the next: the adjacent pairs of an order."""
    return [Versus(a, b, low=by) for a, b in itertools.pairwise(nets)]


def from_runs(
    c: Collection,
    name: str,
    text: str,
    quote: str,
    pairs: Sequence[Versus],
    measure: Measure,
    *others: Measure,
    required: int = 0,
    notes: Sequence[str] = (),
) -> Claim:
    """A claim about what the runs have learnt, paired by seed.

    Args:
        others: further ways to measure the same; one that clearly says the opposite leaves the claim undecided.
        required: how many pairs must hold; 0: all.
    """
    evidence = _Evidence(c, {str(net): net for pair in pairs for net in pair.nets}, measure.needs)
    comparisons = evidence.compare(pairs, measure)
    obstacle = evidence.obstacle(measure)

    def judged(by: Measure, found: tuple[Comparison, ...]) -> Claim:
        return Claim(name, text, quote, by.text, found, evidence.runs, required, obstacle)

    claim = judged(measure, comparisons)
    again = [judged(other, evidence.compare(pairs, other)) for other in others if evidence.reaches(other.needs)]
    opposite = [other for other in again if {claim.verdict, other.verdict} == {"holds", "fails"}]
    if opposite:
        obstacle = f"it depends on how it is measured, for by {opposite[0].measured} it {opposite[0].verdict}"
    remarks = [*evidence.diverged, *notes]
    if again and not obstacle and claim.n > 1:
        said = "; ".join(f"by {other.measured}: {other.verdict}" for other in again)
        remarks.append(f"Judged alone: {claim.verdict}; {said}")
    return replace(claim, obstacle=obstacle, notes=tuple(remarks))


def from_timing(
    timing: Timing | None, name: str, text: str, quote: str, pairs: Sequence[Versus], *, notes: Sequence[str] = ()
) -> Claim:
    """A claim about time, from :mod:`sweeps.judge.timing`: bounds are factors, ratios are taken within a round."""
    measured = "training time of an epoch, as a factor, round by round"
    if timing is None:
        obstacle = f"a claim about time needs a measurement under stated conditions; run `{COMMAND}`"
        return Claim(name, text, quote, measured, (), (), obstacle=obstacle)
    lacking = sorted({net.timed for pair in pairs for net in pair.nets} - set(timing.seconds))
    if lacking:
        return Claim(name, text, quote, measured, (), (), obstacle=f"not timed: {', '.join(lacking)}; run `{COMMAND}`")
    comparisons = []
    for pair in pairs:
        assert pair.b is not None
        ratios = np.log(timing.seconds[pair.a.timed]) - np.log(timing.seconds[pair.b.timed])
        label = f"{pair.a} / {pair.b}"
        comparisons.append(Comparison(label, tuple(ratios.tolist()), "×", _log(pair.low), _log(pair.high)))
    busy = f"other processes disturbed the measurement; run `{COMMAND}` on an idle machine"
    obstacle = busy if timing.disturbed else ""
    remarks = (*notes, f"Conditions: {timing.describe()}")
    return Claim(name, text, quote, measured, tuple(comparisons), (), obstacle=obstacle, notes=remarks, sample="round")


class _Evidence:
    """The learning curves of the nets that a claim compares, by seed."""

    def __init__(self, c: Collection, nets: Mapping[str, Net], needs: int) -> None:
        self._nets = nets
        self._rows = {label: at(c.runs, **net.settings) for label, net in nets.items()}
        self.runs: tuple[str, ...] = tuple(sorted({run for rows in self._rows.values() for run in rows["run"]}))
        wanted = c.epochs[c.epochs["run"].isin(self.runs) & (c.epochs["epoch"] <= EPOCHS)]
        self._curves = {str(run): curve.sort_values("epoch") for run, curve in wanted.groupby("run", observed=True)}
        self.seeds = sorted({int(seed) for rows in self._rows.values() for seed in rows["seed"]})
        self.diverged: list[str] = []
        self._missing: list[str] = []
        self._unfinished: list[str] = []
        self._ambiguous: list[str] = []
        self._usable = {label: self._complete(label, needs) for label in nets}

    def compare(self, pairs: Sequence[Versus], measure: Measure) -> tuple[Comparison, ...]:
        """Empty where not even one seed has all the nets."""
        values = {label: self._measure(curves, measure) for label, curves in self._usable.items()}
        common = set.intersection(*(set(series.index) for series in values.values()))
        if not common:
            return ()
        comparisons = []
        for pair in pairs:
            sample = values[str(pair.a)]
            if pair.b is not None:
                sample = paired(sample, values[str(pair.b)])
            label = " − ".join(map(str, pair.nets))
            found = tuple(sample[sample.index.isin(common)].astype(float).tolist())
            comparisons.append(Comparison(label, found, measure.unit, pair.low, pair.high, measure.resolution))
        return tuple(comparisons)

    def reaches(self, epoch: int) -> bool:
        """Whether all that is compared goes as far."""
        return all(len(curve) >= epoch for curves in self._usable.values() for curve in curves.values())

    def obstacle(self, measure: Measure) -> str:
        """What keeps the claim from being judged, with the way out; empty if nothing does."""
        reasons = []
        if self._missing:
            reasons.append(f"missing: {_some(self._missing)}")
        if self._unfinished:
            reasons.append(f"not as far as epoch {measure.needs}: {_some(self._unfinished)}")
        if reasons:
            first = (self._missing or self._unfinished)[0].split(" (")[0]
            reasons.append(
                f"run `python -m mlp.train --multirun {first}` and so on, or leave a seed out (filter seed!=1)"
            )
        if self._ambiguous:
            reasons.append(f"several runs with one seed of {_some(self._ambiguous)}; choose among them with a filter")
        if self.diverged and measure.from_loss:
            reasons.append("a run that diverged has no loss to compare")
        return "; ".join(reasons)

    def _complete(self, label: str, needs: int) -> dict[int, pd.DataFrame]:
        """Seed → the first ``needs`` epochs, of the runs that have them or diverged before."""
        net, rows, complete = self._nets[label], self._rows[label], {}
        seeds = rows["seed"].astype(int)
        if not seeds.is_unique:  # e.g. on files of other checksums
            self._ambiguous.append(net.overrides)
            return {}
        missing = sorted(set(self.seeds or _DEFAULT_SEEDS) - set(seeds))
        if missing:
            self._missing.append(f"{net.overrides} seed={','.join(map(str, missing))}")
        for seed, run, state in zip(seeds, rows["run"], rows["state"], strict=True):
            curve = self._curves.get(str(run), pd.DataFrame(columns=["epoch", "valid_acc", "test_acc"], dtype=float))
            if len(curve) < needs and state == "diverged":
                self.diverged.append(
                    f"The run {net.overrides} seed={seed} diverged after epoch {len(curve)}; it counts as guessing"
                )
                lost = pd.DataFrame({"valid_acc": _CHANCE, "test_acc": _CHANCE}, index=range(EPOCHS - len(curve)))
                curve = pd.concat([curve[["valid_acc", "test_acc"]], lost], ignore_index=True)
            if len(curve) >= needs:
                complete[seed] = curve
            else:
                self._unfinished.append(f"{net.overrides} seed={seed} ({state}, epoch {len(curve)})")
        return complete

    def _measure(self, curves: Mapping[int, pd.DataFrame], measure: Measure) -> pd.Series:
        usable = {seed: curve for seed, curve in curves.items() if not measure.from_loss or "valid_loss" in curve}
        numbers = [measure.of(curve.iloc[: measure.needs]) for curve in usable.values()]
        return pd.Series(numbers, index=list(usable), dtype=float)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _some(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
