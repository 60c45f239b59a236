"""The report page: one HTML file that needs no network, from the collected runs.

With a study, its hypotheses, tables and figures come first; without, the runs' comparison is all there is.

Data flow one way: Collection → plain texts and numbers → templates of ``page/``. Everything from a run is escaped: by
the templates, or as JSON that the page's script shows as text. A Content-Security-Policy lets only the page's own
script and style run, by their hashes, and lets nothing be fetched. Same data, same bytes.
"""

import base64
import functools
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from sweeps.judge.findings import CONFIDENCE, Finding, Verdict
from sweeps.judge.hypotheses import evaluate
from sweeps.judge.text import method
from sweeps.read import summary
from sweeps.read.collect import Collection
from sweeps.runs.command import printed, tree
from sweeps.runs.errors import InputError, printable
from sweeps.runs.files import folder, write_atomic
from sweeps.search.record import Search, Trial, read_all
from sweeps.show import explore, searches, style
from sweeps.show.draw import varying
from sweeps.show.figures import figure
from sweeps.show.forest import forest
from sweeps.show.inline import address
from sweeps.show.payload import MOST_RUNS, payload, thinned
from sweeps.show.render import Cell, Table
from sweeps.show.tables import table
from sweeps.study.study import FigureSpec, Study

_TITLE = "Runs, compared"
_MOST_PROBLEMS = 50
_MOST_TRIALS = 10  # of a search
_SCRIPTS = ("state.js", "axes.js", "table.js", "curves.js", "points.js", "difference.js", "main.js")


def write(collection: Collection, out: Path, study: Study | None = None) -> Path:
    """Write ``out``/report/index.html, whole or not at all, and return its path.

    Raises:
        InputError: there are no runs at all.
    """
    content = page(collection, study).encode()
    path = folder(Path(out), "report") / "index.html"
    write_atomic(path, content)
    return path


def page(collection: Collection, study: Study | None = None) -> str:
    """The page's HTML."""
    if collection.runs.empty:
        how = f"; make some: {printed([*study.training, *tree(collection.out)])}" if study else ""
        raise InputError("out", str(collection.out), f"no runs to report{how}")
    css, script = _asset("page.css"), "".join(map(_asset, _SCRIPTS))
    findings = evaluate(study, collection) if study else []
    found, troubles = _find_searches(collection)
    problems = [*collection.problems, *troubles]
    about = {
        "policy": _policy(css, script),
        "title": study.title if study else _TITLE,
        "style": Markup(css),
        "script": Markup(script),
        "data": Markup(payload(collection, study)),
        "facts": _facts(collection, findings),
        "notes": _notes(collection),
        "thinned": _thinned(collection),
        "study": study,
        "searches": [_search(search) for search in found],
        "problems": problems[:_MOST_PROBLEMS],
        "more_problems": max(len(problems) - _MOST_PROBLEMS, 0),
        "again": _again(study) if study else "",
        **(_study(study, collection, findings) if study else {}),
    }
    about["sections"] = _sections(about)
    return _templates().get_template("page.html").render(about)


def _asset(name: str) -> str:
    return (resources.files("sweeps.show") / "page" / name).read_text("utf-8")


