r"""The formulas in a text as MathML, and never as anything else.

What a model wrote is hostile: of what the library makes of a formula only elements and attributes on a list get
through, and a formula with anything beyond them, or with unusual size, stays the text that it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element

from specreason_sgl.view.text import visible

LENGTH = 2000
"""The most characters of a formula."""
DEPTH = 40
"""The most elements inside one another."""
NUMBER = 1000
"""The most formulas in one text that are tried."""

_LEAVES = frozenset({"mi", "mn", "mo", "mtext"})
_GROUPS = frozenset({"math", "mrow", "mstyle", "msqrt", "mtable", "mtr", "mtd", "menclose"})
_PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
"""The elements whose parts each have a place of their own."""
ELEMENTS = _LEAVES | _GROUPS | _PARTS.keys() | {"mspace"}

_FLAG = re.compile("true|false")
_SIZE = re.compile(r"-?0?\.\d{1,4}em|[0-2](\.\d{1,4})?em")
_SIDES = re.compile(r"(left|right|center)( (left|right|center)){0,9}")
_LINES = re.compile(r"(solid|dashed|none)( (solid|dashed|none)){0,19}")
ATTRIBUTES = {
    "accent": _FLAG,
    "columnalign": _SIDES,
    "columnlines": _LINES,
    "display": re.compile("block|inline"),
    "displaystyle": _FLAG,
    "fence": _FLAG,
    "form": re.compile("prefix|infix|postfix"),
    "largeop": _FLAG,
    "linethickness": re.compile("0"),
    "mathvariant": re.compile("[a-z-]{1,24}"),
    "maxsize": _SIZE,
    "minsize": _SIZE,
    "movablelimits": _FLAG,
    "notation": re.compile("box"),
    "rowlines": _LINES,
    "scriptlevel": re.compile("[0-3]"),
    "stretchy": _FLAG,
    "width": _SIZE,
}
"""The attributes that get through, each with the whole of its values."""

_REFUSED = re.compile(r"\\(newcommand|newenvironment|def|DeclareMathOperator|sideset|genfrac|verb|unicode)|(?<!\\)%")
"""What defines, copies or drops parts of a formula."""
_REFERENCE = re.compile("&#x([0-9A-Fa-f]{1,6});")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-z]+\*?)\}")
_KNOWN_AS = {
    **dict.fromkeys(("align", "align*", "aligned", "eqnarray", "eqnarray*"), "split"),
    **dict.fromkeys(("gather", "gather*", "gathered"), "matrix"),
}
"""Environments that the library does not lay out, or numbers, each with one that it does."""
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_COMMAND = re.compile(r"\\[A-Za-z]")

_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\}"
_FORMULA = re.compile(
    rf"""
    (?<!\\)\\\( (?P<round> (?:[^\\]|\\[^()]){{1,{LENGTH}}} ) \\\)
    | (?<!\\)\\\[ (?P<square> (?:[^\\]|\\[^\[\]]){{1,{LENGTH}}} ) \\\]
    | (?<!\\)\$\$ (?P<dollars> [^$]{{1,{LENGTH}}} ) \$\$
    | (?<![\\$\w])\$ (?P<dollar> (?!\s) (?:[^$\\]|\\.){{1,{LENGTH}}} (?<!\s) ) \$(?![\d$])
    | (?P<boxed> \\boxed\s?{_BRACES} )
    """,
    re.VERBOSE | re.DOTALL,
)
_LINE_END = re.compile("[ ]*\n?[ ]*")
"""What would be an empty line after a formula that stands on a line of its own."""
_NAMED = re.compile(r"\\(text|mathrm|mbox|operatorname)[a-z]*\s*\{[^{}]*\}|\\[A-Za-z]+")
_SENTENCE = re.compile(r"\n\s*\n|[a-z]{2}[\s,;]+[A-Za-z]?[a-z]{2}")
_WORDS = re.compile(r"\\boxed\s?\{([^\\{}^_$]*[A-Za-z]{2}[^\\{}^_$]*)\}")


class _Strange(Exception):
    """A formula has something that is not on the lists."""


def with_formulas(text: str) -> tuple[str, bool]:
    """A visible text as HTML with its formulas as MathML, and whether it has any."""
    pieces = list(_pieces(text))
    return "".join(made for made, _ in pieces), any(is_formula for _, is_formula in pieces)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    begin = end = 0
    for _ in range(NUMBER):
        found = _FORMULA.search(text, end)
        if found is None:
            break
        end = found.end()
        kind = found.lastgroup or ""
        if kind == "dollar" and _SENTENCE.search(_NAMED.sub("=", found[kind])):
            end -= 1  # two amounts of money; the second sign can begin a formula
            continue
        block = kind in {"square", "dollars"}
        made = mathml(found[kind], block=block)
        if made is not None:
            before = text[begin : found.start()]
            yield html.escape(before.rstrip(" ").removesuffix("\n") if block else before), False
            yield made, True
            after = _LINE_END.match(text, end) if block else None
            begin = end = after.end() if after else end
    yield html.escape(text[begin:]), False


@lru_cache(maxsize=4096)
def mathml(formula: str, *, block: bool = False) -> str | None:
    """A formula as MathML; None if it cannot be read, or is not to be trusted."""
    if len(formula) > LENGTH or _REFUSED.search(formula) or not _is_balanced(formula):
        return None
    if words := _WORDS.fullmatch(formula):
        formula = rf"\boxed{{\text{{{words[1]}}}}}"
    formula = _ENVIRONMENT.sub(lambda found: rf"\{found[1]}{{{_KNOWN_AS.get(found[2], found[2])}}}", formula)
    from latex2mathml.converter import convert_to_element  # reads a table of symbols, which takes a while

    try:
        return _markup(convert_to_element(formula, display="block" if block else "inline"))
    except Exception:  # noqa: BLE001 - the library raises whatever a strange formula leads it to
        return None


def _is_balanced(formula: str) -> bool:
    depth = 0
    for brace in _BRACE.findall(formula):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if not 0 <= depth <= DEPTH:
            return False
    return depth == 0


def _markup(element: Element, depth: int = 0) -> str:
    tag = element.tag
    if depth > DEPTH or tag not in ELEMENTS or len(element) != _PARTS.get(tag, len(element)):
        raise _Strange
    if tag == "menclose" and element.get("notation") != "box":
        raise _Strange
    if element.text == "&":  # a column outside of any table
        raise _Strange
    text = _REFERENCE.sub(lambda found: chr(int(found[1], 16)), element.text or "")
    if _COMMAND.search(text) or (text and tag not in _LEAVES) or (len(element) and tag in _LEAVES):
        raise _Strange
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value)
    )
    inside = html.escape(visible(text)) + "".join(_markup(child, depth + 1) for child in element)
    return f"<{tag}{attributes}>{inside}</{tag}>"
