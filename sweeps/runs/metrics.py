"""A run's metrics: one row per epoch, with the names that the program logs, and their CSV file."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeps.runs.errors import InputError

NAME = re.compile(r"[A-Za-z_][\w./-]{0,99}")
RESERVED = ("epoch", "step", "run")
"""Names that the tables use themselves."""


class Row(dict[str, float]):
    """One epoch's metrics, by name: ``row["loss"]`` or ``row.loss``; ``row.epoch`` counts from 1."""

    def __getattr__(self, name: str) -> float:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def epoch(self) -> int:
        return int(self["epoch"])

    @property
    def metrics(self) -> dict[str, float]:
        """All but the epoch's number."""
        return {name: value for name, value in self.items() if name != "epoch"}

    @property
    def total_seconds(self) -> float:
        """Training and, if recorded separately, evaluation."""
        return self.get("seconds", 0.0) + self.get("eval_seconds", 0.0)


def checked(values: Mapping[str, object]) -> dict[str, float]:
    """Metrics as plain numbers; anything with a single number is accepted (NumPy, PyTorch, JAX scalars).

    Raises:
        InputError: a value is not a number, or a name cannot be a column.
    """
    return {name: number(name, value) for name, value in values.items()}


def number(name: str, value: object) -> float:
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InputError("metric", name, f"must be letters, digits and _ . / -, and none of {', '.join(RESERVED)}")
    if type(value) is float:
        return value
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        if hasattr(value, "detach"):  # PyTorch warns of the graph of a loss
            value = value.detach()
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"metric {name}", value, "must be a number") from None


def best(history: Iterable[Row], metric: str | None, maximize: bool) -> Row | None:
    """The first row of the highest (or lowest) ``metric``; None where nothing is declared or logged."""
    rows = [row for row in history if metric in row and not math.isnan(row[metric])] if metric else []
    return (max if maximize else min)(rows, key=lambda row: row[metric or ""], default=None)


def columns(history: Sequence[Row]) -> list[str]:
    """``epoch`` and every name of any row, in the order in which they appeared."""
    return list(dict.fromkeys(["epoch", *(name for row in history for name in row)]))


def to_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def table(history: Sequence[Row], names: Sequence[str]) -> bytes:
    """The whole file: a header of names, then the rows; a name that a row lacks is an empty cell."""
    return to_csv([names, *(cells(row, names) for row in history)])


def cells(row: Row, names: Sequence[str]) -> list[Any]:
    return [row.epoch if name == "epoch" else row.get(name, "") for name in names]


def parse(content: bytes) -> list[Row]:
    """The complete rows of a table; a torn last one is left out.

    Raises:
        ValueError: it is not a table of the epochs 1, 2, 3, ….
    """
    text = content.decode()
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or ["epoch"]
    names = header.split(",")
    if names[0] != "epoch" or len(set(names)) < len(names) or not all(map(NAME.fullmatch, names)):
        raise ValueError("unknown columns")
    rows = [parse_row(line, names) for line in lines]
    if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError("epochs are not 1, 2, 3, …")
    return rows


def parse_row(line: str, names: Sequence[str]) -> Row:
    texts = line.split(",")
    if len(texts) != len(names):
        raise ValueError(f"{len(texts)} cells in a row of {len(names)}")
    if not (texts[0].isascii() and texts[0].isdecimal()) or len(texts[0]) > 12:  # int() of a long text takes long
        raise ValueError("not an epoch")
    row = Row(epoch=int(texts[0]))
    row.update({name: float(text) for name, text in zip(names[1:], texts[1:], strict=True) if text})
    return row
