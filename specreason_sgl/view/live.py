"""The terminal while something is shown on it: keys in, frames out, at most ten a second, and everything put back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from specreason_sgl.view.output import say

FRAME = 0.1
"""Seconds between two frames, at least."""
IDLE = 0.5
"""Seconds between two frames when nothing but the clock moves."""
ESCAPE_WAIT = 0.05
"""Seconds to wait for the rest of an escape sequence."""

_NAMED = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[5~": "pageup",
    "\x1b[6~": "pagedown",
    "\x1b": "esc",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
}


class Scene(Protocol):
    """Something that can be shown and listens to keys."""

    over: bool
    """Whether the view is to be left."""

    def fresh(self, clock: float) -> bool:
        """Take in what has happened; returns whether there is anything new to draw."""
        ...

    def draw(self, width: int, height: int, clock: float) -> Text:
        """The frame at this moment; the clock is in seconds and only ever goes forward."""
        ...

    def press(self, key: str) -> None:
        """Act on a key."""
        ...


def decode_keys(text: str) -> list[str]:
    """What was typed, as the names of keys."""
    keys = []
    while text:
        sequence = _sequence(text)
        text = text[len(sequence) :]
        if sequence in _NAMED:
            keys.append(_NAMED[sequence])
        elif sequence.isprintable():
            keys.append(sequence)
    return keys


def _sequence(text: str) -> str:
    if not text.startswith("\x1b") or text[1:2] not in {"[", "O"}:
        return text[0]
    end = 2
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return text[: end + 1]


class Keyboard:
    """Keys from the terminal, one by one and without an echo, while it is entered."""

    def __init__(self) -> None:
        """Find the terminal; without one there are no keys."""
        self._number: int | None = None
        self._opened = False
        self._saved: list[object] | None = None
        self.gone = False
        """Whether there was a terminal and will be none any more."""

    def __enter__(self) -> Self:
        """Take the terminal over, if it is ours to take."""
        import termios

        with contextlib.suppress(OSError, termios.error, ValueError):
            number = self._find()
            self._saved = termios.tcgetattr(number)
            mode = termios.tcgetattr(number)
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            # Stopped here, the program would leave the shell a terminal without an echo.
            mode[6][termios.VSUSP] = bytes([os.fpathconf(number, "PC_VDISABLE")])
            termios.tcsetattr(number, termios.TCSADRAIN, mode)
            self._number = number
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the terminal back as it was."""
        self.restore()
        if self._opened and self._number is not None:
            os.close(self._number)
        self._number = None

    def restore(self) -> None:
        """Put the terminal's mode back; safe to call at any time."""
        import termios

        if self._number is not None and self._saved is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._number, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]

    def read(self, timeout: float) -> list[str]:
        """The keys that were pressed within this time, as soon as there are any."""
        if self._number is None:
            time.sleep(timeout)
            return []
        if not select.select([self._number], [], [], timeout)[0]:
            return []
        typed = os.read(self._number, 1024)
        if not typed:  # the terminal has gone
            self.gone = True
            return []
        if typed.endswith(b"\x1b") and select.select([self._number], [], [], ESCAPE_WAIT)[0]:
            typed += os.read(self._number, 1024)
        return decode_keys(typed.decode("utf-8", "ignore"))

    def _find(self) -> int:
        if sys.stdin is not None and sys.stdin.isatty():
            number = sys.stdin.fileno()
        else:
            number = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
            self._opened = True
        if os.tcgetpgrp(number) != os.getpgrp():
            raise OSError("in the background, the keys belong to somebody else")
        return number


def has_keys(stream: TextIO | None) -> bool:
    """Whether somebody can press keys there: it is a terminal, and not in the hands of another program."""
    try:
        return stream is not None and stream.isatty() and os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):  # Windows has no such groups
        return False


def show(scene: Scene, console: Console, *, done: Callable[[], bool] = lambda: False) -> None:
    """Show a scene on the whole screen until it is over or done, and leave the terminal as it was found."""
    with (
        Keyboard() as keyboard,
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        drawn, size, pressed = -IDLE, console.size, False
        while not (scene.over or done()):
            clock = time.monotonic()
            due = drawn + FRAME - clock
            if due <= 0:
                moved = console.size != size
                if scene.fresh(clock) or moved or pressed or clock - drawn >= IDLE:
                    size, drawn, pressed = console.size, clock, False
                    live.update(scene.draw(size.width, size.height, clock), refresh=True)
                due = FRAME
            keys = keyboard.read(due)
            for key in keys:
                scene.press(key)
            if keyboard.gone:
                scene.over = True
            pressed = pressed or bool(keys)


@contextmanager
def beside(scene: Scene, console: Console, left: Callable[[], None]) -> Iterator[None]:
    """Show a scene from a thread of its own while the block runs.

    An error in the view ends the view and is reported in one line; it is not raised in the block.

    Args:
        scene: what is shown.
        console: where.
        left: called from that thread if the user leaves the view before the block is over.
    """
    done = threading.Event()

    def run() -> None:
        try:
            show(scene, console, done=done.is_set)
        except Exception as error:  # noqa: BLE001 - the view must not take the run with it
            scene.over = True
            say(f"warning: the view has ended: {type(error).__name__}: {error}", err=True)
        if not done.is_set():
            left()

    thread = threading.Thread(target=run, name="view", daemon=True)
    with unwinding():
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def unwinding() -> Iterator[None]:
    """Let a request to end unwind the program, so that the terminal is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
