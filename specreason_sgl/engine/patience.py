"""What becomes of a call that a server fails: sent again a few times, waited for, given up, or abandoned.

One `Patience` is shared by both servers of a pair and by all their callers, so that a server that is away is asked
for by one of them, everybody else pauses, and the pause counts against nobody's time limit.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from weakref import WeakSet

from specreason_sgl.errors import ServerUnreachable

ATTEMPTS = 5
"""So often a call is sent before its solve fails."""
WAIT_S = 120.0
"""How long a server may stay away."""
ABORTS, ABORT_S = 32, 2.0
"""So many requests are aborted at a time, and so many seconds that may take in all."""
ABANDONED = "the call was abandoned"

Abort = Callable[[str], None]
"""Ends a request on its server, by its id; must not take long."""

_FIRST_PAUSE_S = 0.1
_POLL_S = 0.5


class Patience:
    """How long a pair's callers wait, and what they have in flight."""

    def __init__(self, limit_s: float = WAIT_S, say: Callable[[str], None] = lambda _: None) -> None:
        """Begin with nothing in flight.

        Args:
            limit_s: how long a server may stay away, in seconds; 0 does not wait at all.
            say: told in a line when a pause begins and ends; may be replaced later.
        """
        self.limit_s = limit_s
        self.say = say
        self.paused_s = 0.0
        """Seconds spent waiting for servers so far."""
        self._given_up = False
        self._abandoned = threading.Event()
        self._waiting = threading.Lock()
        self._abandoning = threading.Lock()
        self._lock = threading.Lock()
        """Of what is in flight, to which every caller adds."""
        self._broken = False
        self._flight: dict[str, Abort] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()

    @property
    def is_over(self) -> bool:
        """Whether calls are of no use any more: a server stayed away, or nobody waits for the answers."""
        return self._given_up or self._abandoned.is_set()

    def pause(self, failures: int) -> None:
        """Let a server breathe before a call is sent again: twice as long each time, and no two callers alike."""
        self._abandoned.wait(_FIRST_PAUSE_S * 2 ** (failures - 1) * random.uniform(0.5, 1.0))

    def await_server(self, name: str, is_there: Callable[[], bool]) -> bool:
        """Pause until a server answers; returns whether it does.

        Args:
            name: what it is called in messages.
            is_there: asks it; must not take long.
        """
        with self._waiting:
            if self.is_over:
                return False
            if is_there():  # it only blinked, or somebody else has waited for it
                return True
            began = time.monotonic()
            if self.limit_s:
                self.say(f"{name} does not answer; pausing for up to {self.limit_s:.0f} s")
            while (away := time.monotonic() - began) < self.limit_s:
                if self._abandoned.wait(min(_POLL_S, self.limit_s - away)):
                    return False
                if is_there():
                    self.paused_s += time.monotonic() - began
                    self.say(f"{name} is back after {time.monotonic() - began:.0f} s")
                    return True
            self._given_up = True
            return False

    @contextmanager
    def flying(self, rid: str, abort: Abort) -> Iterator[None]:
        """A request is in flight while the block runs; ``abort`` ends it on its server.

        Raises:
            ServerUnreachable: everything has been abandoned.
        """
        with self._lock:
            if self._abandoned.is_set():
                raise ServerUnreachable(ABANDONED)
            self._flight[rid] = abort
        try:
            yield
        finally:
            with self._lock:
                self._flight.pop(rid, None)

    def abandon(self) -> None:
        """Have the servers end all that is in flight, and every call fail, those that wait for an answer included.

        Once is enough; whoever asks again waits until that is done.
        """
        with self._abandoning:
            if self._broken:
                return
            self._abandoned.set()
            with self._lock:
                flight = list(self._flight.items())
            abort_all(flight)
            with self._lock:
                self._broken = True
                sockets = list(self._sockets)
            for connection in sockets:
                _break(connection)

    def watch(self, connection: socket.socket) -> None:
        """Break this connection when everything is abandoned."""
        with self._lock:
            self._sockets.add(connection)
            broken = self._broken
        if broken:
            _break(connection)


def abort_all(calls: Iterable[tuple[str, Abort]]) -> None:
    """Abort requests by their ids, many at a time; returns when all are or the time for it is over."""
    waiting = SimpleQueue[tuple[str, Abort]]()
    for call in calls:
        waiting.put(call)

    def work() -> None:
        with suppress(Empty):
            while True:
                rid, abort = waiting.get_nowait()
                abort(rid)

    threads = [Thread(target=work, daemon=True) for _ in range(min(ABORTS, waiting.qsize()))]
    until = time.monotonic() + ABORT_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
