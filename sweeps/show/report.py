"""The report page: one HTML file that needs no network, from the collected runs.

With a study, its hypotheses, tables and figures come first.

Data flow one way: Collection → tables, figures, curves → page. Everything from a run is escaped: as HTML text
here, or as JSON that the page's script shows as text. A Content-Security-Policy lets only the page's own script and
style run, by their hashes, and lets nothing be fetched. Same data, same bytes.
"""

import base64
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
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
from sweeps.show.draw import kind_of, render, varying
from sweeps.show.figures import figure
from sweeps.show.forest import forest
from sweeps.show.payload import MOST_CURVES, MOST_RUNS, MOST_SINGLES, payload
from sweeps.show.render import Cell, Table
from sweeps.show.tables import table
from sweeps.study.file import Study

_TITLE = "Sweeps: curves and runs"
_MOST_PROBLEMS = 50
_MOST_TRIALS = 10  # of a search


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
        raise InputError("out", "", f"no runs to report{how}")
    assets = resources.files("sweeps.show") / "page"
    css, script = ((assets / name).read_text("utf-8") for name in ("page.css", "page.js"))
    findings = evaluate(study, collection) if study else []
    found, troubles = _find_searches(collection)
    slots = {
        "policy": _policy(css, script),
        "title": escape(study.title if study else _TITLE),
        "style": css,
        "script": script,
        "summary": _summary(collection, study, findings),
        "study_links": _study_links(study) if study else "",
        "study": _study(study, collection, findings) if study else "",
        "searches": _searches(found),
        "searches_link": '<a href="#searches">Searches</a>' if found else "",
        "curves_note": escape(_curves_note(collection, study)),
        "runs_note": escape(_runs_note(collection)),
        "problems": _problems([*collection.problems, *troubles]),
        "again": _again(study),
        "data": payload(collection, study),
    }
    template = (assets / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], template)  # in one pass: no slot within a slot


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


