"""Splitting a chain of thought into steps, and recognising that it makes no progress."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE, THINK_OPEN

TURNS = 3
"""A repeat so many times in a row ends the thinking; published runs with a right answer repeat things twice."""
COUNTED = 10
"""The same text so many times in a row with other numbers gets a notice."""

_GROWING_TURNS, _GROWING_PERIOD = 20, 200
STUCK_WITHIN = _GROWING_TURNS * _GROWING_PERIOD
"""Whether a growing text is stuck shows in so many of its last characters."""

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def split_steps(thinking: str, delimiter: str = DELIMITER) -> list[str]:
    """The steps of a whole chain of thought, without delimiters and thinking marks; empty steps are left out."""
    inside = thinking.split(THINK_CLOSE, 1)[0]
    inside = inside.split(THINK_OPEN, 1)[-1]
    parts = _BLANK_LINES.split(inside) if delimiter == DELIMITER else inside.split(delimiter)
    return [step for part in parts if (step := part.strip())]


def first_stop(text: str, stops: Sequence[str], start: int = 0) -> tuple[int, str] | None:
    """The position of the first stop string in a text from ``start`` on, and the stop string; None if there is none.

    SGLang looks for stop strings in the order in which they are listed. If several tokens come at a time, as in
    speculative decoding, it can report a stop string although another one stands before it.
    """
    found = [(place, stop) for stop in stops if stop and (place := text.find(stop, start)) >= 0]
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


class Circles:
    """The steps of a chain, kept so that a step which closes a circle is found without a look at all the others.

    A circle is a step, or a sequence of steps, that stands so many times in a row at the end. Its last few steps then
    stood there one turn earlier too, so that only the places where they stood have to be looked at.
    """

    def __init__(self, turns: int, read: Callable[[str], str]) -> None:
        """Begin an empty chain.

        Args:
            turns: how many times in a row make a circle, more than two.
            read: what of a step's text counts.
        """
        self._turns, self._read = turns, read
        self._steps: list[str] = []
        """Of each step, what counts."""
        self._numbers: dict[tuple[str, ...], int] = {}
        """A number for each few steps that ever stood in a row; copies share it."""
        self._unused = itertools.count()
        self._newest: list[int | None] = []
        """By that number, the place where these steps stood last."""
        self._before: list[int | None] = []
        """For each place, the one before it where the same few steps stood."""

    def is_closed_by(self, candidate: str) -> bool:
        """Whether the chain goes in circles if this step is added; a step without a word closes none."""
        if not candidate.strip():
            return False
        steps, turns, end = self._steps, self._turns, len(self._steps)
        number = self._numbers.get(self._tail(self._read(candidate)), len(self._newest))
        place = self._newest[number] if number < len(self._newest) else None
        while place is not None and (period := end - place) <= (end + 1) // turns:
            if all(
                steps[each] == steps[each - period] for each in range(end - turns + 1, end - (turns - 1) * period, -1)
            ):
                return True
            place = self._before[place]
        return False

    def add(self, step: str) -> None:
        """Add a step."""
        text = self._read(step)
        tail = self._tail(text)
        if tail not in self._numbers:
            self._numbers.setdefault(tail, next(self._unused))  # a copy may have had the same thought
        number = self._numbers[tail]
        self._newest += [None] * (number + 1 - len(self._newest))
        self._before.append(self._newest[number])
        self._newest[number] = len(self._steps)
        self._steps.append(text)

    def cut(self, keep: int) -> None:
        """Take back all but the first ``keep`` steps."""
        while len(self._steps) > keep:
            tail = self._tail(self._steps.pop())
            self._newest[self._numbers[tail]] = self._before.pop()

    def copy(self) -> Circles:
        """The same chain, to be continued otherwise, also in another thread."""
        other = Circles(self._turns, self._read)
        other._numbers, other._unused = self._numbers, self._unused
        other._steps, other._newest, other._before = self._steps.copy(), self._newest.copy(), self._before.copy()
        return other

    def _tail(self, text: str) -> tuple[str, ...]:
        """The last few steps if this one is added: one less than the turns, so that every circle has them twice."""
        return (*self._steps[max(0, len(self._steps) - self._turns + 2) :], text)


def repeats() -> Circles:
    """An empty chain whose circles are made of the same three times in a row, letter for letter.

    Less would be wrong: real chains say "So," again and again, and go through cases that differ in one digit.
    """
    return Circles(TURNS, str.strip)


def counting() -> Circles:
    """An empty chain whose circles are made of the same ten times in a row with other numbers.

    They may be many cases, or counting without end.
    """
    return Circles(COUNTED, _without_numbers)


@lru_cache(maxsize=1 << 14)
def _without_numbers(step: str) -> str:
    return re.sub(r"\d+", "#", step.strip())


def stuck_at(text: str, *, growing: bool = False) -> int | None:
    """The position after the third repeat in a text that ends with one phrase repeated without end; else None.

    Args:
        text: a step, or a whole chain.
        growing: whether the text is still being written, so that an apparent repeat may still continue otherwise.
    """
    turns, least, longest = (_GROWING_TURNS, 1000, _GROWING_PERIOD) if growing else (TURNS, 200, 2000)
    for period in range(1, min(longest, len(text) // turns) + 1):
        tail = text[-max(least, turns * period) :]
        if len(tail) >= least and tail[period:] == tail[:-period]:
            start = len(text) - len(tail)
            while start and text[start - 1] == text[start - 1 + period]:
                start -= 1
            words = (place for place in range(start, start + period) if not place or text[place - 1].isspace())
            return next(words, start) + TURNS * period
    return None
