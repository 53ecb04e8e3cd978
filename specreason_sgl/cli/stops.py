"""Ending the process although some of its threads still wait for a server."""

from __future__ import annotations

import os
import sys
import threading


def leave(code: int) -> None:
    """End the process at once if threads still wait for a server, because the interpreter would wait for them."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if all(thread.daemon for thread in others):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
