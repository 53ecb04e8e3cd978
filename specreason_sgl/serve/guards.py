"""What stands before every request: the key, and how large a body may be."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from specreason_sgl.serve.refusals import refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 4 << 20
"""The most bytes of a request's body."""
OPEN = ("/health", "/", "/page.js", "/page.css")
"""What can be had without a key: nothing in it is anybody's."""


class _TooLarge(Exception):
    """A body is larger than it may be."""


class Guards:
    """Lets nobody in without the key, and no body in that is too large."""

    def __init__(self, app: ASGIApp, key: str | None, told: Callable[[str, int], None]) -> None:
        """Stand before an app.

        Args:
            app: the app.
            key: the key; None lets everybody in.
            told: called with the path and the status of every response.
        """
        self._app, self._key, self._told = app, key, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        began = False

        async def counted(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                route = scope.get("route")
                self._told(getattr(route, "path", "other"), message["status"])
            await send(message)

        if self._key and scope["path"] not in OPEN and not self._knows(headers.get(b"authorization", b"")):
            await refused(401, "the API key is missing or wrong", "send it as `Authorization: Bearer KEY`")(
                scope, receive, counted
            )
            return
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body") or b"")
            if size > MOST_BYTES:
                raise _TooLarge
            return message

        too_large = refused(413, f"the body is larger than {MOST_BYTES >> 20} MiB")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MOST_BYTES:
            await too_large(scope, receive, counted)
            return
        try:
            await self._app(scope, limited, counted)
        except _TooLarge:
            if not began:
                await too_large(scope, receive, counted)

    def _knows(self, told: bytes) -> bool:
        scheme, _, key = told.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), (self._key or "").encode())
