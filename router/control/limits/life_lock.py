"""Locks on single bytes of a file, by which processes show each other that they live.

The kernel gives one back when its process dies, however it dies. Where it can, a lock belongs to the opened
file, so that two who opened it are apart even in one process.
"""

import fcntl
import os
import sys
from struct import Struct

if sys.platform == "linux":
    _FLOCK = Struct("@hhqqi0q")
    """`struct flock`: type, whence, start, length, process; fcntl(2)."""

    def _set(fd: int, kind: int, at: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, at, 1, 0))

else:

    def _set(fd: int, kind: int, at: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)


def lock_byte(fd: int, at: int) -> bool:
    """Until it is unlocked or the file is closed. False if somebody else has it."""
    try:
        _set(fd, fcntl.F_WRLCK, at)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_byte(fd: int, at: int) -> None:
    _set(fd, fcntl.F_UNLCK, at)
