"""Findings as text: Markdown, a line for each, and JSON."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.judge.findings import CONFIDENCE, Comparison, Finding, Verdict
from sweeps.judge.looks import ALPHA
from sweeps.runs.command import printed, tree
from sweeps.study.study import Study

_INTERVAL = f"{100 * CONFIDENCE:g} % interval"


def method(study: Study) -> str:
    """How the verdicts were reached, for readers of the table."""
    looks, design = study.seeds.looks, study.seeds.design
    at = f"at {_listed(looks)} seeds, fixed in advance" if len(looks) > 1 else f"at {looks[0]} seeds"
    seen = f"Seed {_listed(design)} was seen when the margins were chosen, and is not judged. " if design else ""
    spreads = {
        "pooled": "one variance of all cells of a hypothesis, where their spreads are compatible",
        "separate": "a variance for each cell",
        "paired": "differences seed by seed",
    }
    return (
        f"The {len(study.hypotheses)} hypotheses are judged together, {at}: the chance that any verdict is wrong is at "
        f"most {100 * ALPHA:g} %, if numbers scatter roughly normally between seeds. {seen}"
        f"Variance: {spreads[study.variance]}. A hypothesis holds if all of its comparisons are shown to agree (or as "
        "many as it says), is contradicted if one (or too many) is shown not to, and is level if a difference that it "
        f"claims is shown to be smaller than the study calls a difference. Intervals are {100 * CONFIDENCE:g} %, for "
        "the one comparison beside them. They cover other seeds, on these data; other test images would move an "
        "accuracy, too."
    )


def to_markdown(study: Study, findings: Sequence[Finding]) -> str:
    """A table of verdicts, then each finding with its detail, comparisons and runs."""
    lines = [f"# {study.title}: hypotheses, checked", ""]
    lines += [study.source, ""] if study.source else []
    lines += [method(study), "", f"| hypothesis | verdict | effect | {_INTERVAL} | n | p, corrected |"]
    lines += ["| --- " * 6 + "|"]
    for finding in findings:
        effect, around = _effect(finding)
        lines.append(
            f"| {finding.text} | **{finding.verdict}** | {effect} | {around} | {_n(finding)} | {_p(finding)} |"
        )
    for finding in findings:
        quote = f" 「{finding.quote}」" if finding.quote else ""
        lines += ["", f"## {finding.name}: {finding.verdict}", "", f"{finding.text}{quote}", "", finding.detail]
        if finding.judged:
            lines += ["", f"| comparison | wanted | found | {_INTERVAL} | alone | P(A > B) |", "| --- " * 6 + "|"]
            lines += [_row(comparison) for comparison in finding.judged.comparisons]
        lines += [
            f"\nOrder, by simultaneous 95 % intervals: {order.text(_delta(finding))}." for order in finding.orders
        ]
        if finding.runs:
            lines += ["", "Rests on " + ", ".join(f"`{run}`" for run in finding.runs) + "."]
    if study.untested:
        lines += ["", "## Not tested", ""]
        lines += [
            f"- {item.text} 「{item.quote}」 {item.reason}" if item.quote else f"- {item.text} {item.reason}"
            for item in study.untested
        ]
    return "\n".join(lines) + "\n"


def to_text(findings: Sequence[Finding], out: Path) -> str:
    """A line for each finding: verdict, name, and the decisive comparison, or what prevents a verdict.

    Findings that one command would decide share a line, which names the command.
    """
    blocked = Counter(finding.remedy for finding in findings if finding.obstacle)
    shared = {remedy: count for remedy, count in blocked.items() if remedy and count > 1}
    rows = [(f.verdict, f.name, _gist(f)) for f in findings if not (f.obstacle and f.remedy in shared)]
    rows += [
        (
            Verdict.UNDECIDED,
            f"{count} hypotheses",
            f"run `{printed([*remedy, *tree(out)])}`; without --brief it says why",
        )
        for remedy, count in shared.items()
    ]
    width = max((len(name) for _, name, _ in rows), default=0)
    return "".join(f"{verdict:<12} {name:<{width}}  {said}\n" for verdict, name, said in rows)


def _gist(finding: Finding) -> str:
    if finding.decisive is None:
        return finding.reason
    more = ""
    if finding.forecast is not None:
        more = f"; {finding.forecast.describe(finding.sample)}"
    return f"{finding.decisive.describe()}{more}"


def to_json(study: Study, findings: Sequence[Finding]) -> str:
    """The same as data, with null for numbers that are not finite."""
    content = {
        "study": study.title,
        "method": method(study),
        "claims": [_finding(finding) for finding in findings],
        "untested": [{"text": u.text, "quote": u.quote, "reason": u.reason} for u in study.untested],
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    decisive = finding.decisive
    return {
        "name": finding.name,
        "text": finding.text,
        "quote": finding.quote,
        "verdict": finding.verdict,
        "effect": decisive and _finite(decisive.effect),
        "unit": decisive.unit if decisive else "",
        "interval": [_finite(x) for x in decisive.interval] if decisive else [None, None],
        "n": finding.judged.n if finding.judged else 0,
        "sample": finding.sample,
        "p_adjusted": finding.p,
        "detail": finding.detail,
        "orders": [order.text(_delta(finding)) for order in finding.orders],
        "comparisons": [_comparison(comparison) for comparison in finding.judged.comparisons] if finding.judged else [],
        "runs": list(finding.runs),
    }


def _comparison(c: Comparison) -> dict[str, Any]:
    superior, around = c.superiority
    return {
        "label": c.label,
        "wanted": c.wanted,
        "effect": _finite(c.effect),
        "unit": c.unit,
        "interval": [_finite(x) for x in c.interval],
        "n": c.n,
        "values": {cell.name: [_finite(c.shown(value)) for value in cell.values] for cell in c.cells},
        "p_for": _finite(c.p_for),
        "p_against": _finite(c.p_against),
        "p_superior": _finite(superior),
        "p_superior_interval": [_finite(x) for x in around],
        "verdict": c.outcome,
        "direction": c.direction,
    }


def _row(c: Comparison) -> str:
    low, high = c.interval
    around = "" if math.isnan(low) else f"{c.show(low)} … {c.show(high)}"
    superior, _ = c.superiority
    share = "" if math.isnan(superior) else f"{superior:.2f}"
    return f"| {c.label} | {c.wanted} | {c.found} | {around} | {c.outcome} | {share} |"


def _effect(finding: Finding) -> tuple[str, str]:
    if finding.decisive is None:
        return "", ""
    low, high = finding.decisive.interval
    shown = finding.decisive.show
    return finding.decisive.found, "" if math.isnan(low) else f"{shown(low)} … {shown(high)}"


def _n(finding: Finding) -> str:
    return str(finding.judged.n if finding.judged else 0)


def _p(finding: Finding) -> str:
    if not finding.comparisons or finding.obstacle:
        return ""
    return "< 0.0001" if finding.p < 1e-4 else f"{finding.p:.2g}"


def _delta(finding: Finding) -> float:
    return max((comparison.delta for comparison in finding.comparisons), default=0.0)


def _listed(numbers: Sequence[int]) -> str:
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
