"""A table of cells, as Markdown for GitHub, LaTeX with booktabs, and CSV."""

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.runs.files import write_atomic
from sweeps.runs.reading import no_formula

_NONE = "—"  # nothing was run


@dataclass(frozen=True)
class Cell:
    """One configuration's metric over its seeds."""

    metric: str
    digits: int
    mean: float = math.nan
    half: float = math.nan
    """Half-width of the 95 % interval; NaN for fewer than two seeds."""
    n: int = 0
    reference: float | None = None
    """The number to compare with, if there is one."""
    marks: tuple[str, ...] = ()
    """Marks: diverged, unfinished, mixed."""

    @property
    def difference(self) -> float:
        """Ours minus the reference's; NaN where either is missing."""
        return math.nan if self.reference is None else self.mean - self.reference

    def text(self) -> str:
        """``97.75 ± 0.10 (−0.13)``, then the marks."""
        parts = []
        if self.n:
            parts.append(f"{self.mean:.{self.digits}f}")
            if not math.isnan(self.half):
                parts.append(f"± {self.half:.{self.digits}f}")
            if not math.isnan(self.difference):
                parts.append(f"({_signed(self.difference, self.digits)})")
        return "; ".join(filter(None, (" ".join(parts), *self.marks))) or _NONE


@dataclass(frozen=True)
class Row:
    """Its label, one word for each column of the stub, and its cells; a text is a number of the reference, or empty."""

    label: tuple[str, ...]
    cells: tuple[Cell | str, ...]


@dataclass(frozen=True)
class Table:
    """A comparison's table, in full precision."""

    name: str
    title: str
    stub: tuple[str, ...]
    """Headings of the row labels."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    panel: int = 6
    """Columns that stand side by side; further ones go below."""

    def to_markdown(self) -> str:
        """GitHub's Markdown: title, one table for each panel, notes."""
        blocks = [f"### {_markdown(self.title)}"]
        for header, body in self._panels():
            lines = [header, ["---"] * len(self.stub) + ["---:"] * (len(header) - len(self.stub)), *body]
            escaped = [[_markdown(cell) for cell in line] for line in lines]
            widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
            blocks.append("\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in escaped))
        blocks.append("\n".join(f"- {_markdown(note)}" for note in self._notes()))
        return "\n\n".join(blocks) + "\n"

    def to_latex(self) -> str:
        r"""A ``table`` float; the document needs ``\usepackage{booktabs,graphicx}``."""
        width = len(self.stub) + max(len(header) - len(self.stub) for header, _ in self._panels())
        lines = [r"\begin{table}[htbp]", r"\centering\small", rf"\caption{{{_latex(self.title)}}}"]
        lines += [rf"\label{{tab:{self.name}}}", r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
        lines += [rf"\begin{{tabular}}{{{'l' * len(self.stub)}{'r' * (width - len(self.stub))}}}", r"\toprule"]
        for i, (header, body) in enumerate(self._panels()):
            if i:
                lines.append(r"\midrule[\heavyrulewidth]")
            lines += [_latex_row(header, width), r"\midrule"]
            for j, line in enumerate(body):
                if j and line[0] and len(self.stub) > 1:
                    lines.append(r"\addlinespace[2pt]")
                lines.append(_latex_row(line, width))
        lines += [r"\bottomrule", r"\end{tabular}}", "", r"\smallskip"]
        lines.append(rf"\parbox{{\linewidth}}{{\footnotesize {' '.join(map(_latex, self._notes()))}}}")
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def to_csv(self) -> str:
        """One line per cell, full precision; empty where there is no number."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            ["table", "row", "column", "metric", "mean", "half_width", "n", "reference", "difference", "marks"]
        )
        label: tuple[str, ...] = ()
        for row in self.rows:
            label = tuple(new or old for new, old in itertools.zip_longest(row.label, label, fillvalue=""))
            for column, cell in zip(self.columns, row.cells, strict=True):
                if isinstance(cell, Cell):
                    numbers = (cell.mean, cell.half, cell.n, cell.reference, cell.difference)
                    texts = ["" if x is None or math.isnan(x) else repr(x) for x in numbers]
                    marks = "; ".join(cell.marks) or ("" if cell.n else "missing")
                    names = map(no_formula, (self.name, " ".join(label), column, cell.metric))
                    writer.writerow([*names, *texts, marks])
        return buffer.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """``folder``/NAME.md, .tex and .csv."""
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for suffix, text in (("md", self.to_markdown()), ("tex", self.to_latex()), ("csv", self.to_csv())):
            path = folder / f"{self.name}.{suffix}"
            write_atomic(path, text.encode())
            written.append(path)
        return written

    def _panels(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Header and body of each panel, as texts."""
        for start in range(0, len(self.columns), self.panel):
            chosen = slice(start, start + self.panel)
            body = [[*row.label, *map(_text, row.cells[chosen])] for row in self.rows]
            sizes = self._sizes(chosen)
            yield [*self.stub, *self.columns[chosen]], [*body, ["n", *[""] * (len(self.stub) - 1), *sizes]]

    def _sizes(self, columns: slice) -> list[str]:
        """Seeds behind each column: one number, or the range over its cells."""
        sizes = []
        for i in range(*columns.indices(len(self.columns))):
            counts = sorted({cell.n for row in self.rows if isinstance(cell := row.cells[i], Cell)})
            sizes.append(str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}" if counts else "")
        return sizes

    def _notes(self) -> tuple[str, ...]:
        missing = any(isinstance(cell, Cell) and cell.text() == _NONE for row in self.rows for cell in row.cells)
        return (*self.notes, f"{_NONE}: not run.") if missing else self.notes


def _text(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else cell.text()


def _signed(x: float, digits: int) -> str:
    """With a true minus, and no sign for what rounds to zero."""
    text = f"{abs(x):.{digits}f}"
    return text if not float(text) else f"{'+' if x > 0 else '−'}{text}"


def _markdown(text: str) -> str:
    for special in "\\`*[]<>|&~":
        text = text.replace(special, f"\\{special}")
    # within a word it is plain in Markdown, and so in a terminal
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a row it would be an argument of the one before
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    **{special: f"\\{special}" for special in "$%&#_"},
}


def _latex(text: str) -> str:
    """Escaped, and ASCII alone, so that any engine and font will do."""
    return "".join(_LATEX.get(c, c if c.isascii() and c.isprintable() else "?") for c in text)


def _latex_row(cells: list[str], width: int) -> str:
    return " & ".join([*map(_latex, cells), *[""] * (width - len(cells))]) + r" \\"
