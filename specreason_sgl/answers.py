r"""Answers: what the last ``\boxed{}`` of a text holds."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{}``, braces inside it balanced; None where there is none."""
    starts = {box.end() - 1 for box in _BOX.finditer(text)}
    found: tuple[int, int] | None = None
    opened: list[int] = []
    place = min(starts, default=len(text))
    # Once through: a model in a loop opens boxes by the thousand, and looking for the end of each would take minutes.
    while place < len(text):
        if text[place] == "{":
            opened.append(place)
        elif text[place] == "}" and opened and (start := opened.pop()) in starts and (not found or start > found[0]):
            found = start, place
        place += 2 if text[place] == "\\" else 1
    return text[found[0] + 1 : found[1]].strip() if found else None


def is_same(answer: str | None, gold: str) -> bool:
    """Whether two answers are the same text or the same number, spaces and thousands separators aside."""
    if answer is None:
        return False
    left, right = _plain(answer), _plain(gold)
    if left == right:
        return True
    try:
        return Decimal(left) == Decimal(right)
    except InvalidOperation:
        return False


def _plain(answer: str) -> str:
    return re.sub(r"\s+|(?<=\d),(?=\d{3}\b)", "", answer.strip().strip("$")).rstrip(".")
