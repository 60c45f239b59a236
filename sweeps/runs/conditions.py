"""The one language of conditions: over a point's keys in a grid's ``where``, over a run's columns in the readers.

    lr <= 0.01 or model == 'mlp2'      an expression
    activ=relu,gelu                    short, without blanks: one of these
    lr<=0.01   state!=failed           short, too
    tag=good   'good' in tags          of a run's tags

An expression is evaluated by walking its parse: comparisons, ``and``/``or``/``not``, ``in``, arithmetic, numbers, texts
and lists. Nothing can be called or indexed, and only the point's keys can be looked up.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sweeps.runs.errors import InputError, brief
from sweeps.runs.schema import suggest

_LONGEST = 50_000  # a list of a thousand cells

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, among: item in among,
    ast.NotIn: lambda item, among: item not in among,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
}


class Tags(tuple[str, ...]):
    """A run's tags as a value in conditions, which equals each of its words: ``tag == 'good'``; without any, ``''``."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return other in tuple(self) or (other == "" and not self)
        return tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


def holds(condition: str, point: Mapping[str, Any]) -> bool:
    """Whether ``condition`` is true of ``point``, a flat mapping of keys (``lr``, ``model``, ``activ.name``) to values.

    Raises:
        InputError: the condition cannot be parsed, has something else in it, or names an unknown key.
    """
    return compiled(condition)(point)


def compiled(condition: str) -> Callable[[Mapping[str, Any]], bool]:
    """The condition as a function of a point, for many of them.

    Raises:
        InputError: it cannot be parsed.
    """
    if comparison := short(condition):
        return partial(_compares, *comparison)
    return partial(_is_true, condition, _tree(condition))


def names(condition: str) -> list[str]:
    """The keys that a condition looks up.

    Raises:
        InputError: it cannot be parsed.
    """
    if comparison := short(condition):
        return [comparison[0]]
    tree = _tree(condition)
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Name, ast.Attribute))]
    inner = {ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return [name for name in dict.fromkeys(found) if name not in inner and name not in _WORDS]


def _tree(condition: str) -> ast.expr:
    if len(condition) > _LONGEST:
        raise InputError("where", condition, f"must be at most {_LONGEST} characters")
    try:
        return ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError("where", condition, "must be a condition like lr <= 0.01 or model == 'mlp2'") from None


def short(text: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Key, sign and values of the short form; None if the text is not of that form.

    >>> short("activ=relu,gelu")
    ('activ', '=', ('relu', 'gelu'))
    """
    match = _SHORT.fullmatch(text)
    return (match["key"], match["sign"], tuple(match["values"].split(","))) if match else None


_SHORT = re.compile(r"(?P<key>[^\s=!<>]+)(?P<sign><=|>=|!=|=|<|>)(?P<values>[^\s=<>]*)")
_WORDS = {"true": True, "false": False, "null": None}


def _compares(key: str, sign: str, values: tuple[str, ...], point: Mapping[str, Any]) -> bool:
    try:
        value = _look_up(key, point)
    except _Unusable as error:
        raise InputError("where", f"{key}{sign}{','.join(values)}", str(error)) from None
    if sign in ("=", "!="):
        return _among(key, value, values) == (sign == "=")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(key, f"{sign}{values[0]}", "is a text; compare it with = or !=")
    if len(values) > 1:
        raise InputError(
            "where", f"{key}{sign}{','.join(values)}", f"{sign} takes one value; a list goes with = and !="
        )
    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[sign]
    return bool(compare(value, _number(key, values[0])))


def _among(key: str, value: Any, values: tuple[str, ...]) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value in [_number(key, text) for text in values]
    if isinstance(value, Tags):
        return any(value == text for text in values)
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if isinstance(value, bool) or value is None else str(value)
    return text in values


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(key, text, "must be a number") from None


def _is_true(condition: str, tree: ast.expr, point: Mapping[str, Any]) -> bool:
    try:
        return bool(_evaluate(tree, point))
    except (RecursionError, MemoryError):
        raise InputError("where", condition, "must be a condition like lr <= 0.01 or model == 'mlp2'") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError("where", condition, f"cannot be evaluated: {error}") from None
    except _Unusable as error:
        raise InputError("where", condition, str(error)) from None


class _Unusable(Exception):
    pass


def _evaluate(node: ast.expr, point: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.List() | ast.Tuple() | ast.Set():
            return [_evaluate(element, point) for element in node.elts]
        case ast.Name() | ast.Attribute():
            return _look_up(ast.unparse(node), point)
        case ast.BoolOp(op=ast.And()):
            return all(_evaluate(value, point) for value in node.values)
        case ast.BoolOp(op=ast.Or()):
            return any(_evaluate(value, point) for value in node.values)
        case ast.UnaryOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_evaluate(node.operand, point))
        case ast.BinOp() if type(node.op) in _OPERATORS:
            left, right = _evaluate(node.left, point), _evaluate(node.right, point)
            if not all(isinstance(side, (int, float)) for side in (left, right)):  # no repeating of texts or lists
                raise _Unusable("arithmetic is for numbers")
            return _OPERATORS[type(node.op)](left, right)
        case ast.Compare() if all(type(op) in _OPERATORS for op in node.ops):
            values = [_evaluate(value, point) for value in (node.left, *node.comparators)]
            pairs = zip(node.ops, values, values[1:], strict=False)
            return all(_OPERATORS[type(op)](left, right) for op, left, right in pairs)
    raise _Unusable(
        f"cannot have {brief(ast.unparse(node))} in it; allowed are keys, values, comparisons, and, or, not, in"
    )


def _look_up(key: str, point: Mapping[str, Any]) -> Any:
    if key in point:
        return point[key]
    if key not in _WORDS:
        raise _Unusable(f"there is no key {brief(key)}{suggest(key, point)}; text needs quotes, as in activ == 'gelu'")
    return _WORDS[key]
