"""A scope holds the calls of one solve or one command: it limits their time, and it can cancel all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from weakref import WeakSet

from specreason_sgl.errors import CallFailed

CANCELLED = "the call was cancelled"
OUT_OF_TIME = "the solve ran into its time limit"
ABORTS, ABORT_S = 32, 2.0
"""How many requests are aborted at the same time, and the most seconds for aborting all of them."""

Abort = Callable[[str], None]
"""Called with a request's id, ends the request on its server; it must not take long."""


class Scope:
    """Calls that belong together; thread-safe."""

    def __init__(self, limit_s: float | None = None, parent: Scope | None = None) -> None:
        """Begin without calls; the time limit runs from here.

        Args:
            limit_s: seconds that all the calls together may take; the parent's limit if not given.
            parent: the scope that this one is a part of.
        """
        self._limit_s = limit_s
        self._parent = parent
        self._children: WeakSet[Scope] = WeakSet()
        self._is_chance = False
        self._began = time.monotonic()
        self._pauses = 0
        """How many calls are waiting for a server that does not answer."""
        self._paused_since = self._paused_s = 0.0
        self._flight: dict[str, Abort] = {}
        self._waits: set[Callable[[], None]] = set()
        self._over = threading.Event()
        self._cancelling = threading.Lock()
        self._is_done = False
        self._lock: threading.Lock = parent._lock if parent else threading.Lock()
        """Shared by a scope and all scopes that are part of it."""
        if parent:
            with self._lock:
                parent._children.add(self)
                if parent._over.is_set():
                    self._over.set()

    def child(self) -> Scope:
        """A scope for calls whose results may turn out to be useless.

        If only the child is cancelled, an aborted generation still returns its text so far, so that its tokens can be
        counted.
        """
        chance = Scope(parent=self)
        chance._is_chance = True
        return chance

    @property
    def is_chance(self) -> bool:
        """Whether it is a `child`."""
        return self._is_chance

    @property
    def is_over(self) -> bool:
        """Whether the scope was cancelled."""
        return self._over.is_set()

    @property
    def is_dropped(self) -> bool:
        """Whether it is a `child` that was cancelled without its parent."""
        return self._is_chance and self.is_over and self._parent is not None and not self._parent.is_over

    @property
    def paused_s(self) -> float:
        """Seconds in which at least one of its calls waited for a server that did not answer."""
        with self._lock:
            return self._paused()

    def left(self) -> float | None:
        """Seconds until its deadline or its parent's; None without a deadline.

        Raises:
            CallFailed: the deadline has passed.
        """
        now = time.monotonic()
        with self._lock:
            ends = [
                scope._began + scope._limit_s + scope._paused() for scope in self._line() if scope._limit_s is not None
            ]
        if not ends:
            return None
        if (left := min(ends) - now) <= 0:
            raise CallFailed(OUT_OF_TIME)
        return left

    def check(self) -> None:
        """Make sure that calls may still be made.

        Raises:
            CallFailed: the scope was cancelled, or its time is over.
        """
        if self.is_over:
            raise CallFailed(CANCELLED)

    def wait(self, seconds: float) -> bool:
        """Sleep so many seconds, or until the scope is cancelled; returns whether it is cancelled."""
        return self._over.wait(seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Mark that a call waits for its server while the block runs; this time counts against no limit."""
        with self._lock:
            for scope in self._line():
                if not scope._pauses:
                    scope._paused_since = time.monotonic()
                scope._pauses += 1
        try:
            yield
        finally:
            with self._lock:
                for scope in self._line():
                    scope._paused_s = scope._paused()
                    scope._paused_since = time.monotonic()
                    scope._pauses -= 1

    @contextmanager
    def flying(self, rid: str, abort: Abort) -> Iterator[None]:
        """Mark that a request is running while the block runs; cancelling the scope calls ``abort`` with its id.

        Raises:
            CallFailed: the scope was cancelled.
        """
        with self._lock:
            self.check()
            self._flight[rid] = abort
        try:
            yield
        finally:
            with self._lock:
                self._flight.pop(rid, None)

    @contextmanager
    def waiting(self, break_off: Callable[[], None]) -> Iterator[None]:
        """Mark that the block waits for an answer; ``break_off`` ends the waiting if the scope is cancelled.

        Raises:
            CallFailed: the scope was cancelled.
        """
        with self._lock:
            self.check()
            self._waits.add(break_off)
        try:
            yield
        finally:
            with self._lock:
                self._waits.discard(break_off)

    def cancel(self) -> None:
        """Have the servers end all running calls, those of its children too, and let every later call fail.

        Calls that still wait for an answer after that are broken off, except those of a `child`. A second call of this
        method does nothing more, but waits until the first one has finished.
        """
        with self._cancelling:
            if self._is_done:
                return
            with self._lock:
                ended = list(self._family())
                for scope in ended:
                    scope._over.set()
                flight = [call for scope in ended for call in scope._flight.items()]
            abort_all(flight)
            if not self._is_chance:
                with self._lock:
                    waits = [break_off for scope in ended for break_off in scope._waits]
                for break_off in waits:
                    break_off()
            self._is_done = True

    def _paused(self) -> float:
        return self._paused_s + (time.monotonic() - self._paused_since if self._pauses else 0.0)

    def _line(self) -> Iterator[Scope]:
        """The scope itself, its parent, the parent's parent, and so on."""
        yield self
        if self._parent:
            yield from self._parent._line()

    def _family(self) -> Iterator[Scope]:
        """The scope itself and all scopes that are part of it."""
        yield self
        for child in list(self._children):
            yield from child._family()


def abort_all(calls: Iterable[tuple[str, Abort]]) -> None:
    """Abort requests by their ids, many at a time; returns when all are aborted, or after `ABORT_S` seconds."""
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
