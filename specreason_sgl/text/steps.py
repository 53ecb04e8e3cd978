"""Segmentation: a chain of thought as steps, and when it has stopped getting anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE, THINK_OPEN

TURNS = 3
"""So many times in a row is a circle; published runs that went on to the right answer say things twice."""
COUNTED = 10
"""So many times in a row with other numbers is worth a word."""

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

    It does if a step, or a row of steps, then stands there for the third time in a row, to the letter: real chains say
    "So," again and again, and go through cases that differ in a digit.
    """
    return bool(candidate.strip()) and _period([*steps, candidate], TURNS, str.strip) is not None


def is_counting(steps: Sequence[str], candidate: str) -> bool:
    """Whether a chain has said the same ten times in a row with other numbers, which may be casework or no end."""
    return bool(candidate.strip()) and _period([*steps, candidate], COUNTED, _without_numbers) is not None


def _period(chain: Sequence[str], turns: int, read: Callable[[str], str]) -> int | None:
    """The number of steps that come again at a chain's end, so many times in a row, as they are read."""
    last = read(chain[-1])
    for period in range(1, len(chain) // turns + 1):
        if read(chain[-1 - period]) == last and all(
            read(chain[-place]) == read(chain[-place - period]) for place in range(2, (turns - 1) * period + 1)
        ):
            return period
    return None


@lru_cache(maxsize=1 << 14)
def _without_numbers(step: str) -> str:
    return re.sub(r"\d+", "#", step.strip())


def stuck_at(text: str, *, growing: bool = False) -> int | None:
    """Where a text whose end is one phrase over and over has said it three times; None if its end is not.

    Args:
        text: a step, or a whole chain.
        growing: whether it is still being written, so that more of it may make sense of what looks stuck.
    """
    turns, least, longest = (20, 1000, 200) if growing else (TURNS, 200, 2000)
    for period in range(1, min(longest, len(text) // turns) + 1):
        tail = text[-max(least, turns * period) :]
        if len(tail) >= least and tail[period:] == tail[:-period]:
            start = len(text) - len(tail)
            while start and text[start - 1] == text[start - 1 + period]:
                start -= 1
            words = (place for place in range(start, start + period) if not place or text[place - 1].isspace())
            return next(words, start) + TURNS * period
    return None
