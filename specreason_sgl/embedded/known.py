# ruff: noqa: SIM905 - words are easier to read in a line than in quotation marks
"""What the embedded pair knows, and whether a question is of that kind by its words."""

from __future__ import annotations

import re

from specreason_sgl.embedded.tales import words

EXAMPLES = (
    "Maria had 50 euros. She spent 18 euros on a book. How many euros are left?",
    "Tom has 3 boxes with 4 pens each. How many pens does Tom have?",
    "What is 12 + 7 * 3?",
)
_BEYOND = frozenset(
    "percent percentage fraction fractions average mean median probability chance area perimeter volume radius "
    "triangle circle square root prime factor factors derivative integral equation solve prove angle speed ratio "
    "integer integers polynomial function matrix vector sequence remainder modulo".split()
)
_ASKING = frozenset(
    "what is calculate work out how much compute find the value of evaluate please result do you get for when does "
    "make plus minus times divided by x and multiplied".split()
)
"""The words around an expression."""
_COUNTED = "dozen|half|twice|double|pairs?|seconds?|minutes?|hours?|days?|weeks?|months?|years?"
_NUMBER = re.compile(rf"\d+|\b(?:{'|'.join(words.NUMBER_WORDS[1:])}|{_COUNTED})\b")
_ASKS = re.compile(r"\bhow (?:many|much|old)\b|\bwhat\b|\bfind\b|\bcalculate\b|\bwrite\b")
_UNKNOWN = re.compile(r"\d[.,]\d|[\\^%{}]|(?<![\d)])(?<![\d)] )\b[xyz]\b")


def fits(question: str) -> bool:
    """Whether a question is of a kind that the pair knows, by its words."""
    plain = question.strip().lower()
    spoken = set(re.findall(r"[^\W\d_]+", plain))
    if spoken & _BEYOND or _UNKNOWN.search(plain):
        return False
    numbers = len(_NUMBER.findall(plain))
    return numbers >= 2 and (spoken <= _ASKING or _ASKS.search(plain) is not None)


def hint(question: str) -> str | None:
    """A line with examples of what the pair knows; None for a question that looks like them."""
    if fits(question):
        return None
    return (
        "the embedded pair may not know questions like this one, only such as these: "
        f"{' | '.join(EXAMPLES)} (for others name real models with `--base URL --small URL`)"
    )
