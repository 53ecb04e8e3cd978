r"""Mathematics: `math-verify`, after a step that corrects what it would misread.

What cannot be decided, such as whether 15 cm are 15 m, is neither right nor wrong.
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
        "¢": r"\text{ cents}",
        **dict.fromkeys("\u00a0\u2009\u202f", " "),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
    }
)
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}

_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds"}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

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
    "week": "weeks?",
    "month": "months?",
    "year": "years?",
    "degree": r"degrees?|deg|\^\s*\{?\s*\\circ\s*",
    **{f"degree_{letter}": rf"\^\s*\{{?\s*\\circ\s*\}}?\s*(?:\\\w+\s*\{{)?\s*{letter}" for letter in "CF"},
    "rad": "rad|radians?",
    "l": "[lL]|lit(?:er|re)s?",
    "ml": "m[lL]|milli ?lit(?:er|re)s?",
    "N": "N|newtons?",
    "J": "J|joules?",
    "W": "W|watts?",
    **{
        name: name
        for name in ("kJ", "kW", "V", "mV", "kV", "Hz", "kHz", "MHz", "mg", "nm", "Pa", "kPa", "atm", "eV", "keV")
    },
    "ton": "tons?",
    "gallon": "gallons?",
    "acre": "acres?",
    "cent": "cents?",
    "dollar": "dollars?",
    "euro": "euros?",
    "pound": "pounds?",
    "am": r"[aA]\.?\s*[mM]\.?",
    "pm": r"[pP]\.?\s*[mM]\.?",
    **{month: month for month in _MONTHS},
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


def _scaled(found: re.Match[str]) -> str:
    return f"{found['number']} \\cdot 10^{{{_SCALES[found['scale']]}}}"


def _improper(found: re.Match[str]) -> str:
    whole, top, bottom = int(found["whole"]), int(found["top"]), int(found["bottom"])
    return _fraction(whole * bottom + top, bottom)


def _ratio(found: re.Match[str]) -> str:
    parts = [int(part) for part in found[0].split(":")]
    shared = math.gcd(*parts) or 1
    return f"({','.join(str(part // shared) for part in parts)})"


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
    # A stray backslash, comma or full stop at the end.
    (r"(?:(?<!\.)\.|(?<!\\)[,;])?[\\\s]*$", ""),
    (r"\.\s*\}$", "}"),
    # A power of ten as a computer writes it.
    (r"^(-?\d+(?:\.\d+)?)[eE]\+?(-?\d+)$", r"\1 \\cdot 10^{\2}"),
    # A dash for a minus.
    (r"^\u2013\s*(?=\d)", "-"),
    # What only changes how it looks.
    (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:boldsymbol|bm|bf|underline|[Ll]arge|LARGE)(?![A-Za-z])", ""),
    (r"\\operatorname\s*(?=\{\s*\d)|^(?:\*\*|__|`)|(?:\*\*|__|`)$", ""),
    (r"\\(?:operatorname\s*\{\s*(arc(?:sin|cos|tan))\s*\})", r"\\\1 "),
    (r"\\mathrm\s*\{\s*([ei])\s*\}", r"\1"),
    # What only says that an answer comes, or that it is rounded.
    (
        r"(?i)^(?:\\text\w*\s*\{\s*)?(?:the\s+)?(?:final\s+)?answer\s*(?::|is\b(?!\s*not\b):?)\s*(?:\}\s*)?(?=[^{}]*(?:\{|$))",
        "",
    ),
    (r"(?i)^(\\text\w*\s*\{)\s*(?:the\s+)?(?:final\s+)?answer\s*(?::|is\b(?!\s*not\b):?)", r"\1"),
    (r"^\\text\w*\s*\{\s*(?:about|approximately)\s*\}", ""),
    (r"^\\text\w*\s*\{[A-Za-z ]+\}\s*=", ""),
    # Other names of one sign.
    (r"^\\text\w*\s*\{\s*[Aa]ll real numbers\s*\}$", r"\\mathbb{R}"),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\langle(?![A-Za-z])", "("),
    (r"\\rangle(?![A-Za-z])", ")"),
    (r"\\cr(?![A-Za-z])", r"\\\\"),
    (r"\\bmod(?![A-Za-z])", r"\\pmod"),
    (r"\\text\w*\s*\{\s*,\s*\}", ","),
    (r"\\text\w*\s*\{\s*[Ii]nfinity\s*\}", r"\\infty"),
    (r"(?<=\d)\s*(?:\\colon|\{:\}|\\text\w*\s*\{\s*(?::|to)\s*\})\s*(?=\d)", ":"),
    (r"(?<=\d)\s*\^\s*\{?\s*\\text\w*\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),
    # Equations below one another.
    (
        r"^\\begin\s*\{(cases|aligned)\}(.*)\\end\s*\{\1\}$",
        lambda found: ", ".join(filter(None, (part.strip() for part in found[2].replace("&=", "=").split(r"\\")))),
    ),
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
    (r"(\^\s*\{?\s*\\circ\s*\}?)\s*([CF])$", r"\1\\text{\2}"),
    # A number and its unit in one text.
    (r"^\\text\w*\s*\{\s*(-?[\d.,:]+)\s*([^{}\d]*)\}", r"\1\\text{\2}"),
    # A mixed number of percent, and percent in words.
    (r"\s*(?:\\text\w*\s*\{\s*)?(?:\\?%|\b(?:percent|pct)\b)\s*\}?$", r"\\%"),
    (
        r"(?P<whole>\d+)\s*\\[dt]?frac\s*\{?\s*(?P<top>\d+?)\s*\}?\s*\{?\s*(?P<bottom>\d+)\s*\}?(?=\\%$)",
        _improper,
    ),
    # A ratio of more than two.
    (r"^\d+(?:\s*:\s*\d+){2,}$", _ratio),
    # Money, and large numbers in words.
    (
        r"^(?:\\text\w*\s*\{\s*)?\\?([$€£])\s*\}?\s*(\d[\d.,]*)$",
        lambda found: f"{found[2]}\\text{{ {_CURRENCIES[found[1]]}}}",
    ),
    (r"(?<=\d)\s*€$", r"\\text{ euros}"),
    (r"(?<=\d)\s*((?:dollar|cent|euro)s?)$", r"\\text{ \1}"),
    (
        rf"(?P<number>\d[\d.]*)\s*(?:\\text\w*\s*\{{\s*)?(?P<scale>{'|'.join(_SCALES)})s?\b(?:\s*dollars?)?\s*\}}?$",
        _scaled,
    ),
    # The base of a number, in whatever words.
    (r"^\((\w+)\)(?=_)|^\\(?:mathrm|text)\s*\{(\w+)\}(?=_)", lambda found: found[1] or found[2]),
    (r"(?<=\d)_\s*\{?\s*\\(?:text\w*|mathrm)\s*\{\s*(?:base[ -]*)?\}?\s*(?P<base>\w+)\s*\}*", _based),
    (r"(?<=\d)_\s*[{(]{0,2}(?P<base>\w+)[)}]{0,2}", _based),
    (r"(?<=\d)\s*(?:\\text\w*\s*\{)?\s*\(?\s*(?:in\s+)?base[ -]*\}?\s*(?P<base>\w+)\s*\)?\s*\}?", _based),
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
_TELLING = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:\b(?:not|never|cannot)|n['\u2019]t)(?:\s+(?:be|equal(?:\s+to)?))?[\s}$]*-?[\d.,/]+\W*$",
        r"\b(?:wrong|incorrect|not\s+(?:correct|right|true))[\s}.]*$|\\(?:neg|lnot)(?![a-z])",
        r"\bbetween[^a-z]*(?:\\text\w*)?[^a-z]*\band\b[\s}$]*-?[\d.,/]+\W*$",
        r"\bat\s+(?:most|least)\W*[\d.,/]*\W*$|\bor\s+(?:more|less|fewer)\W*$",
        r"^[^A-Za-z]*,\s*(?:\\[lc]?dots|\.\.\.|…)",  # a list with a part left out
        r"^(?:\\(?:[gl]e(?:q|qslant)?|neq?|[gl]t)(?![a-z])|[<>])",  # a bound without what it bounds
        r"\b(?:dozen|hundred|thousand|million|billion|trillion)s?\b",
        r"^\S{0,20}'(?![a-z])",  # a derivative
        r"^\S{0,20}''",
    )
)
"""Patterns of text that changes an answer's meaning but is lost when it is parsed."""
_TWO_UNITS = re.compile(r"\d\s*\\text\w*\s*\{\s*(?![,;]?\s*(?:and|or)?\s*\})[A-Za-z,;][^{}]*\}\s*\d")
_JOINED_BOUNDS = re.compile(r"(?=.*(?:[<>]|\\[gl](?:e|t)(?:q|qslant)?\b)).*\b(and|or)\b", re.DOTALL)
_POINT = re.compile(r"(?:\\left)?\([^(){}]*,[^(){}]*\)")
_SET = re.compile(r"(?:\\left)?\\\{[^(){}]*,[^(){}]*\\\}")
_NAMES = re.compile(r"[A-Z]{2,}")
_NAMED = re.compile(r"\(?([a-z])\s*=\s*([^=,]+?)\)?")
_DECIMAL = re.compile(r"-?\d*\.\d+")
PRECISION = 100
"""The digits to which exact numbers are compared; with math-verify's 15 digits, close numbers would count as equal."""
_ROUNDING = 6


