"""What Ctrl-C does while calls are running: the first cancels them, the second can end the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from specreason_sgl.lang.scope import Scope

INTERRUPTED = 130
LAST_S = 1.0
"""Seconds that the process may still use to restore the terminal after the second Ctrl-C."""


@contextmanager
def stoppable(scope: Scope, *, twice_ends_the_process: bool = True) -> Iterator[None]:
    """Let Ctrl-C cancel the running calls: a program that waits for a model cannot stop before its call ends.

    Args:
        scope: the scope that is cancelled.
        twice_ends_the_process: whether a second Ctrl-C ends the process at once; a notebook would lose its kernel.
    """
    handled = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handled is not signal.default_int_handler:
        yield
        return
    pressed = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and twice_ends_the_process:
            end = threading.Timer(LAST_S, os._exit, (INTERRUPTED,))
            end.daemon = True
            end.start()
        elif not pressed:
            threading.Thread(target=scope.cancel, daemon=True).start()
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if pressed:
            scope.cancel()  # it may still be at it
        signal.signal(signal.SIGINT, handled)
