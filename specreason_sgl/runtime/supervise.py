"""Keeps a pair of servers up until it is told to stop: ``python -m specreason_sgl.runtime.supervise BASE SMALL``.

It restarts nothing: when one server ends it ends the other too, so that a pair is there whole or not at all.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runtime import pairs

CHECK_S = 2.0
LOST = 5
"""So many missed answers in a row mean that a server is gone."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    """Supervise; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    base, small = map(Path, sys.argv[1:3])
    try:
        with pairs.launch(base, small, pairs.state_folder() / "logs") as pair:
            pairs.note_running(pair)
            try:
                missed = 0
                while missed < LOST:
                    time.sleep(CHECK_S)
                    missed = 0 if pair.base.answers() and pair.small.answers() else missed + 1
            finally:
                pairs.forget_running()
    except SpecReasonError as error:
        sys.stderr.write(f"{error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
