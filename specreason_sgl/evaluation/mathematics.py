r"""Mathematics: `math-verify`, behind a step that mends what it misreads.

What cannot be told, such as whether 15 cm are 15 m, is neither right nor wrong.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any

_SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "×": r"\times ",
        "÷": r"\div ",
        "·": r"\cdot ",
        "±": r"\pm ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∞": r"\infty ",
        "π": r"\pi ",
        "\u222a": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ",
        "°": r"^\circ ",
        **dict.fromkeys("\u00a0\u2009\u202f", " "),
    }
)
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}

_WORDS_OF_UNITS = {
    "mm": "mm|milli ?met(?:er|re)s?",
    "cm": "cm|centi ?met(?:er|re)s?",
    "km": "km|kilo ?met(?:er|re)s?",
    "m": "m|met(?:er|re)s?",
    "in": "in|inch(?:es)?",
    "ft": "ft|foot|feet",
    "yd": "yd|yards?",
    "mi": "mi|miles?",
    "g": "g|grams?",
    "kg": "kg|kilo ?grams?",
    "s": "s|sec|seconds?",
    "min": "min|minutes?",
    "h": "h|hr|hrs|hours?",
    "day": "days?",
    "degree": "degrees?",
    "cent": "cents?",
    "dollar": "dollars?",
}
_UNIT = "|".join(f"(?P<{name}>{words})" for name, words in _WORDS_OF_UNITS.items())
_LONG = r"(?:[cdkm]m|in(?:ch(?:es)?)?|ft|feet|yd|yards?|mi|miles?|units?|(?:kilo|centi|milli)?met(?:er|re)s?|kg)"
_SHORT = rf"(?:{_LONG}|[mgls]|h(?:ours?|r)?|min(?:ute)?s?|sec(?:ond)?s?)"


def _fraction(top: int | str, bottom: int | str) -> str:
    return f"\\frac{{{top}}}{{{bottom}}}"


def _repeating(found: re.Match[str]) -> str:
    fixed = found["whole"] + found["fixed"]
    nines = 10 ** len(found["fixed"]) * (10 ** len(found["again"]) - 1)
    value = Fraction(int(fixed + found["again"]) - int(fixed or "0"), nines)
    return _fraction(value.numerator, value.denominator)


def _based(found: re.Match[str]) -> str:
    return f"_{{{_BASES.get(found['base'].lower(), found['base'])}}}"


_TIDY: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # Repeating decimals are fractions.
    (r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?", r"\\overline{\1\2\3}"),
    (
        r"(?P<whole>\d+|(?<![\w)}]))\.(?P<fixed>\d*)(?:\\(?:overline|bar|dot)\s*\{?|(?<=\d\.)\(|(?<=\.\d)\()(?P<again>\d+)[)}]?",
        _repeating,
    ),
    (r"(?P<whole>\d*)\.(?P<fixed>\d*?)(?P<again>\d+?)(?P=again){2,}\s*(?:\.\.\.|…|\\[lc]?dots)", _repeating),
    # A stray backslash or full stop at the end.
    (r"(?<!\.)\.?[\\\s]*$", ""),
    # Formulas that are joined by a word are one formula.
    (r"\s*\$\s*(,|;|and|or)\s*\$\s*", r" \1 "),
    # Unicode, where math-verify reads something else.
    (r"[¼-¾⅐-⅞]", lambda found: _fraction(*unicodedata.normalize("NFKD", found[0]).split("\u2044"))),
    (r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\)|\{[^{}]*\})", lambda f: f"\\sqrt{_ROOTS[f[1]]}{{{f[2]}}}"),
    (r"[⁰¹²³⁴-⁹⁺⁻]+", lambda found: f"^{{{unicodedata.normalize('NFKD', found[0])}}}"),
    (r"[₀-₉]+", lambda found: f"_{{{unicodedata.normalize('NFKD', found[0])}}}"),
    # Thousands that are set apart by a space or a tie, not by a comma alone: that may be a list.
    (
        r"(?<![\d.])\d{1,3}(?:(?:,\\!|\{,\}|\\[,;:! ]|~| )(?:\s|\\,)*\d{3})+(?![\d/])",
        lambda found: re.sub(r"\D", "", found[0]),
    ),
    (r"(?<!\\)\\[,;:! ]|~", " "),
    # The space below a row of a matrix.
    (r"\\\\\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]", r"\\\\"),
    # Two signs for one thing.
    (r"\\varnothing", r"\\emptyset"),
    (r"\\degree(?![a-z])", r"^\\circ"),
    # A mixed number with a slash.
    (r"(?<![\d./^_{])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
    # The base of a number, in whatever words.
    (r"(?<=\d)_\s*\{?\s*\\text\w*\s*\{\s*(?:base[ -]*)?(?P<base>\w+)\s*\}\s*\}?", _based),
    (r"(?<=\d)_\s*[{(]{0,2}(?P<base>\w+)[)}]{0,2}", _based),
    (r"(?<=\d)\s*(?:\\text\w*\s*\{)?\s*\(?\s*(?:in\s+)?base[ -]*\}?\s*(?P<base>\w+)\s*\)?\s*\}?", _based),
    # A number and its unit in one text.
    (r"^\\text\w*\s*\{\s*(-?[\d.,]+)\s*([^{}\d]*)\}", r"\1\\text{\2}"),
    # A unit with a power, or per another; one letter with a power is a variable.
    (rf"(?<=[\d}} ])({_LONG}\^\{{?\d\}}?|{_SHORT}\s*(?:/|per)\s*{_SHORT}(?:\^\{{?\d\}}?)?)$", r"\\text{\1}"),
    # A set that is built by a condition.
    (
        r"^(?:\\left)?\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|\\colon|[:|])(.*?)(?:\\right)?\\\}$",
        r"\1",
    ),
)
_STEPS = tuple((re.compile(pattern), change) for pattern, change in _TIDY)

_SPAN = re.compile(r"(?<!\\)(?:\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)
_PROSE = re.compile(r"(?:(?<![\\{A-Za-z'])[A-Za-z']{2,}\s+){3}")
_BASED = re.compile(r"0*(\w*\d)_\{(\w+)\}")
_MEASURED = re.compile(
    rf"(?P<square>sq(?:uare|\.)?\s+)?(?P<cube>cu(?:bic|\.)?\s+)?(?:{_UNIT})"
    r"(?:\}?\^\{?(?P<power>\d)\}?|\}?\s*(?:\\text\w*\{)?\s*(?:/|per)\s*(?:\\text\w*\{)?(?P<per>.+?))?\s*\}?$"
)
PRECISION = 100
"""Digits to which exact numbers are compared; at the fifteen of math-verify all that is smaller is the same."""
_ROUNDING = 6


def math_equal(answer: str, gold: str) -> bool | None:
    """Whether two answers are mathematically the same; None if one of them is no mathematics, or if it cannot be told.

    Only for the main thread of a process, because of math-verify's own time limits.
    """
    from math_verify import verify

    left, right = tidied(answer), tidied(gold)
    given, wanted = _parsed(left), _parsed(right)
    if not wanted or not given:
        return None
    bases = [set(_BASED.findall(text)) for text in (left, right)]
    if all(bases) and bases[0] != bases[1]:
        return False if _BASED.fullmatch(left) and _BASED.fullmatch(right) else None
    same = verify(
        wanted,
        given,
        float_rounding=_places(wanted[0]),
        numeric_precision=PRECISION,
        allow_set_relation_comp=True,
    )
    units = [unit for text in (left, right) if (unit := _unit(text))]
    return None if same and len(set(units)) > 1 else bool(same)


def tidied(text: str) -> str:
    """An answer as math-verify reads it right."""
    return reduce(lambda read, step: step[0].sub(step[1], read), _STEPS, text.strip().translate(_SIGNS))


def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    if whole := _SPAN.fullmatch(text):
        text = whole[whole.lastindex or 0]
    spans = list(_SPAN.finditer(text))
    if any("\n" in (span[2] or span[3] or "") for span in spans):
        return []  # a formula in a line does not go over several
    found = list(parse(text if spans or _PROSE.search(text) else f"\\boxed{{{text}}}"))
    return [_union(found[0], text), *found[1:]] if found else []


def _union(found: Any, text: str) -> Any:
    """Inequalities that are joined by a word, as the set they describe; anything else as it is."""
    from sympy import FiniteSet, Intersection, Union
    from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

    inequalities = (GreaterThan, LessThan, StrictGreaterThan, StrictLessThan)
    join = Union if re.search(r"\bor\b|\\(?:lor|vee)\b", text) else Intersection
    if not isinstance(found, FiniteSet) or not all(isinstance(part, inequalities) for part in found.args):
        return found
    return join(*(part.as_set() for part in found.args)) if re.search(r"\b(?:or|and)\b", text) else found


def _places(gold: Any) -> int:
    """Decimal places to compare to: more of them for a number that begins later."""
    try:
        size = abs(float(gold))
    except (TypeError, ValueError, OverflowError):
        return _ROUNDING
    return _ROUNDING - 3 - math.floor(math.log10(size)) if 0 < size < 10**-3 else _ROUNDING


def _unit(text: str) -> str | None:
    """The unit at the end in a few letters; None if there is none that is known."""
    found = _MEASURED.search(text)
    if not found:
        return None
    name = next(name for name in _WORDS_OF_UNITS if found[name])
    power = found["power"] or ("2" if found["square"] else "3" if found["cube"] else "1")
    return f"{name}^{power}/{found['per'] or ''}"