@functools.cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("sweeps.show", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["code"] = _code
    return found


def _code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def source(text: str) -> str:
    """A script or style as a source of a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _policy(css: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src {source(script)}; style-src {source(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sections(about: dict[str, Any]) -> list[tuple[str, str]]:
    """Those that the page has: id and name."""
    there = {
        "Hypotheses": about["study"],
        "Tables": about.get("tables"),
        "Figures": about.get("pictures"),
        "Compare": True,
        "Searches": about["searches"],
        "Problems": about["problems"],
    }
    return [(name.lower(), name) for name, is_there in there.items() if is_there]


# -- the runs --------------------------------------------------------------------------------------------------------


def _facts(collection: Collection, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    runs = collection.runs
    states = runs["state"].value_counts()
    ended = ", ".join(f"{count:,} {state}" for state, count in states.items())
    facts = {"Runs": f"{len(runs):,} ({ended})" if len(states) > 1 else ended}
    facts["Configurations"] = f"{_configurations(runs):,}"
    seeds = explore.ordered(runs["seed"]) if "seed" in runs.columns else []
    if len(seeds) > 1:
        facts["Seeds"] = f"{len(seeds):,}: {', '.join(map(style.name, seeds[:10]))}{' …' if len(seeds) > 10 else ''}"
    elif seeds:
        facts["Seed"] = style.name(seeds[0])
    facts["Epochs trained"] = f"{len(collection.epochs):,}"
    if findings:
        verdicts = Counter(finding.verdict for finding in findings)
        words = {Verdict.HOLDS: "hold"}
        facts["Hypotheses"] = ", ".join(f"{verdicts[v]} {words.get(v, v)}" for v in Verdict if verdicts[v])
    updated = runs["updated"].dropna()
    if len(updated):
        facts["Last update"] = _moment(updated.max())
    return list(facts.items())


def _notes(collection: Collection) -> list[str]:
    runs = collection.runs
    notes = []
    stopped = runs[runs["state"] == "diverged"]
    if len(stopped):
        keys = [*varying(runs), *(["seed"] if "seed" in runs.columns else [])] or ["run"]
        labels = [style.label(keys, run) for run in stopped[keys].head(5).itertuples(index=False)]
        more = f" and {len(stopped) - 5:,} more" if len(stopped) > 5 else ""
        notes.append(f"Diverged, and marked as such everywhere: {'; '.join(labels)}{more}.")
    if len(runs) > MOST_RUNS:
        notes.append(f"The first {MOST_RUNS:,} of {len(runs):,} runs are here; runs.csv has all.")
    return notes


def _thinned(collection: Collection) -> str:
    kept = thinned(collection)
    if kept is None:
        return ""
    return (
        f"Of the {int(collection.epochs['epoch'].max()):,} epochs {kept} are here, evenly on a logarithmic axis, to "
        "keep the page small; epochs.csv has all."
    )


def _configurations(runs: pd.DataFrame) -> int:
    keys = summary.identity_columns(runs)
    return int(runs.groupby(keys, dropna=False).ngroups) if keys else 1


def _moment(iso: object) -> str:
    """``2026-11-22 23:14 UTC`` from :func:`sweeps.runs.status.now`; other texts as they are."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", str(iso))
    return f"{match[1]} {match[2]} UTC" if match else str(iso)


# -- a study ---------------------------------------------------------------------------------------------------------


