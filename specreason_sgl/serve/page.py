"""The page at `/` and its files; what a solve looks like there is in `view/page.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from specreason_sgl.view.page import DOCUMENT, POLICY, SCRIPT, STYLE

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
FILES = {
    "/": (DOCUMENT, "text/html", {**_HEADERS, "Content-Security-Policy": POLICY}),
    "/page.js": (SCRIPT, "text/javascript", _HEADERS),
    "/page.css": (STYLE, "text/css", _HEADERS),
}
"""Everything that is had without a key, by path: its text, its kind and its headers."""


def routes(app: FastAPI) -> None:
    """Add the page to an app."""

    async def file(request: Request) -> Response:
        text, kind, headers = FILES[request.url.path]
        return Response(text, media_type=kind, headers=headers)

    for path in FILES:
        app.add_route(path, file, methods=["GET"])
