"""How often a pool may try again: a share of what it serves, so that an outage cannot feed itself."""

BURST = 10.0
"""Retries saved up at most, and at the start: enough for one replica that dies."""


class RetryBudget:
    """A purse per pool: each request puts `ratio` in, each retry takes 1 out.

    `floor_per_s` retries a second are allowed beyond that, so that a quiet pool can retry too.
    """

    __slots__ = ("_floor", "_floor_at", "_floor_per_s", "_ratio", "_saved")

    def __init__(self, ratio: float, floor_per_s: float) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._saved = BURST if ratio else 0.0
        self._floor = floor_per_s
        self._floor_at = 0.0

    def earn(self) -> None:
        """A request came."""
        self._saved = min(BURST, self._saved + self._ratio)

    def spend(self, now: float) -> bool:
        """Whether a retry may be made; if so, it is paid. `now` is monotonic seconds."""
        if self._saved >= 1:
            self._saved -= 1
            return True
        self._floor = min(self._floor_per_s, self._floor + (now - self._floor_at) * self._floor_per_s)
        self._floor_at = now
        if self._floor >= 1:
            self._floor -= 1
            return True
        return False
