"""How prompts travel to a server: what is new behind an earlier request, all token ids, or the whole text."""

from __future__ import annotations

from typing import Literal, get_args

from specreason_sgl.errors import UsageError

Transport = Literal["auto", "sessions", "ids", "text"]
"""The best that the server can do; or what is new behind an earlier request of a session; all token ids; the text."""

AUTO: Transport = "auto"
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


def transport_named(name: str) -> Transport:
    """A transport by its name.

    Raises:
        UsageError: there is no such transport.
    """
    for each in TRANSPORTS:
        if each == name:
            return each
    raise UsageError(f"there is no transport `{name}`", hint=f"use {', '.join(f'`{each}`' for each in TRANSPORTS)}")
