"""A canary that answers nobody is taken back at once: no statistics, a run of failures."""

from math import ceil, log
from typing import Final

RUN: Final = 5
_CHANCE: Final = log(1e-6)
_LONGEST: Final = 64
_RARE: Final = 0.01


class Guard:
    """Counts the canary's failures since its last success. A unit counts once: no session does it alone.

    Where stable fails too, now or since the run began, the run has to be so long that chance does not make
    it of failures as frequent as stable's.
    """

    __slots__ = ("_run", "_stable_failed", "_stable_requests")

    def __init__(self) -> None:
        self._run: dict[int, None] = {}
        self._stable_failed = 0
        self._stable_requests = 0

    def canary(self, unit: int, failed: bool) -> None:
        if not failed:
            self.clear()
        elif len(self._run) < _LONGEST:
            self._run[unit] = None

    def stable(self, failed: bool) -> None:
        if self._run:
            self._stable_requests += 1
            self._stable_failed += failed

    @property
    def run(self) -> int:
        return len(self._run)

    def fires(self, stable_share: float) -> bool:
        """`stable_share`: of stable's last requests that failed."""
        if len(self._run) < RUN:
            return False
        meanwhile = self._stable_failed / self._stable_requests if self._stable_requests else 0.0
        share = max(stable_share, meanwhile, _RARE)
        return share < 1 and len(self._run) >= ceil(_CHANCE / log(share))

    def clear(self) -> None:
        if self._run:
            self._run = {}
            self._stable_failed = 0
            self._stable_requests = 0

    def snapshot(self) -> tuple[tuple[int, ...], int, int]:
        return tuple(self._run), self._stable_failed, self._stable_requests

    def restore(self, state: tuple[tuple[int, ...], int, int]) -> None:
        run, self._stable_failed, self._stable_requests = state
        self._run = dict.fromkeys(run)
