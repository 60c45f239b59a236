"""Conditions over a point's keys, as in ``where: lr <= 0.01 or model == 'mlp2'``.

Evaluated by walking the parsed expression: comparisons, ``and``/``or``/``not``, ``in``, arithmetic, numbers, texts
and lists. There is nothing in it to call, to index or to look up but the point's own keys.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from sweeps.runs.errors import InputError
from sweeps.runs.schema import suggest

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


def holds(condition: str, point: Mapping[str, Any]) -> bool:
    """Whether ``condition`` is true of ``point``, a flat mapping of keys (``lr``, ``model``, ``activ.name``) to values.

    Raises:
        InputError: the condition cannot be parsed, has something else in it, or names an unknown key.
    """
    if len(condition) > 1000:
        raise InputError("where", condition, "must be at most 1000 characters")
    try:
        return bool(_evaluate(ast.parse(condition.strip(), mode="eval").body, point))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError("where", condition, "must be a condition like lr <= 0.01 or model == 'mlp2'") from None
    except (TypeError, ZeroDivisionError) as error:
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
    raise _Unusable(f"cannot have {ast.unparse(node)} in it; allowed are keys, values, comparisons, and, or, not, in")


def _look_up(key: str, point: Mapping[str, Any]) -> Any:
    names = {"true": True, "false": False, "null": None} | dict(point)
    if key not in names:
        raise _Unusable(f"there is no key {key}{suggest(key, point)}; a text wants quotes, as in activ == 'gelu'")
    return names[key]
