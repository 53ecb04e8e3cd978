"""Reading the user's files, from any editor or system, and writing those that the user names.

A byte order mark gives the encoding and is no part of the text; gzip is recognised by its first bytes, not by the name.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError

LARGEST = 1 << 30
"""The most bytes that an unpacked file may have."""

_GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a file, unpacked if it is gzipped.

    Raises:
        UsageError: the file cannot be read, or has more than ``most`` bytes.
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
        UsageError: the bytes are no text; the message names the file.
    """
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {name}: {error}", hint=hint) from error


def read_text(path: Path) -> str:
    """The text of a file, with line feeds as line ends.

    Raises:
        UsageError: the file cannot be read or is no text.
    """
    return _lines(decode(read_bytes(path), f"`{path}`"))


def read_input() -> str:
    """The text of standard input, with line feeds as line ends.

    Raises:
        UsageError: the input is no text.
    """
    typed = getattr(sys.stdin, "buffer", sys.stdin).read()
    return _lines(decode(typed, "standard input") if isinstance(typed, bytes) else typed.removeprefix("\ufeff"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def there_already(path: Path | str, chosen: str = "file") -> UsageError:
    """The complaint that a file would be written over for which the user chose a file's name, or a folder's."""
    hint = f"nothing is written over: choose another {chosen}, or take this away"
    return UsageError(f"`{path}` is there already", hint=hint)


def refuse_existing(path: Path, chosen: str = "file") -> None:
    """Make sure that a file can be written without writing over another: before the work, and not after it.

    Raises:
        UsageError: there is such a file.
    """
    if os.path.lexists(path):
        raise there_already(path, chosen)


def write_new(path: Path, text: str) -> None:
    """Write a text into a file that is not there yet.

    Raises:
        UsageError: there is such a file, or it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise there_already(path) from error
    except OSError as error:
        raise UsageError(f"cannot write `{path}`: {error.strerror or error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        UsageError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read `{path}`: {error}") from error
