"""Filters in plain words over a table: ``activ=gelu``, ``lr<=0.01``, ``state!=failed``, ``activ=relu,gelu``.

``tag`` and ``tags`` are the words in the column ``tags``: ``tag=good`` holds if one of them is ``good``, ``tag!=bad``
if none is ``bad``, and ``tag=`` if there are none.
"""

import operator
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sweeps.runs.conditions import Tags, compiled, names
from sweeps.runs.errors import InputError
from sweeps.runs.schema import suggest

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TAGS = ("tag", "tags")
_PATTERN = re.compile(r"(?P<column>[^=!<>]+)(?P<sign><=|>=|!=|=|<|>)(?P<values>[^=<>]*)")


@dataclass(frozen=True)
class Filter:
    """One condition on one column; several values are alternatives, and only ``=`` and ``!=`` take them."""

    column: str
    sign: str
    values: tuple[str, ...]

    def holds(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Whether each row passes. A missing value equals nothing, and is neither less nor greater.

        Raises:
            InputError: no such column, or the column's kind cannot be compared so.
        """
        if self.column in TAGS and self.sign in ("=", "!="):
            tagged = _tags(table).map(lambda tags: any(tags == value for value in self.values)).astype(bool)
            return tagged if self.sign == "=" else ~tagged
        column = table[known(self.column, table.columns)]
        numeric = pd.api.types.is_numeric_dtype(column)
        values: list[Any] = [_number(self.column, value) if numeric else value for value in self.values]
        if self.sign in ("=", "!="):
            found = column.isin(values)
            return found if self.sign == "=" else ~found
        if not numeric:
            raise InputError(self.column, f"{self.sign}{self.values[0]}", "is a text; compare it with = or !=")
        compared: pd.Series[bool] = _OPERATORS[self.sign](column, values[0])
        return compared


@dataclass(frozen=True)
class Expression:
    """A condition of :mod:`sweeps.runs.conditions` over the columns that it names."""

    text: str
    columns: tuple[str, ...]

    def holds(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Whether it is true of each row; a comparison with a missing value is false.

        Raises:
            InputError: no such column, or it cannot be evaluated.
        """
        columns = [known(column, table.columns) for column in self.columns if column not in TAGS]
        values: Any = table[columns].astype(object).where(table[columns].notna(), float("nan"))
        for column in set(self.columns) & set(TAGS):
            values[column] = _tags(table)
        condition = compiled(self.text)
        found: Any = [condition(row) for row in values.to_dict("records")]
        return pd.Series(found, index=table.index, dtype=bool)


def parse(words: Iterable[str]) -> tuple["Filter | Expression", ...]:
    """``["activ=relu,gelu", "lr<=0.01 state=finished"]``; quotes keep blanks within a value together.

    Raises:
        InputError: a word is not ``key OP value``.
    """
    return tuple(condition for text in words for condition in _conditions(text))


def _conditions(text: str) -> list["Filter | Expression"]:
    """A text of one or more filters, or a condition as grids have it under ``where``."""
    words = _split(text)
    if all(map(_PATTERN.fullmatch, words)):
        return [_parse(word) for word in words]
    try:
        columns = tuple(names(text))
    except InputError:
        columns = ()
    if not columns or not re.search("[=<>]| in ", text):
        return [_parse(word) for word in words]  # raises for the first that is not a filter
    return [Expression(text, columns)]


def apply(table: pd.DataFrame, filters: "Iterable[Filter | Expression]") -> pd.DataFrame:
    """The rows that pass all filters, in order, with their index.

    Raises:
        InputError: as :meth:`Filter.holds`.
    """
    keep = pd.Series(True, index=table.index)
    for condition in filters:
        keep &= condition.holds(table)
    return table[keep]


def known(column: str, columns: Iterable[str]) -> str:
    """The column's name, if the table has it.

    Raises:
        InputError: it has not; the message suggests the nearest.
    """
    columns = list(columns)
    if column not in columns:
        raise InputError("column", column, f"no such column{suggest(column, columns)}; known: {', '.join(columns)}")
    return column


def _tags(table: pd.DataFrame) -> "pd.Series[Any]":
    texts = table[known("tags", table.columns)]
    return pd.Series([Tags(text.split(",") if isinstance(text, str) else ()) for text in texts], texts.index, object)


def _split(text: str) -> list[str]:
    try:
        text.encode()  # a word of the command line may hold bytes that are not text
        return shlex.split(text)
    except ValueError as error:
        raise InputError("filter", text, f"cannot be read: {error}") from None


def _parse(word: str) -> Filter:
    match = _PATTERN.fullmatch(word)
    if match is None:
        raise InputError("filter", word, "must be KEY=VALUE, or with != < <= > >=, as in activ=relu,gelu or lr<=0.01")
    sign, values = match["sign"], tuple(match["values"].split(","))
    if sign in _OPERATORS and len(values) > 1:
        raise InputError("filter", word, f"{sign} takes one value; a list goes with = and !=")
    return Filter(match["column"], sign, values)


def _number(column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(column, value, "must be a number") from None
