"""Is stable itself in order? Where both are bad, a canary that is no worse than stable has proved nothing."""

from math import sqrt
from typing import Final

WINDOW: Final = 256
_ENOUGH: Final = 50
_MASK: Final = (1 << WINDOW) - 1
_NEVER_FINE: Final = 0.2
_MORE: Final = 0.05
_DEVIATIONS: Final = 3
_PRIOR_BAD, _PRIOR_REQUESTS = 1, 100


class Baseline:
    """Stable's last 256 requests beside what it was before. While it is degraded it does not become usual."""

    __slots__ = ("_before", "_before_bad", "_count", "_window")

    def __init__(self) -> None:
        self._window = 0
        self._count = 0
        self._before = 0
        self._before_bad = 0

    def add(self, failed: bool) -> None:
        self._window = (self._window << 1 | failed) & _MASK
        self._count += 1
        if self._count % WINDOW == 0 and not self.degraded:
            self._before += WINDOW
            self._before_bad += self._window.bit_count()

    @property
    def share(self) -> float:
        """Of the last 256 that failed; 0 before the first."""
        return self._window.bit_count() / min(self._count, WINDOW) if self._count else 0.0

    @property
    def usual(self) -> float:
        return (self._before_bad + _PRIOR_BAD) / (self._before + _PRIOR_REQUESTS)

    @property
    def degraded(self) -> bool:
        """Fails twice as often as usual and 5 points more, beyond chance; or one request of five."""
        if self._count < _ENOUGH:
            return False
        usual = self.usual
        chance = _DEVIATIONS * sqrt(usual * (1 - usual) / min(self._count, WINDOW))
        limit = max(2 * usual, usual + _MORE) + chance
        # The first of a release are what is usual: there is nothing before them.
        return self.share > (min(limit, _NEVER_FINE) if self._before else _NEVER_FINE)

    def snapshot(self) -> tuple[str, int, int, int]:
        """The window as hexadecimal digits: as a number it is too large for what reads it."""
        return f"{self._window:x}", self._count, self._before, self._before_bad

    def restore(self, state: tuple[str, int, int, int]) -> None:
        window, self._count, self._before, self._before_bad = state
        self._window = int(window, 16)
