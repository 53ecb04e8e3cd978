"""Server-Sent Events, read from a stream of bytes as the HTML standard says."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LARGEST = 1 << 26
"""The most characters of a message."""


@dataclass(frozen=True)
class Message:
    """One message of a stream."""

    data: str
    event: str = "message"


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """The messages in a stream, wherever it is split; comments, and a message without its end, are none.

    Raises:
        ValueError: a message is too long.
    """
    name, data, size = "", list[str](), 0
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                data.append(value)
                if (size := size + len(value) + 1) > LARGEST:
                    raise ValueError("a message is too long")
            case "event":
                name = value
            case _ if not line:
                if data:
                    yield Message("\n".join(data), name or "message")
                name, data, size = "", [], 0
            case _:
                pass


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The whole lines, of which each ends with CR, LF or both."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True)
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
        if len(rest) > LARGEST:
            raise ValueError("a message is too long")
    yield from (rest + decoder.decode(b"", final=True)).split("\n")[:-1]
