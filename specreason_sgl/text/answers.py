r"""Answers: the content of the last ``\boxed{}`` of a text, and when two answers are obviously the same."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:\{"
    r"|(?P<bare>-?\d(?:[\d.,/]*\d)?(?![\w^])|(?<=\s)[A-Z]\b|\\[dt]?frac\s*(?:\d|\{[^{}]*\}){2}))"
)
_MARKUP = re.compile(r"\\(?:text\w*|mathrm|mbox|q?quad)|\\[,;:! ()\[\]]|[{}$~*]")
"""Markup that may stand between two boxes of one answer."""
_BESIDE = re.compile(
    r"[^\S\n]*\n?[^\S\n]*"  # nothing
    r"|\s*(?:for\ \w+\ )?\(?\w*\)?\s*(?:[,;&]|\b(?:and|or)\b)+\s*(?:and|or)?\s*(?:[A-Za-z]\w*\s*=)?\s*",
    re.VERBOSE,
)
"""What joins two boxes to one answer: nothing, or a comma or "and" with a unit before it and a name behind it."""
_FAR = 60
_DENIED = re.compile(r"\bnot[\s$*]*$")

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:[, ]\d{3})+|\d+)?(?:(?<=\d)\.?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)


class _Box(NamedTuple):
    start: int
    inside: int
    until: int
    end: int


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{}`` that holds anything, braces inside it balanced.

    A box after a "not" does not count. Boxes side by side are one answer, ``1, 2``. None where there is no box.
    """
    boxes = [box for box in _boxes(text) if not _DENIED.search(text[max(0, box.start - 10) : box.start])]
    complete = bool(boxes)
    while boxes and not text[boxes[-1].inside : boxes[-1].until].strip():
        boxes.pop()
    if not boxes:
        return "" if complete else None
    parts = [boxes.pop()]
    while boxes and _are_beside(text, boxes[-1], parts[-1]):
        parts.append(boxes.pop())
    insides = (text[box.inside : box.until].strip() for box in reversed(parts))
    return ", ".join(dict.fromkeys(filter(None, insides)))


def _boxes(text: str) -> list[_Box]:
    """All complete boxes, in the order of their beginnings."""
    found = list(_BOX.finditer(text))
    boxes = [_Box(box.start(), *box.span("bare"), box.end()) for box in found if box["bare"]]
    starts = {box.end() - 1: box.start() for box in found if not box["bare"]}
    opened: list[int] = []
    place = min(starts, default=len(text))
    # Once through: a model in a loop opens boxes by the thousand, and looking for the end of each would take minutes.
    while place < len(text):
        if text[place] == "{":
            opened.append(place)
        elif text[place] == "}" and opened and (start := opened.pop()) in starts:
            boxes.append(_Box(starts[start], start + 1, place, place + 1))
        place += 2 if text[place] == "\\" else 1
    return sorted(boxes)


def _are_beside(text: str, one: _Box, other: _Box) -> bool:
    if not one.end <= other.start <= one.end + _FAR:
        return False
    return _BESIDE.fullmatch(_MARKUP.sub("", text[one.end : other.start])) is not None


def is_same(answer: str | None, gold: str) -> bool:
    """Whether two answers are the same text or the same number, spaces and thousands separators aside."""
    if answer is None:
        return False
    left, right = _plain(answer), _plain(gold)
    if _without_spaces(left) == _without_spaces(right):
        return True
    if not _NUMBER.fullmatch(left) or not _NUMBER.fullmatch(right):
        return False
    return _number(left) == _number(right)


def _plain(answer: str) -> str:
    return " ".join(answer.strip().strip("$").rstrip("\\. ").split())


def _without_spaces(plain: str) -> str:
    """Remove the spaces, except between two digits: ``1 1/2`` is not ``11/2``."""
    return re.sub(r"(?<!\d) | (?!\d)", "", plain)


def _number(plain: str) -> Decimal:
    return Decimal(re.sub("[, ]", "", plain))
