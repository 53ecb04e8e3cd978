"""A calculator: the value of an expression over numbers, and of nothing else."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

LONGEST = 200
"""The most characters of an expression."""
_BITS = 256
"""The size of the largest number."""
_PLACES = 6
"""The most decimal places of a value that is not whole; one that needs more is a fraction."""

_ARITHMETIC = re.compile(r"[0-9. eE+*/%()-]+")
_SIGNS = str.maketrans({"×": "*", "x": "*", "·": "*", "÷": "/", "\u2212": "-", "–": "-", "^": "**"})
_DYADIC: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_MONADIC: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def computed(expression: str) -> str | None:
    """The exact value of an expression, as text; None where it has none, or is more than arithmetic.

    It may have numbers, brackets, ``+ - * / // % **`` and the signs that people write for them.
    """
    written = expression.translate(_SIGNS).strip()
    if len(expression) > LONGEST or not _ARITHMETIC.fullmatch(written):
        return None
    try:
        value = _value(ast.parse(written, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, MemoryError, RecursionError):
        return None
    return _shown(value)


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _small(Fraction(str(number)))
        case ast.UnaryOp() if type(node.op) in _MONADIC:
            return _MONADIC[type(node.op)](_value(node.operand))
        case ast.BinOp(op=ast.Pow()):
            return _power(_value(node.left), _value(node.right))
        case ast.BinOp() if type(node.op) in _DYADIC:
            return _small(Fraction(_DYADIC[type(node.op)](_value(node.left), _value(node.right))))
        case _:
            raise ValueError("more than arithmetic")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or size * abs(exponent) > _BITS:
        raise ValueError("a power that is not whole or too large")
    return _small(base ** int(exponent))


def _small(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > _BITS:
        raise OverflowError
    return number


def _shown(value: Fraction) -> str:
    scaled = value * 10**_PLACES
    if scaled.denominator != 1:
        return str(value)
    whole, places = divmod(abs(scaled.numerator), 10**_PLACES)
    behind = f".{places:0{_PLACES}}".rstrip("0").rstrip(".")
    return f"{'-' if value < 0 else ''}{whole}{behind}"
