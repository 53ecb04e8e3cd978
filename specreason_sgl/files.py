"""Files as people have them: bytes, text and settings, whatever wrote them.

A byte order mark says how text is encoded and is no part of it; gzip is known by its first bytes, whatever the name.
"""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError

LARGEST = 1 << 30
"""Bytes that a file may come to once it is unpacked."""

_GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """What a file holds, unpacked if it is gzipped.

    Raises:
        UsageError: it cannot be read, or comes to more than so many bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if data.startswith(_GZIP):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(most + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"cannot read `{path}`: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > most:
        raise UsageError(f"cannot read `{path}`: it is larger than {most >> 20} MiB")
    return data


def decode(data: bytes, name: str, *, hint: str = "save it as UTF-8 text") -> str:
    """Text from its bytes: UTF-8, or what the byte order mark says.

    Raises:
        UsageError: it is no text; the message has the name.
    """
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {name}: {error}", hint=hint) from error


def read_text(path: Path) -> str:
    """The text of a file, its lines ended as everywhere here.

    Raises:
        UsageError: it cannot be read or is no text.
    """
    return _lines(decode(read_bytes(path), f"`{path}`"))


def read_input() -> str:
    """The same of standard input.

    Raises:
        UsageError: it is no text.
    """
    typed = getattr(sys.stdin, "buffer", sys.stdin).read()
    return _lines(decode(typed, "standard input") if isinstance(typed, bytes) else typed.removeprefix("\ufeff"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        UsageError: it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read `{path}`: {error}") from error
