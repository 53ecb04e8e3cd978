"""Writing lines to any stream: control characters are made visible, and a reader that goes away is no error."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

SPELT_OUT = "backslashreplace"
"""The error handler for characters that a stream's encoding does not have."""

GONE = (errno.EPIPE, errno.EIO)
"""The error numbers of a stream whose reader or terminal is gone."""


def prepare() -> None:
    """Have standard output and standard error take any text, and be there even where they have been closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        forgiving(getattr(sys, name))


def forgiving(stream: TextIO) -> TextIO:
    """The stream, which spells out what its encoding does not have."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=SPELT_OUT)
    return stream


def carried(text: str, encoding: str) -> str:
    """The text as a forgiving stream of this encoding shows it."""
    return text.encode(encoding, SPELT_OUT).decode(encoding)


def say(text: str, *, err: bool = False) -> None:
    """Write words on standard output, or on standard error, with everything shown that a terminal would obey."""
    from specreason_sgl.view.text import visible

    Output(sys.stderr if err else sys.stdout).line(visible(text))


def note(text: str) -> None:
    """Print a note, in one line on standard error."""
    from specreason_sgl.view.text import one_line

    say(f"note: {one_line(text)}", err=True)


class Output:
    """Writes lines to a stream until its reader goes away; then it is silent and whatever writes goes on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to this stream, or to standard output."""
        self._stream = forgiving(stream or sys.stdout)
        self.closed = False
        """Whether nobody reads any more."""

    def line(self, text: str) -> None:
        """Write one line at once."""
        if self.closed:
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except OSError as error:
            if error.errno not in GONE:
                raise
            self.closed = True
            silence(self._stream)


def silence(stream: TextIO) -> None:
    """Let the interpreter flush a stream at its end although nobody reads it."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
