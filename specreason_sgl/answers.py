r"""Answers: what the last ``\boxed{}`` of a text holds."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{}``, braces inside it balanced; None where there is none."""
    for box in reversed(list(_BOX.finditer(text))):
        depth, start = 1, box.end()
        place = start
        while place < len(text):
            if text[place] == "\\":
                place += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[start:place].strip()
            place += 1
    return None


def is_same(answer: str | None, gold: str) -> bool:
    """Whether two answers are the same text or the same number, spaces and thousands separators aside."""
    if answer is None:
        return False
    left, right = _plain(answer), _plain(gold)
    if left == right:
        return True
    try:
        return float(left) == float(right)
    except ValueError:
        return False


def _plain(answer: str) -> str:
    return re.sub(r"\s+|(?<=\d),(?=\d{3}\b)", "", answer.strip().strip("$")).rstrip(".")
