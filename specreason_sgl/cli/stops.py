"""What Ctrl-C does while servers are being asked: once it ends the command tidily, twice it ends it now."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from specreason_sgl.engine.patience import Patience

INTERRUPTED = 130
LAST_S = 1.0
"""After so many seconds "now" is over, for what still wants to put the terminal back."""


@contextmanager
def stoppable(patience: Patience) -> Iterator[None]:
    """Let Ctrl-C abandon what is in flight: a program that waits for a model cannot be left before its call ends."""
    handled = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handled is not signal.default_int_handler:
        yield
        return
    pressed = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            end = threading.Timer(LAST_S, os._exit, (INTERRUPTED,))
            end.daemon = True
            end.start()
        else:
            threading.Thread(target=patience.abandon, daemon=True).start()
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if pressed:
            patience.abandon()  # it may still be at it
        signal.signal(signal.SIGINT, handled)


def leave(code: int) -> None:
    """End the process at once if threads of it still wait for a server, for which the interpreter would wait."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if all(thread.daemon for thread in others):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