def _study(study: Study, collection: Collection, findings: Sequence[Finding]) -> dict[str, Any]:
    """A study's own part: its hypotheses, tables and figures."""
    return {
        "method": method(study),
        "interval": f"{100 * CONFIDENCE:g} % interval",
        "findings": [_finding(finding) for finding in findings],
        "forest": _picture("", "every comparison with its interval, seeds and margin", forest(findings, study))
        if findings
        else None,
        "tables": [_table(table(study, spec, collection)) for spec in study.tables.values()],
        "pictures": [
            _picture(f"{spec.name}: {spec.caption}", spec.caption, _figure(study, spec, collection))
            for spec in study.figures.values()
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    decisive = finding.decisive
    low, high = decisive.interval if decisive else (math.nan, math.nan)
    comparisons = finding.judged.comparisons if finding.judged else ()
    chosen = [("rows", "runs"), ("only", "1"), *(("chosen", run) for run in finding.runs)]
    return {
        "text": finding.text,
        "quote": finding.quote,
        "detail": finding.detail,
        "verdict": str(finding.verdict),
        "orders": [order.text() for order in finding.orders],
        "comparisons": [f"{c.describe()}: wanted {c.wanted}, alone {c.outcome}" for c in comparisons],
        "runs": finding.runs,
        "state": urlencode(chosen),  # as page/state.js reads it
        "found": decisive.found if decisive else "",
        "around": f"{decisive.show(low)} … {decisive.show(high)}" if decisive and not math.isnan(low) else "",
        "n": finding.judged.n if finding.judged else 0,
    }


def _table(table: Table) -> dict[str, Any]:
    """On the page a configuration is a row, so that sorting by a metric puts them in order."""
    labels = [list(row.label) for row in table.rows]
    for above, below in itertools.pairwise(labels):
        below[:] = [new or old for new, old in zip(below, above, strict=True)]
    rows = []
    for i, name in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        n = max((cell.n for cell in cells if isinstance(cell, Cell)), default=0)
        rows.append({"name": name, "cells": [*map(_cell, cells), {"text": str(n), "value": None}]})
    columns = [*(", ".join(filter(None, words)) for words in labels), "n"]
    return {"title": table.title, "columns": columns, "rows": rows, "notes": table.notes}


def _cell(cell: Cell | str) -> dict[str, Any]:
    """Its text, and what it is sorted by where that is not the text."""
    if isinstance(cell, Cell):
        return {"text": cell.text(), "value": repr(cell.mean) if cell.n else ""}
    return {"text": cell, "value": None}


def _again(study: Study) -> str:
    words = ("train", "collect", "tables", "figures", "claims", "report")
    return "\n".join(f"mlp-sweeps {word}" + (f" study={study.word}" if word != "collect" else "") for word in words)


# -- pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A figure as an image's address, or the reason why there is none."""

    caption: str
    alt: str
    drawn: str = ""
    reason: str = ""


def _picture(caption: str, alt: str, drawn: Figure | str) -> Picture:
    """Of a figure, or of the reason why there is none."""
    if isinstance(drawn, str):
        return Picture(caption, alt, reason=drawn)
    return Picture(caption, alt, drawn=address(drawn))


def _figure(study: Study, spec: FigureSpec, collection: Collection) -> Figure | str:
    try:
        return figure(study, spec, collection)
    except InputError as error:
        return str(error)


# -- searches --------------------------------------------------------------------------------------------------------


def _find_searches(collection: Collection) -> tuple[list[Search], list[str]]:
    """Those that any of the collected runs belongs to, and what cannot be read."""
    runs = set(collection.runs["run"])
    found: list[Search] = []
    troubles = []
    for search in read_all(collection.out):
        if isinstance(search, InputError):
            troubles.append(printable(str(search)))
        elif any(run in runs for trial in search.trials for run, _ in trial.runs):
            found.append(search)
    return found, troubles


def _search(search: Search) -> dict[str, Any]:
    states = pd.Series([trial.state for trial in search.trials], dtype="str").value_counts()
    standing = ", ".join(f"{count:,} {state}" for state, count in states.items()) or "nothing yet"
    aims = ", ".join(f"{way} {metric}" for way, metric in zip(search.directions, search.metrics, strict=True))
    ranked = search.ranked()[:_MOST_TRIALS]
    bad = [trial for trial in search.trials if trial.state in ("diverged", "failed")][:_MOST_TRIALS]
    title = "The Pareto front" if len(search.metrics) > 1 else "The best trials"
    return {
        "name": search.name,
        "note": f"{search.method}, to {aims}: {standing} of {search.total:,} trials, {search.epochs():,} epochs.",
        "pictures": [
            _picture(caption, f"{search.name}: {caption}", drawn) for caption, drawn in searches.figures(search)
        ],
        "caption": f"{title}{', then those that came to nothing' if bad else ''}",
        "axes": [axis["key"] for axis in search.space],
        "metrics": list(search.metrics),
        "trials": [_trial(search, trial) for trial in [*ranked, *bad]],
    }


def _trial(search: Search, trial: Trial) -> dict[str, Any]:
    params = (trial.params[axis["key"]] for axis in search.space)
    values = [f"{value:.6g}" for value in trial.values or ()] or [""] * len(search.metrics)
    epochs = max((epochs for _, epochs in trial.runs), default=0)
    return {
        "number": trial.number,
        "state": trial.state,
        "params": [value if isinstance(value, str) else f"{value:.4g}" for value in params],
        "numbers": [*values, str(epochs)],
    }
