"""The random numbers of a solve: the seed of a call depends on what the call is for, not on when it is made.

A call is identified by the model's role, the variable that it fills, and the fork that makes it. So a program that
drafts ahead of its decisions gets the same samples as a program that does not.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

from specreason_sgl.lang.states import Executor


class Draws:
    """The seeds of one solve in one scope."""

    def __init__(self, seed: int) -> None:
        """Begin before the first call."""
        self._seed = seed
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def next(self, executor: Executor) -> int:
        """The seed of the call that a state makes; the same call made again in this scope gets another seed."""
        call = executor.backend.role, str(executor.filling), repr(executor.path)
        with self._lock:
            before = self._asked[call]
            self._asked[call] += 1
        drawn = hashlib.sha256(repr((self._seed, before, call)).encode("utf-8", "backslashreplace")).digest()
        return int.from_bytes(drawn[:4]) >> 1

    def anew(self) -> Draws:
        """The same seeds from the beginning, for another scope."""
        return Draws(self._seed)
