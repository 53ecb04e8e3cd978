"""Server-sent events, and noticing at once that a client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from specreason_sgl.events import Event
from specreason_sgl.runs.store import as_stored

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from specreason_sgl.serve.solves import Served

BEHIND = 10_000
"""A watcher who is so many messages behind is sent away."""


def data(text: str | bytes) -> bytes:
    """A message."""
    return b"data: " + (text.encode("utf-8", "replace") if isinstance(text, str) else text) + b"\n\n"


def named(kind: str, text: str | bytes) -> bytes:
    """A message of a kind."""
    return b"event: " + kind.encode() + b"\n" + data(text)


def comment() -> bytes:
    """A line that says nothing, and keeps a connection alive."""
    return b": still here\n\n"


class Left:
    """Waits until a client has closed its connection."""

    def __init__(self, receive: Receive) -> None:
        """Listen to what the connection brings."""
        self._receive = receive

    async def wait(self) -> None:
        """Return when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def together(work: Coroutine[Any, Any, None], left: Left) -> bool:
    """Do some work unless the client goes first; returns whether the work is done."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class Stream(Response):
    """A response of server-sent events that knows when its reader goes."""

    media_type = "text/event-stream"

    def __init__(
        self, lines: AsyncIterator[bytes], left: Callable[[], Awaitable[None]], *, always: bool = False
    ) -> None:
        """Send these lines.

        Args:
            lines: the messages.
            left: called when the reader has gone before the end.
            always: whether it is called at the end as well.
        """
        self._lines, self._left, self._always = lines, left, always
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines until they end or the reader goes."""
        is_done = False

        async def write() -> None:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for line in self._lines:
                if line:
                    await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            is_done = await together(write(), Left(receive))
        finally:
            if self._always or not is_done:
                await asyncio.shield(self._left())
            if (close := getattr(self._lines, "aclose", None)) is not None:
                with suppress(RuntimeError):
                    await close()


class Feed:
    """What happens on a server, as messages for one who watches; a `Follower`."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.lines: asyncio.Queue[Callable[[], bytes] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._is_over = False

    def started(self, served: Served) -> None:
        """A solve begins."""
        order = served.order
        told = {"id": served.id, "problem_id": order.problem.id, "mode": order.mode, "repeat": 0}
        self._put(lambda: named("started", json.dumps(told)))

    def event(self, served: Served, event: Event) -> None:
        """Something happens in a solve."""
        self._put(lambda: named("event", _wrapped(served.id, "event", as_stored(event))))

    def finished(self, served: Served) -> None:
        """A solve has ended."""
        if (record := served.record) is not None:
            self._put(lambda: named("finished", _wrapped(served.id, "record", as_stored(record))))

    def notice(self, message: str) -> None:
        """A message about the server."""
        self._put(lambda: named("notice", json.dumps({"message": message})))

    def close(self) -> None:
        """End the stream."""
        self._is_over = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.lines.put_nowait, None)

    def _put(self, line: Callable[[], bytes]) -> None:
        if self._is_over:
            return
        if self.lines.qsize() > BEHIND:
            self.close()
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.lines.put_nowait, line)


def _wrapped(name: str, kind: str, stored: bytes) -> bytes:
    """A stored part with the name of its solve."""
    return b'{"id": ' + json.dumps(name).encode() + b', "' + kind.encode() + b'": ' + stored + b"}"
