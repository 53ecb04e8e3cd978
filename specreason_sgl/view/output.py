"""Lines for a pipe or a file: no control codes, and no trouble when nobody reads them any more."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Output:
    """Writes lines to a stream until its reader goes away; then it is silent and whatever writes goes on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to this stream, or to standard output."""
        self._stream = stream or sys.stdout
        self.closed = False
        """Whether nobody reads any more."""

    def line(self, text: str) -> None:
        """Write one line at once."""
        if self.closed:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except BrokenPipeError:
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
