"""Who counts at a server: how many processes live, and whether the server still knows what it was told."""

import logging
from secrets import token_hex
from time import monotonic_ns

from router.control.limits.scripts import Scripts

log = logging.getLogger("turnout.control.limits")

BEAT_S = 2.0
STEP_US = 5_000_000
"""A server's clock that is off by so much from one beat to the next was set."""


class Members:
    """One process among those that use the same server."""

    def __init__(self, scripts: Scripts, shown: str, processes: int, *, takes_part: bool = True) -> None:
        """`processes`: how many there are as long as the server has not said.

        One that takes no part only looks, and limits are not divided for it.
        """
        self._takes_part = takes_part
        self.shares = max(1, processes)
        self.resets = 0
        self._beat = scripts.beat
        self._shown = shown
        self._own = token_hex(8)
        self._mark = b""
        self._ahead_us: int | None = None

    def beat(self, tag: str, *, leaves: bool = False) -> bytes:
        """The command by which this process lives on, or `leaves`. `tag` is one that the server has."""
        keys = (f"{tag}:members", f"{tag}:generation")
        return self._beat.call(
            keys, (self._own, int(self._takes_part and not leaves), token_hex(8)), whole=True
        )

    def read(self, count: int, mark: bytes, server_us: int) -> None:
        """What the server answers to a beat."""
        self.shares = max(1, count)
        if self._mark and mark != self._mark:
            self.resets += 1
            log.warning("%s has lost everything: all limits start anew", self._shown)
        self._mark = mark
        ahead_us = server_us - monotonic_ns() // 1000
        if self._ahead_us is not None and abs(ahead_us - self._ahead_us) > STEP_US:
            step_s = (ahead_us - self._ahead_us) / 1e6
            log.warning(
                "the clock of %s has moved by %+.0f s: full buckets come early or late", self._shown, step_s
            )
        self._ahead_us = ahead_us