def math_equal(answer: str, gold: str) -> bool | None:
    """Whether two answers are mathematically equal; None if one is no mathematics, or if it cannot be decided.

    Only for the main thread of a process, because of math-verify's own time limits.
    """
    left, right = _in_order(tidied(answer), tidied(gold))
    given, wanted = _parsed(left), _parsed(right)
    if not wanted or not given:
        return None
    bases = [set(_BASED.findall(text)) for text in (left, right)]
    if all(bases) and bases[0] != bases[1]:
        return False if _BASED.fullmatch(left) and _BASED.fullmatch(right) else None
    if all(map(_DECIMAL.fullmatch, (left, right))) and len(left) == len(right):
        return left == right
    same = _verified(
        wanted,
        given,
        float_rounding=_places(wanted[0]),
        numeric_precision=PRECISION,
        allow_set_relation_comp=True,
    )
    units = [unit for text in (left, right) if (unit := _unit(text))]
    if same is None or (same and (len(set(units)) > 1 or _may_differ(left, right))):
        return None
    if not same and len(percent := [text for text in (left, right) if text.endswith(r"\%")]) == 1:
        return _is_percent(percent[0].removesuffix(r"\%"), left if percent[0] == right else right)
    return same


def _verified(wanted: list[Any], given: list[Any], **more: Any) -> bool | None:
    """Whether math-verify takes both for equal; None if it has not found out in its time."""
    from math_verify import verify
    from math_verify.errors import TimeoutException

    try:
        return bool(verify(wanted, given, raise_on_error=True, **more))
    except TimeoutException:
        return None
    except Exception:  # noqa: BLE001 - what it cannot compare is not equal, whatever a computer algebra system makes of it
        return False


