"""Splitting a chain of thought into steps, and recognising that it makes no progress."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE, THINK_OPEN

TURNS = 3
"""A repeat so many times in a row ends the thinking; published runs with a right answer repeat things twice."""
COUNTED = 10
"""The same text so many times in a row with other numbers gets a notice."""

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def split_steps(thinking: str, delimiter: str = DELIMITER) -> list[str]:
    """The steps of a whole chain of thought, without delimiters and thinking marks; empty steps are left out."""
    inside = thinking.split(THINK_CLOSE, 1)[0]
    inside = inside.split(THINK_OPEN, 1)[-1]
    parts = _BLANK_LINES.split(inside) if delimiter == DELIMITER else inside.split(delimiter)
    return [step for part in parts if (step := part.strip())]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """The position of the first stop string in a text, and the stop string; None if there is none.

    SGLang looks for stop strings in the order in which they are listed. If several tokens come at a time, as in
    speculative decoding, it can report a stop string although another one stands before it.
    """
    found = [(place, stop) for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(found, key=lambda each: each[0], default=None)


def merged(lengths: Sequence[int], least: int) -> list[int]:
    """The number of steps in each merged step, if short steps are joined with the next; the last may stay short.

    Args:
        lengths: the lengths of the steps, in tokens.
        least: the fewest tokens of a merged step, except of the last one.
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

    It does if a step, or a sequence of steps, then stands there for the third time in a row, letter for letter. Less
    would be wrong: real chains say "So," again and again, and go through cases that differ in one digit.
    """
    return bool(candidate.strip()) and _period([*steps, candidate], TURNS, str.strip) is not None


def is_counting(steps: Sequence[str], candidate: str) -> bool:
    """Whether a chain has said the same ten times in a row with other numbers: many cases, or counting without end."""
    return bool(candidate.strip()) and _period([*steps, candidate], COUNTED, _without_numbers) is not None


def _period(chain: Sequence[str], turns: int, read: Callable[[str], str]) -> int | None:
    """How many steps form the sequence that stands ``turns`` times in a row at a chain's end; None if none does."""
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
    """The position after the third repeat in a text that ends with one phrase repeated without end; else None.

    Args:
        text: a step, or a whole chain.
        growing: whether the text is still being written, so that an apparent repeat may still continue otherwise.
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
