"""Does the canary get the share of units that it ought to get? If not, no comparison is worth anything.

A split that is wrong, or observations of one arm that are lost, look like a better or a worse canary (sample
ratio mismatch: Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", 2019).
"""

from math import log
from typing import Final

from policies.release.betting import ArmsTest
from policies.release.units import Seen

THRESHOLD: Final = log(1e4)
"""A split that is right raises the alarm at one step of 10,000, however often one looks."""
_ODDS: Final = (1.25, 2.0)


class SampleRatio:
    """Judges each step by itself; a unit counts once at a step."""

    __slots__ = ("_seen", "_test", "canary", "expected", "units")

    def __init__(self) -> None:
        self._seen = Seen()
        self.begin_step()

    def begin_step(self) -> None:
        self._seen.clear()
        self._test = ArmsTest(_ODDS, both=True)
        self._test.stake()
        self.units = 0
        self.canary = 0
        self.expected = 0.0
        """Of the units, so many should be the canary's."""

    def add(self, unit: int, canary: bool, share: float) -> None:
        if self._seen.first(unit):
            self.units += 1
            self.canary += canary
            self.expected += share
            self._test.add(canary, share)

    @property
    def log_e(self) -> float:
        return self._test.log_e

    @property
    def wrong(self) -> bool:
        return self.log_e >= THRESHOLD

    def snapshot(self) -> tuple[bytes, tuple[float, ...], int, int, float]:
        return self._seen.snapshot(), self._test.snapshot(), self.units, self.canary, self.expected

    def restore(self, state: tuple[bytes, tuple[float, ...], int, int, float]) -> None:
        seen, test, self.units, self.canary, self.expected = state
        self._seen.restore(seen)
        self._test.restore(test)
