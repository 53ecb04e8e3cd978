# ruff: noqa: SIM905 - words are easier to read in a line than in quotation marks
"""What the embedded pair knows, and whether a question is of that kind by its words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from specreason_sgl.embedded import stories
from specreason_sgl.embedded.tales import words

Known = Literal["stories", "tales"]
"""The problems that a pair was trained on."""

EXAMPLES: dict[Known, tuple[str, str, str]] = {
    "stories": (
        "Mia has 12 apples. Mia buys 5 apples. How many apples does Mia have now?",
        "Tom has 20 stamps. Tom finds 3 boxes with 4 stamps each. How many stamps does Tom have now?",
        "Eva has 15 coins. Ben has 8 more coins than Eva has now. How many coins do Eva and Ben have together?",
    ),
    "tales": (
        "Maria had 50 euros. She spent 18 euros on a book. How many euros are left?",
        "Tom has 3 boxes with 4 pens each. How many pens does Tom have?",
        "What is 12 + 7 * 3?",
    ),
}
_STORY_WORDS = frozenset(
    " ".join((*stories.NAMES, *stories.THINGS, *stories.GAINS, *stories.LOSSES, *stories.HOLDERS)).lower().split()
    + " ".join(unit for unit, _ in stories.UNITS).split()
    + "has more fewer times as many than now how does do have together with each and a day for equally among".split()
    + "friends is one of them shares puts into keeps only box years old the table on it bag costs dollars".split()
    + "degrees outside".split()
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


def known(base: Path) -> Known:
    """What the pair knows whose base model is in this folder."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return "tales" if config.get("knows") == "tales" else "stories"


def fits(question: str, kind: Known) -> bool:
    """Whether a question is of a kind that the pair knows, by its words."""
    plain = question.strip().lower()
    spoken = set(re.findall(r"[^\W\d_]+", plain))
    if kind == "stories":
        return spoken <= _STORY_WORDS and plain.endswith("?") and any(map(str.isdigit, plain))
    if spoken & _BEYOND or _UNKNOWN.search(plain):
        return False
    numbers = len(_NUMBER.findall(plain))
    return numbers >= 2 and (spoken <= _ASKING or _ASKS.search(plain) is not None)


def hint(question: str, kind: Known) -> str | None:
    """A line with examples of what the pair knows; None for a question that looks like them."""
    if fits(question, kind):
        return None
    examples = " | ".join(EXAMPLES[kind])
    return (
        "the embedded pair may not know questions like this one, only such as these: "
        f"{examples} (for others name real models with `--base URL --small URL`)"
    )
