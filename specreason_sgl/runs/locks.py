"""Advisory locks that end with the process that holds them, however it ends, and file systems that know none."""

from __future__ import annotations

import errno
import fcntl
import time
from typing import IO

UNKNOWN = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""How a file system says that it knows no locks."""
_POLL_S = 0.05


def take(file: int | IO[bytes], *, shared: bool = False, wait_s: float = 0.0) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        file: opened for writing unless the lock is shared: network file systems want it so.
        shared: whether others may have such a lock too.
        wait_s: how long to wait for somebody who has it.

    Returns:
        Whether it is locked; False if somebody else has it, None if the file system knows no locks.

    Raises:
        OSError: anything else, which says nothing about anybody else.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno in UNKNOWN:
                return None
            raise
        else:
            return True