def _policy(css: str, script: str) -> str:
    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {source(script)}; style-src {source(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


# -- sections --------------------------------------------------------------------------------------------------------


def _study(study: Study, collection: Collection, findings: Sequence[Finding]) -> str:
    """A study's own part: where it comes from, its hypotheses, tables and figures."""
    source = f'<p class="note">{escape(study.source)}</p>\n' if study.source else ""
    tables = "".join(_table(table(study, spec, collection)) for spec in study.tables.values())
    sections = {
        "Hypotheses": source + _findings(study, findings),
        "Tables": f'<p class="note">A column\'s heading sorts by it.</p>{tables}' if tables else "",
        "Figures": _figures(study, collection) if study.figures else "",
    }
    return "\n".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>\n{content}</section>'
        for name, content in sections.items()
        if content
    )


def _study_links(study: Study) -> str:
    there = {"Hypotheses": True, "Tables": bool(study.tables), "Figures": bool(study.figures)}
    return " ".join(f'<a href="#{name.lower()}">{name}</a>' for name, is_there in there.items() if is_there)


def _findings(study: Study, findings: Sequence[Finding]) -> str:
    body = []
    for finding in findings:
        decisive = finding.decisive
        low, high = decisive.interval if decisive else (math.nan, math.nan)
        around = f"{decisive.show(low)} … {decisive.show(high)}" if decisive and not math.isnan(low) else ""
        comparisons = "".join(
            f"<li>{escape(c.describe())}: wanted {escape(c.wanted)}, alone {escape(c.outcome)}</li>"
            for c in (finding.judged.comparisons if finding.judged else ())
        )
        quote = f'<p lang="{escape(study.language)}">「{escape(finding.quote)}」</p>' if finding.quote else ""
        runs = ", ".join(f"<code>{escape(run)}</code>" for run in finding.runs)
        rests = f"<p>Rests on {runs}.</p>" if runs else ""
        orders = "".join(f"<p>Order: {escape(order.text())}.</p>" for order in finding.orders)
        body.append(
            f"<tr><td><details><summary>{escape(finding.text)}</summary>"
            f"{quote}<p>{escape(finding.detail)}</p>{orders}<ul>{comparisons}</ul>{rests}"
            f'</details></td><td class="{finding.verdict}">{finding.verdict}</td>'
            f'<td class="number">{escape(decisive.found) if decisive else ""}</td>'
            f'<td class="number">{escape(around)}</td>{_number(finding.judged.n if finding.judged else 0)}</tr>'
        )
    if not body:
        return "<p>The study has none.</p>"
    head = _head(["Hypothesis", "Verdict"], ["Effect", f"{100 * CONFIDENCE:g} % interval", "n"])
    table = f'<table class="sortable hypotheses">{head}<tbody>{"".join(body)}</tbody></table>'
    plot = _image(forest(findings, study), "Forest plot: every comparison with its interval, seeds and margin")
    return (
        f'<p class="note">{escape(method(study))}</p>{_scroll("Hypotheses", table)}{_untested(study)}'
        f"<details><summary>Forest plot</summary><figure>{plot}</figure></details>"
    )


def _untested(study: Study) -> str:
    if not study.untested:
        return ""
    items = "".join(f"<li>{escape(item.text)} Not tested: {escape(item.reason)}.</li>" for item in study.untested)
    count = len(study.untested)
    return f"<details><summary>{count} statements that are not tested here</summary><ul>{items}</ul></details>"


def _summary(collection: Collection, study: Study | None, findings: Sequence[Finding]) -> str:
    runs = collection.runs
    states = ", ".join(f"{count:,} {state}" for state, count in runs["state"].value_counts().items())
    facts = {"Runs": f"{len(runs):,} ({states})", "Configurations": f"{_configurations(runs):,}"}
    if "seed" in runs.columns:
        seeds = explore.ordered(runs["seed"])
        facts["Seeds"] = ", ".join(style.name(seed) for seed in seeds[:10]) + (" …" if len(seeds) > 10 else "")
    facts["Epochs trained"] = f"{len(collection.epochs):,}"
    if findings:
        verdicts = Counter(finding.verdict for finding in findings)
        words = {Verdict.HOLDS: "hold"}
        facts["Hypotheses"] = ", ".join(f"{verdicts[v]} {words.get(v, v)}" for v in Verdict if verdicts[v])
    metric, maximize = summary.judged(collection)
    if metric is not None:
        kind = kind_of(metric, collection, study)
        facts[f"Best {kind.title}"] = _best(runs, summary.column_of(metric, runs), maximize, kind)
    facts["Last update"] = _moment(runs["updated"].dropna().max())
    facts["Problems"] = f"{len(collection.problems):,}"
    stopped = runs[runs["state"] == "diverged"]
    note = ""
    if len(stopped):
        keys = [*varying(runs), *(["seed"] if "seed" in runs.columns else [])] or ["run"]
        named = "; ".join(style.label(keys, run) for run in stopped[keys].head(5).itertuples(index=False))
        more = f" and {len(stopped) - 5:,} more" if len(stopped) > 5 else ""
        note = f"<p>Diverged, and marked as such everywhere: {escape(named)}{more}.</p>"
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>{note}'


def _configurations(runs: pd.DataFrame) -> int:
    keys = summary.identity_columns(runs)
    return int(runs.groupby(keys, dropna=False).ngroups) if keys else 1


def _moment(iso: object) -> str:
    """``2026-11-22 23:14 UTC`` from :func:`sweeps.runs.status.now`; other texts as they are."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", str(iso))
    return f"{match[1]} {match[2]} UTC" if match else str(iso)


def _best(runs: pd.DataFrame, metric: str, maximize: bool, kind: style.Metric) -> str:
    """The best of a metric's column over all runs."""
    values = runs[f"best_{metric}"]
    if values.isna().all():
        return "–"
    best = runs.iloc[int((values if maximize else -values).fillna(-np.inf).argmax())]
    value = f"{best[f'best_{metric}']:.2f} %" if kind.scale == "accuracy" else f"{best[f'best_{metric}']:.6g}"
    return f"{value} ({best['run']}, epoch {best['best_epoch']:.0f})"


def _table(table: Table) -> str:
    """On the page a configuration is a row, so that sorting by a metric puts them in order."""
    labels = [list(row.label) for row in table.rows]
    for above, below in itertools.pairwise(labels):
        below[:] = [new or old for new, old in zip(below, above, strict=True)]
    body = []
    for i, name in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        n = max((cell.n for cell in cells if isinstance(cell, Cell)), default=0)
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}{_number(n)}</tr>')
    head = _head(["Configuration"], [*(", ".join(filter(None, words)) for words in labels), "n"])
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    content = (
        f'<table class="sortable"><caption>{escape(table.title)}</caption>{head}<tbody>{"".join(body)}</tbody></table>'
    )
    return f'{_scroll(table.title, content)}<details class="note"><summary>Notes</summary><ul>{notes}</ul></details>'


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, Cell):
        return f'<td class="number" data-value="{cell.mean!r}">{escape(cell.text())}</td>' if cell.n else _missing(cell)
    return f'<td class="number">{escape(cell)}</td>'


def _missing(cell: Cell) -> str:
    return f'<td class="number" data-value="">{escape(cell.text())}</td>'


def _figures(study: Study, collection: Collection) -> str:
    parts = []
    for spec in study.figures.values():
        try:
            shown = _image(figure(study, spec, collection), spec.caption)
        except InputError as error:
            shown = f"<p>{escape(str(error))}</p>"
        parts.append(f"<figure>{shown}<figcaption>{escape(spec.name)}: {escape(spec.caption)}.</figcaption></figure>")
    return f'<div class="figures">{"".join(parts)}</div>'


