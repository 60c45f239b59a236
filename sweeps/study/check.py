"""A study in words: the runs, tables, figures and hypotheses of its file."""

import math
from collections.abc import Iterator

from sweeps.study.hypotheses import Contrast, Hypothesis
from sweeps.study.study import Study, written


def describe(study: Study) -> str:
    """Everything to check before the first run is trained."""
    return "\n".join(_lines(study)) + "\n"


def _lines(study: Study) -> Iterator[str]:
    seeds = study.seeds
    yield f"{study.title} ({study.path})"
    if study.source:
        yield study.source
    yield ""
    yield f"baseline    {' '.join(f'{key}={written(value)}' for key, value in study.baseline.items())}"
    yield f"cells       {len(study.cells())}, each to epoch {study.epochs}"
    looks = ", ".join(map(str, seeds.looks))
    design = f"{_comma(seeds.design)} for design, not judged; " if seeds.design else ""
    yield f"seeds       {design}judged at {looks} fresh seeds: {_comma(seeds.fresh(seeds.looks[-1]))}"
    yield f"variance    {study.variance}"
    if study.tables:
        yield f"tables      {', '.join(f'{name} ({len(spec.cells)} cells)' for name, spec in study.tables.items())}"
    if study.figures:
        yield f"figures     {', '.join(f'{name} ({len(spec.panels)} panels)' for name, spec in study.figures.items())}"
    count = sum(len(hypothesis.contrasts) for hypothesis in study.hypotheses.values())
    yield f"hypotheses  {len(study.hypotheses)}, of {count} comparisons"
    for hypothesis in study.hypotheses.values():
        yield ""
        yield from _hypothesis(study, hypothesis)
    if study.untested:
        yield ""
        yield f"not tested  {len(study.untested)} statements"
        for statement in study.untested:
            yield f"  {statement.text} ({statement.reason})"


def _hypothesis(study: Study, hypothesis: Hypothesis) -> Iterator[str]:
    yield f"{hypothesis.name}: {hypothesis.text}"
    count = len(hypothesis.contrasts)
    needed = f"at least {hypothesis.at_least} of {count}" if hypothesis.at_least else "all" if count > 1 else ""
    measure = hypothesis.measure
    level = f"; level within {measure.level:g} {measure.unit}" if measure.level is not None else ""
    yield f"  {measure.text}{level}{f'; {needed} of:' if needed == 'all' else f'; {needed}:' if needed else ':'}"
    for contrast in hypothesis.contrasts:
        yield f"    {expectation(study, contrast, hypothesis)}"


def expectation(study: Study, contrast: Contrast, hypothesis: Hypothesis) -> str:
    """``ReLU 1L − GeLU 1L > 0``."""
    sign = " / " if hypothesis.ratio else " − "
    name = sign.join(study.label(cell) for cell in contrast.cells)
    low, high = (f"{bound:g}".replace("-", "−") for bound in (contrast.low, contrast.high))
    if math.isinf(contrast.low):
        return f"{name} < {high}"
    return f"{name} > {low}" if math.isinf(contrast.high) else f"{low} < {name} < {high}"


def _comma(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
