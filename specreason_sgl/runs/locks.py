"""Advisory locks, which end with the process that holds them, also on file systems that do not support locks."""

from __future__ import annotations

import errno
import time
from typing import IO

UNKNOWN = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""The error numbers of a file system that does not support locks."""
_POLL_S = 0.05


def take(file: int | IO[bytes], *, shared: bool = False, wait_s: float = 0.0) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        file: the file; it has to be open for writing unless the lock is shared, as network file systems demand that.
        shared: whether other processes may have a shared lock too.
        wait_s: seconds to wait for another process that holds the lock.

    Returns:
        True if the file is locked, False if another process holds the lock, None if locks are not supported.

    Raises:
        OSError: locking failed for another reason.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
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