def _in_order(left: str, right: str) -> tuple[str, str]:
    """Both answers; if one is a point, named values in the other, ``x = 3, y = 4``, become a point in that order."""
    if _POINT.fullmatch(left):
        return left, _point(right)
    return (_point(left), right) if _POINT.fullmatch(right) else (left, right)


def _point(text: str) -> str:
    parts = [_NAMED.fullmatch(part.strip()) for part in re.split(r",|\\text\w*\s*\{\s*and\s*\}", text)]
    values = {part[1]: part[2] for part in parts if part}
    return f"({','.join(values[name] for name in sorted(values))})" if 1 < len(values) == len(parts) else text


def _may_differ(left: str, right: str) -> bool:
    """Whether two answers may differ although they are parsed to the same."""
    if any(bool(telling.search(left)) != bool(telling.search(right)) for telling in _TELLING):
        return True
    if any(map(_TWO_UNITS.search, (left, right))) and re.findall(r"\d+", left) != re.findall(r"\d+", right):
        return True
    joined = [found[1] for text in (left, right) if (found := _JOINED_BOUNDS.match(text))]
    if len(set(joined)) > 1 or (_NAMES.fullmatch(left) and _NAMES.fullmatch(right) and left != right):
        return True
    kinds = [bool(_POINT.fullmatch(text)) - bool(_SET.fullmatch(text)) for text in (left, right)]
    return kinds[0] * kinds[1] < 0


def _is_percent(percent: str, bare: str) -> bool:
    """Whether a bare number stands for a percentage; a number below 1 does not, as it could be a share."""
    one, other = _parsed(percent), _parsed(bare)
    try:
        return bool(_verified(one, other, float_rounding=_ROUNDING)) and abs(float(one[0])) >= 1
    except (TypeError, ValueError, IndexError):
        return False


def tidied(text: str) -> str:
    """An answer in a form that math-verify reads correctly."""
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
    """Inequalities joined by a word, as the set that they describe; anything else unchanged."""
    from sympy import FiniteSet, Intersection, Union
    from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

    inequalities = (GreaterThan, LessThan, StrictGreaterThan, StrictLessThan)
    join = Union if re.search(r"\bor\b|\\(?:lor|vee)\b", text) else Intersection
    if not isinstance(found, FiniteSet) or not all(isinstance(part, inequalities) for part in found.args):
        return found
    return join(*(part.as_set() for part in found.args)) if re.search(r"\b(?:or|and)\b", text) else found


def _places(gold: Any) -> int:
    """The decimal places to compare: more for a number with zeros after the decimal point."""
    try:
        size = abs(float(gold))
    except (TypeError, ValueError, OverflowError):
        return _ROUNDING
    return _ROUNDING - 3 - math.floor(math.log10(size)) if 0 < size < 10**-3 else _ROUNDING


def _unit(text: str) -> str | None:
    """The unit at the end of an answer, in a short form; None if there is no known unit."""
    found = _MEASURED.search(text)
    if not found:
        return None
    name = next(name for name in _WORDS_OF_UNITS if found[name])
    power = found["power"] or ("2" if found["square"] else "3" if found["cube"] else "1")
    return f"{name}^{power}/{found['per'] or ''}"
