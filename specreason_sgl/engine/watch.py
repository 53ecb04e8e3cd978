"""The watch over one server: while it does not answer, one caller polls it and the others wait, for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from specreason_sgl.lang.scope import Scope

WAIT_S = 120.0
"""Seconds to wait for a server that stops answering."""

_POLL_S = 0.5


class Watch:
    """Whether a server answers; shared by all its callers."""

    def __init__(
        self,
        name: str,
        is_there: Callable[[], bool],
        limit_s: float = WAIT_S,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin with a server that answers.

        Args:
            name: the server's name in messages.
            is_there: asks the server whether it is healthy; must not take long.
            limit_s: seconds to wait for a server that stops answering; 0 does not wait at all; may be replaced later.
            say: called with one line when a pause begins and when it ends; may be replaced later.
        """
        self.limit_s = limit_s
        self.say = say
        self._name = name
        self._is_there = is_there
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._given_up_at = float("-inf")

    @property
    def is_away(self) -> bool:
        """Whether the server has not answered since somebody last asked; nobody is asked here."""
        return self._away_since is not None

    def answers(self) -> bool:
        """Ask the server once whether it is healthy, and note what comes of it."""
        asked = time.monotonic()
        if there := self._is_there():
            self.heard(asked)
        else:
            self._missed()
        return there

    def wait(self, scope: Scope) -> bool:
        """Pause until the server answers, the time is over, or the scope is cancelled; returns whether it answers.

        Args:
            scope: the scope of the call that waits.
        """
        came = time.monotonic()
        with scope.paused():
            while not self._asking.acquire(timeout=_POLL_S):
                if scope.is_over:
                    return False
            try:
                return self._given_up_at < came and self._ask(scope)
            finally:
                self._asking.release()

    def heard(self, sent: float) -> None:
        """Note that the server has answered a request sent at that `time.monotonic`: if it was away, it is back."""
        with self._lock:
            since = self._away_since
            if since is None or sent <= since:
                return
            self._away_since = None
        if self.limit_s:
            self.say(f"{self._name} is back after {time.monotonic() - since:.0f} s")

    def _ask(self, scope: Scope) -> bool:
        while not scope.is_over:
            if self.answers():  # it only blinked, or somebody else has waited for it
                return True
            left = self._missed() + self.limit_s - time.monotonic()
            if left <= 0:
                self._given_up_at = time.monotonic()
                return False
            scope.wait(min(_POLL_S, left))
        return False

    def _missed(self) -> float:
        """The time since when the server does not answer; the first caller to notice reports it."""
        with self._lock:
            if self._away_since is not None:
                return self._away_since
            self._away_since = since = time.monotonic()
        if self.limit_s:
            self.say(f"{self._name} does not answer; pausing for up to {self.limit_s:.0f} s")
        return since