def _image(figure: Figure, alt: str) -> str:
    image = base64.b64encode(render(figure, "svg")).decode()
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{image}">'


def _searches(found: Sequence[Search]) -> str:
    """The whole section, or nothing if there are no searches."""
    if not found:
        return ""
    return f'<section id="searches"><h2>Searches</h2>{"".join(map(_search, found))}</section>'


def _search(search: Search) -> str:
    states = pd.Series([trial.state for trial in search.trials], dtype="str").value_counts()
    standing = ", ".join(f"{count:,} {state}" for state, count in states.items()) or "nothing yet"
    aims = ", ".join(f"{way} {metric}" for way, metric in zip(search.directions, search.metrics, strict=True))
    note = f"{search.method}, to {aims}: {standing} of {search.total:,} trials, {search.epochs():,} epochs."
    figures = []
    for caption, drawn in searches.figures(search):
        text = f"{search.name}: {caption}"
        shown = f"<p>None: {escape(drawn)}.</p>" if isinstance(drawn, str) else _image(drawn, text)
        figures.append(f"<figure>{shown}<figcaption>{escape(caption)}.</figcaption></figure>")
    ranked = search.ranked()[:_MOST_TRIALS]
    bad = [trial for trial in search.trials if trial.state in ("diverged", "failed")][:_MOST_TRIALS]
    head = _head(["Trial", "State", *(axis["key"] for axis in search.space)], [*search.metrics, "Epochs"])
    title = "The Pareto front" if len(search.metrics) > 1 else "The best trials"
    table = (
        f'<table class="sortable"><caption>{title}{", then those that came to nothing" if bad else ""}</caption>'
        f"{head}<tbody>{''.join(_trial(search, trial) for trial in [*ranked, *bad])}</tbody></table>"
    )
    return (
        f'<h3>{escape(search.name)}</h3><p class="note">{escape(note)}</p><div class="figures">{"".join(figures)}</div>'
        + (_scroll(f"Trials of {search.name}", table) if ranked or bad else "")
    )


def _trial(search: Search, trial: Trial) -> str:
    params = (trial.params[axis["key"]] for axis in search.space)
    texts = [value if isinstance(value, str) else f"{value:.4g}" for value in params]
    values = [f"{value:.6g}" for value in trial.values or ()] or [""] * len(search.metrics)
    epochs = max((epochs for _, epochs in trial.runs), default=0)
    return (
        f'<tr><th scope="row">{trial.number}</th><td>{escape(trial.state)}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in texts)
        + "".join(f'<td class="number">{escape(value)}</td>' for value in values)
        + _number(epochs)
        + "</tr>"
    )


def _curves_note(collection: Collection, study: Study | None) -> str:
    cells = _configurations(collection.runs)
    note = "Point at the plot or move the slider to read values; × is where a run diverged. Bands: 95 % interval (t)."
    if cells > MOST_CURVES:
        metric, _ = summary.judged(collection)
        by = "" if metric is None else f" of the best {kind_of(metric, collection, study).title}"
        note += f" Of {cells:,} configurations the {MOST_CURVES}{by} are here."
    if len(collection.runs) > MOST_SINGLES:
        note += f" Single runs are left out, because there are more than {MOST_SINGLES}."
    return note


def _runs_note(collection: Collection) -> str:
    note = "Every run with its configuration and provenance: a run's name opens them."
    if len(collection.runs) > MOST_RUNS:
        note = f"The first {MOST_RUNS:,} of {len(collection.runs):,} runs; runs.csv has all."
    return note + " The filter takes words, or conditions on any column, as in the field's example."


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return "<p>Every run directory could be read.</p>"
    items = "".join(f"<li><code>{escape(problem)}</code></li>" for problem in problems[:_MOST_PROBLEMS])
    more = f"<p>And {len(problems) - _MOST_PROBLEMS:,} more.</p>" if len(problems) > _MOST_PROBLEMS else ""
    return f"<ul>{items}</ul>{more}"


def _again(study: Study | None) -> str:
    if study is None:
        return "<pre><code>mlp-sweeps collect\nmlp-sweeps report</code></pre>"
    words = ("train", "collect", "tables", "figures", "claims", "report")
    commands = (f"mlp-sweeps {word}" + (f" study={study.word}" if word != "collect" else "") for word in words)
    return f"<pre><code>{escape(chr(10).join(commands))}</code></pre>"


# -- pieces ----------------------------------------------------------------------------------------------------------


def _head(words: Iterable[str], numbers: Iterable[str]) -> str:
    cells = [f'<th scope="col">{escape(word)}</th>' for word in words]
    cells += [f'<th scope="col" class="number">{escape(word)}</th>' for word in numbers]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _number(value: int) -> str:
    return f'<td class="number">{value}</td>'


def _scroll(name: str, content: str) -> str:
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{content}</div>'
