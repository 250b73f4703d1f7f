"""What releases are commonly decided by, beside the analyser: rules that are wrong when one keeps looking."""

from math import sqrt
from typing import Final, Protocol

from policies.release.event_metric import ERROR
from policies.release.observation import Observation

_LOOK_EVERY: Final = 100
_Z_OF_1_PERCENT: Final = 2.326
_INTERVAL: Final = 50
_SUCCESS: Final = 0.99
_FAILED_CHECKS: Final = 10


class Rival(Protocol):
    """Sees what the analyser sees."""

    alarmed: bool

    def observe(self, seen: Observation) -> None: ...


class PeekingZTest:
    """The usual test of two shares at 1 %, one-sided, looked at after every 100 requests of the canary."""

    def __init__(self) -> None:
        self.alarmed = False
        self._requests = [0, 0]
        self._bad = [0, 0]

    def observe(self, seen: Observation) -> None:
        self._requests[seen.canary] += 1
        self._bad[seen.canary] += not ERROR.isdisjoint(seen.bad)
        if seen.canary and self._requests[True] % _LOOK_EVERY == 0:
            self._look()

    def _look(self) -> None:
        (stable, canary), (stable_bad, canary_bad) = self._requests, self._bad
        share = (stable_bad + canary_bad) / (stable + canary)
        if not (stable and 0 < share < 1):
            return
        error = sqrt(share * (1 - share) * (1 / stable + 1 / canary))
        self.alarmed |= (canary_bad / canary - stable_bad / stable) / error > _Z_OF_1_PERCENT


class FixedThreshold:
    """An interval of 50 requests of the canary fails with less than 99 % successes; 10 of them end it.

    As Flagger counts: failed checks add up over the release.
    """

    def __init__(self) -> None:
        self.alarmed = False
        self._requests = 0
        self._good = 0
        self._failed = 0

    def observe(self, seen: Observation) -> None:
        if not seen.canary:
            return
        self._requests += 1
        self._good += ERROR.isdisjoint(seen.bad)
        if self._requests == _INTERVAL:
            self._failed += self._good < _SUCCESS * _INTERVAL
            self._requests = self._good = 0
            self.alarmed |= self._failed >= _FAILED_CHECKS


RIVALS: Final[dict[str, type[PeekingZTest] | type[FixedThreshold]]] = {
    "z-test, peeking": PeekingZTest,
    "fixed threshold": FixedThreshold,
}
