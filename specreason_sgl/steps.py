"""Segmentation: a chain of thought as steps, and when it has stopped getting anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from specreason_sgl.prompts import DELIMITER, THINK_CLOSE, THINK_OPEN

RECURRING = 2
"""A step that stands there so many times already is a circle when it comes again."""

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def split_steps(thinking: str, delimiter: str = DELIMITER) -> list[str]:
    """The steps of a whole chain of thought, without delimiters and thinking marks; blank ones are dropped."""
    inside = thinking.split(THINK_CLOSE, 1)[0]
    inside = inside.split(THINK_OPEN, 1)[-1]
    parts = _BLANK_LINES.split(inside) if delimiter == DELIMITER else inside.split(delimiter)
    return [step for part in parts if (step := part.strip())]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the first of the stop strings begins in a text, and which it is; None if there is none.

    SGLang looks for them in the order in which they are listed. Where several tokens come at a time, as in speculative
    decoding, it can report one although another stands before it.
    """
    found = [(place, stop) for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(found, key=lambda each: each[0], default=None)


def merged(lengths: Sequence[int], least: int) -> list[int]:
    """How many steps go into each judgement when short ones are merged with the next; the last may stay short.

    Args:
        lengths: of the steps, in tokens.
        least: a merged step has at least so many, where there are any left.
    """
    groups: list[int] = []
    tokens = count = 0
    for length in lengths:
        tokens, count = tokens + length, count + 1
        if tokens >= least:
            groups.append(count)
            tokens = count = 0
    return [*groups, count] if count else groups


def is_repeat(steps: Sequence[str], candidate: str) -> bool:
    """Whether a chain goes in circles if this step is added.

    A step that says the same as the one before it is a circle; a short remark ("Wait.") may come back later, so
    other steps only count once they stand there twice already.
    """
    said = _plain(candidate)
    if not said:
        return False
    earlier = [_plain(step) for step in steps]
    return (bool(earlier) and earlier[-1] == said) or earlier.count(said) >= RECURRING


@lru_cache(maxsize=1 << 14)
def _plain(step: str) -> str:
    return " ".join(step.split()).casefold()
