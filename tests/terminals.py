"""Programs on a terminal of their own: keys are typed, the screen is read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
STYLES = re.compile(r"\x1b\[[0-9;]*m")
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **more}


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, code: str, *, columns: int = 100, rows: int = 30, keyboard: bool = True, **env: str) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._slave)
        self.seen = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=self._slave if keyboard else subprocess.DEVNULL,
            stdout=self._slave,
            stderr=self._slave,
            env=environment(**env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - nothing else runs there
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def read(self, wanted: str, *, since: int = 0) -> str:
        """Everything from a place on, as soon as what is wanted is there."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in (shown := STYLES.sub("", self.seen[since:])):
            assert time.monotonic() < deadline, f"{wanted!r} is not in {shown!r}"
            self._take(0.1)
        return shown

    def finish(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, "the program does not end"
            self._take(0.05)
        while self._take(0.2):
            pass
        return self._process.returncode

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def _take(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        self.seen += os.read(self._master, 1 << 16).decode("utf-8", "replace")
        return True


def after_the_screen(terminal: Terminal) -> str:
    """What stays on the terminal; it must be all that comes after the screen has been left."""
    assert terminal.seen.count(ENTER_SCREEN) == terminal.seen.count(LEAVE_SCREEN) == 1
    assert terminal.is_as_before
    left = terminal.seen.split(LEAVE_SCREEN)[1]
    assert SHOW_CURSOR in terminal.seen
    return left


class Multiplexer:
    """A shell in a terminal multiplexer, which knows what is on the screen."""

    def __init__(self, program: str, *, columns: int = 80, rows: int = 24) -> None:
        self._command = [program, "-L", f"specreason-{os.getpid()}", "-f", "/dev/null"]
        self._ask("new-session", "-d", "-s", "view", "-x", str(columns), "-y", str(rows), "/bin/sh")

    def type(self, *keys: str) -> None:
        self._ask("send-keys", "-t", "view", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._ask("resize-window", "-t", "view", "-x", str(columns), "-y", str(rows))

    def screen(self, wanted: str) -> str:
        """What is on the screen, as soon as what is wanted is there."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in (shown := self._ask("capture-pane", "-p", "-t", "view")):
            assert time.monotonic() < deadline, f"{wanted!r} is not on\n{shown}"
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        subprocess.run([*self._command, "kill-server"], check=False, capture_output=True)

    def _ask(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], check=True, capture_output=True, text=True, env=environment())
        return done.stdout
