"""Connections that are kept open, and that the call which uses one can break."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

CONNECTIONS = 128
REST_S, REST_LINES = 0.1, 8
"""How long and how much may be read behind the last word of a response, in seconds of silence and lines."""


class Call:
    """One request, and the connection that it uses."""

    def __init__(self) -> None:
        """Begin without a connection."""
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_broken_off = False

    @contextmanager
    def making(self) -> Iterator[None]:
        """Assign every connection that this thread uses in the block to this call."""
        _now.call = self
        try:
            yield
        finally:
            _now.call = None

    def use(self, connection: Any) -> None:
        """Take over a connection; if the call was broken off already, break it at once."""
        with self._lock:
            self._connection = connection
            broken_off = self._is_broken_off
        if broken_off:
            connection.break_for(self)

    def break_off(self) -> None:
        """Break the connection, so that the thread that waits for the answer goes on without it."""
        with self._lock:
            self._is_broken_off = True
            connection = self._connection
        if connection is not None:
            connection.break_for(self)


def connections() -> urllib3.PoolManager:
    """A pool of connections, each of which knows the call that uses it."""
    pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)

    def known(kind: Any) -> Any:
        connection = type(kind.ConnectionCls.__name__, (_Used, kind.ConnectionCls), {})
        return type(kind.__name__, (kind,), {"ConnectionCls": connection})

    pool.pool_classes_by_scheme = {scheme: known(kind) for scheme, kind in pool.pool_classes_by_scheme.items()}
    return pool


def read_out(response: urllib3.BaseHTTPResponse, lines: Iterator[bytes]) -> bool:
    """Read what follows the last word of a response, so that its connection is free for the next request.

    Args:
        response: the response.
        lines: its lines that are not read yet.

    Returns:
        Whether it ended at once. If it did not, the connection cannot be used again.
    """
    connection = response.connection
    if isinstance(connection, _Used):
        connection.hurry(REST_S)
    try:
        for _ in islice(lines, REST_LINES):
            pass
        return next(lines, None) is None
    except HTTPError:
        return False


class _Used:
    """What is added to a connection: the call that uses it. Only that call may break it."""

    sock: socket.socket | None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._using = threading.Lock()
        self._call: Call | None = None
        self._taken: socket.socket | None = None
        """The socket, kept here because a connection drops it before the last response on it is read."""
        super().__init__(*args, **options)

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # it stands before a connection
        self._take()

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # else it is taken when it is there
            self._take()
        super().request(*args, **options)  # type: ignore[misc]  # as above

    def break_for(self, call: Call) -> None:
        """Break the connection, unless another call uses it by then."""
        with self._using:
            if self._call is call and self._taken is not None:
                with suppress(OSError):
                    self._taken.shutdown(socket.SHUT_RDWR)

    def hurry(self, seconds: float) -> None:
        """Let the rest of this response be silent only so long; the next request sets a limit of its own."""
        if self._taken is not None:
            self._taken.settimeout(seconds)

    def _take(self) -> None:
        call = _now.call
        with self._using:
            self._call, self._taken = call, self.sock
        if call is not None:
            call.use(self)


class _Now(threading.local):
    call: Call | None = None


_now = _Now()
