"""From a study's hypotheses and the collected runs to findings.

evaluate    every hypothesis of a study, judged together
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sweeps.judge import timing
from sweeps.judge.evidence import Evidence, Sample
from sweeps.judge.findings import Cell, Comparison, Finding, Verdict, together
from sweeps.judge.statistics import Variance, crossed
from sweeps.judge.timing import Timing
from sweeps.read.collect import Collection
from sweeps.study.hypotheses import Contrast, Hypothesis, Settings
from sweeps.study.measures import Measure, Time
from sweeps.study.study import Study

_OPPOSITE = {Verdict.HOLDS, Verdict.CONTRADICTED}


def evaluate(study: Study, collection: Collection) -> list[Finding]:
    """A finding for each hypothesis, in the study's order."""
    evidence = Evidence(study, collection)
    times = timing.load(collection.out)
    return together(
        [
            _from_timing(study, times, hypothesis)
            if isinstance(hypothesis.measure, Time)
            else _from_runs(study, evidence, hypothesis, len(study.hypotheses))
            for hypothesis in study.hypotheses.values()
        ]
    )


def _from_runs(study: Study, evidence: Evidence, hypothesis: Hypothesis, family: int) -> Finding:
    """Judge by the runs, on the fresh seeds that all cells have."""
    sample = evidence.sample(hypothesis, hypothesis.measure)
    finding = _finding(study, hypothesis, hypothesis.measure, sample)
    others = [(other, evidence.sample(hypothesis, other)) for other in hypothesis.also]
    again = [
        replace(_finding(study, hypothesis, other, found), family=family)
        for other, found in others
        if not found.obstacle and len(found.seeds) == len(sample.seeds)
    ]
    found = replace(finding, family=family).verdict
    opposite = [other for other in again if {found, other.verdict} == _OPPOSITE]
    if opposite:
        said = f"it depends on how it is measured; by {opposite[0].measured} it is {opposite[0].verdict}"
        finding = replace(finding, obstacle=said, remedy=())
    remarks = list(sample.diverged)
    if again and not opposite and found is not Verdict.UNDECIDED:
        remarks.append("The same " + "; ".join(f"by {other.measured}: {other.verdict}" for other in again))
    if beyond := _beyond_the_items(study, evidence, hypothesis, finding):
        remarks.append(beyond)
    return replace(finding, notes=(*remarks, *hypothesis.notes))


def _beyond_the_items(study: Study, evidence: Evidence, hypothesis: Hypothesis, finding: Finding) -> str:
    """The decisive comparison for other seeds and other items of the same kind, if items were logged."""
    measure = next((m for m in (hypothesis.measure, *hypothesis.also) if m.items is not None), None)
    if measure is None or finding.decisive is None or finding.judged is None or finding.judged.n < 2:
        return ""
    seeds = study.seeds.fresh(finding.judged.n)
    cells = {study.label(cell): cell for cell in hypothesis.cells}
    found = [evidence.items(cells[cell.name], measure, seeds) for cell in finding.decisive.cells]
    tables = [table for table in found if table is not None]
    if len(tables) < len(found):
        return ""
    estimate = crossed(*tables)
    mean, (low, high) = 100 * estimate.mean, (100 * end for end in estimate.interval(0.95))
    return (
        f"For other seeds and other items than these {tables[0].shape[1]:,}, by {measure.text}: "
        f"{finding.decisive.label} {mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
    )


def _finding(study: Study, hypothesis: Hypothesis, measure: Measure, sample: Sample) -> Finding:
    return Finding(
        name=hypothesis.name,
        text=hypothesis.text,
        quote=hypothesis.quote,
        measured=measure.text,
        comparisons=_comparisons(study, hypothesis, measure, sample.values, Variance(study.variance)),
        runs=sample.runs,
        required=hypothesis.at_least,
        looks=study.seeds.looks,
        obstacle=sample.obstacle,
        remedy=sample.remedy,
    )


def _from_timing(study: Study, times: Timing | None, hypothesis: Hypothesis) -> Finding:
    """Judge by timing.json: ratios are taken within a round."""
    measure = hypothesis.measure
    assert isinstance(measure, Time)
    remedy = (*timing.COMMAND, f"study={study.word}")
    finding = Finding(
        name=hypothesis.name,
        text=hypothesis.text,
        quote=hypothesis.quote,
        measured=f"{measure.text}, as a factor, round by round: it tests these programs on this machine",
        comparisons=(),
        runs=(),
        required=hypothesis.at_least,
        notes=hypothesis.notes,
        sample="round",
    )
    if times is None:
        return replace(finding, obstacle="a time needs a measurement under stated conditions", remedy=remedy)
    keys = {study.label(cell): measure.cell(study.complete(cell)) for cell in hypothesis.cells}
    lacking = sorted(set(keys.values()) - set(times.seconds))
    if lacking:
        return replace(finding, obstacle=f"not timed: {', '.join(lacking)}", remedy=remedy)
    values = {label: times.seconds[key] for label, key in keys.items()}
    busy = "other processes disturbed the measurement; repeat it on an idle machine" if times.disturbed else ""
    return replace(
        finding,
        comparisons=_comparisons(study, hypothesis, measure, values, Variance.TRIMMED),
        obstacle=busy,
        remedy=remedy if busy else (),
        notes=(*hypothesis.notes, f"Conditions: {times.describe()}"),
    )


def _comparisons(
    study: Study,
    hypothesis: Hypothesis,
    measure: Measure,
    values: Mapping[str, Sequence[float]],
    variance: Variance,
) -> tuple[Comparison, ...]:
    """The hypothesis's contrasts; none without values."""

    def cell(settings: Settings) -> Cell:
        label = study.label(settings)
        found = values[label]
        return Cell(label, tuple(map(_log, found)) if hypothesis.ratio else tuple(found))

    def comparison(contrast: Contrast) -> Comparison:
        bounds = (contrast.low, contrast.high)
        return Comparison(
            a=cell(contrast.of),
            b=None if contrast.over is None else cell(contrast.over),
            unit="×" if hypothesis.ratio else measure.unit,
            low=_log(bounds[0]) if hypothesis.ratio else bounds[0],
            high=_log(bounds[1]) if hypothesis.ratio else bounds[1],
            delta=0.0 if hypothesis.ratio else measure.level or 0.0,
            resolution=0.0 if hypothesis.ratio else measure.resolution,
            variance=variance,
        )

    if not values or not all(values.values()):
        return ()
    return tuple(map(comparison, hypothesis.contrasts))


def _log(x: float) -> float:
    """−inf for what is not above 0, which has no ratio."""
    return math.log(x) if x > 0 else -math.inf
