"""SGLang's sessions: requests that go on from an earlier one, whose tokens the server has kept."""

from __future__ import annotations

import os
import threading
import weakref
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from specreason_sgl.engine.seams import Post
from specreason_sgl.errors import CallRefused

if TYPE_CHECKING:
    from specreason_sgl.engine.link import Link

IDLE_S = 600.0
"""Seconds without a request after which the server itself closes a session, in case its client has died."""
CAPACITY = 1 << 22
"""The most tokens that a session should hold: a server keeps the ids of every request's whole prompt."""


class Session:
    """A session of one solve on a server; opened when it is first used, closed at the latest when it is collected."""

    def __init__(self) -> None:
        """Begin without asking the server."""
        self._opening = threading.Lock()
        self._tokens = 0
        self._close: weakref.finalize[..., Any] | None = None
        self.id: str | None = None
        """The session's name on the server; None while there is none."""

    @property
    def is_full(self) -> bool:
        """Whether the session holds as much as it should."""
        return self._tokens >= CAPACITY

    def opened(self, link: Link) -> str:
        """Its name; the server is asked to open it if it is not open.

        Raises:
            SpecReasonError: the server opens none.
        """
        with self._opening:
            if self.id is None:
                self.id, self._tokens = open_session(link.once), 0
                self._close = weakref.finalize(self, _closer(os.getpid()).put, (link, self.id))
                self._close.atexit = False
            return self.id

    def holds(self, tokens: int) -> None:
        """Note that the server has kept a further request of so many tokens."""
        self._tokens += tokens

    def close(self, link: Link) -> None:
        """Have the server close it; no answer is no error, and the next use opens another one."""
        with self._opening:
            if self.id is not None and self._close is not None:
                self._close.detach()
                close_session(link, self.id)
            self.id = self._close = None


def open_session(post: Post) -> str:
    """Have a server open a session; returns the session's name.

    Raises:
        SpecReasonError: the server opens none.
    """
    opened = post("/open_session", {"capacity_of_str_len": CAPACITY, "timeout": IDLE_S})
    if not isinstance(opened, str):
        raise CallRefused("the server opens no session")
    return opened


def close_session(link: Link, session: str) -> None:
    """Have a server close a session; no answer is no error."""
    link.tell("/close_session", {"session_id": session})


@cache
def _closer(_process: int) -> SimpleQueue[tuple[Link, str]]:
    """The queue of sessions whose solves were collected, with the thread that closes them; one for each process.

    The garbage collector must not wait for a server.
    """
    left: SimpleQueue[tuple[Link, str]] = SimpleQueue()

    def work() -> None:
        while True:
            close_session(*left.get())

    threading.Thread(target=work, name="closes sessions", daemon=True).start()
    return left
