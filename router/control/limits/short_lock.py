"""A lock between processes that is held for microseconds, and not waited for without end.

The kernel gives it back when its holder dies. A holder that is stopped keeps it: what it was about to write
is still to come, so nobody may take it away.
"""

import fcntl
import logging
from time import monotonic_ns, sleep

log = logging.getLogger("turnout.control.limits")

PATIENCE_US = 50_000
"""Thousands of times as long as it is held: a holder that only waits for a processor must not be taken for
one that is stopped. An event loop waits so long once; until the lock is back, `STALLED_PATIENCE_US`."""
STALLED_PATIENCE_US = 100
"""A holder that is stopped stays so for long, and each ask waits this long."""
_SPINS = 16
"""Tries before it sleeps: about as long as it is held."""
_NAP_S = 20e-6


class ShortLock:
    """The lock of an open file. `stalled` is whether it could not be had the last time."""

    def __init__(self, fd: int, patience_us: int) -> None:
        self.stalled = False
        self.stalls = 0
        self._fd = fd
        self._patience_us = patience_us

    def take(self) -> bool:
        """False if it cannot be had for now."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._wait()
        if self.stalled:
            self._note(stalled=False)
        return True

    def give_back(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _wait(self) -> bool:
        until = monotonic_ns() + 1000 * (STALLED_PATIENCE_US if self.stalled else self._patience_us)
        tries = 0
        while monotonic_ns() < until:
            tries += 1
            if tries > _SPINS:
                sleep(_NAP_S)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if self.stalled:
                self._note(stalled=False)
            return True
        if not self.stalled:
            self._note(stalled=True)
        return False

    def _note(self, *, stalled: bool) -> None:
        """One line when it goes, and one when it returns."""
        self.stalled = stalled
        if stalled:
            self.stalls += 1
            log.warning("a process that counts limits has stopped: each worker allows its own share of them")
        else:
            log.info("limits are counted together again")
