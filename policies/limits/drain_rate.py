"""How fast a queue drains, and from that how long a wait will be: what a refusal can honestly promise."""

from math import exp
from typing import Final

_MEMORY_S: Final = 10.0
"""What is older counts for little: long enough to be smooth, short enough to follow a fleet that grows."""
_LEAST_SEEN_S: Final = 0.5
"""Before that a rate would be a guess."""


class DrainRate:
    """Tokens a second taken from a queue, over the time in which somebody waited. Seconds as handed in."""

    __slots__ = ("_at", "_busy_s", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._busy_s = 0.0
        self._at: float | None = None

    def waits(self, now: float) -> None:
        """From now on somebody waits."""
        if self._at is None:
            self._at = now

    def rests(self, now: float) -> None:
        """Nobody waits any more: what passes until somebody does says nothing of the fleet."""
        self._pass(now)
        self._at = None

    def took(self, tokens: float, now: float) -> None:
        """So many tokens left the queue for a replica."""
        self._pass(now)
        self._tokens += tokens

    def wait_s(self, tokens: float, now: float) -> float | None:
        """How long until so many tokens have gone; None: too little was seen to say."""
        self._pass(now)
        if self._busy_s < _LEAST_SEEN_S or not self._tokens:
            return None
        return tokens * self._busy_s / self._tokens

    def _pass(self, now: float) -> None:
        if self._at is None:
            return
        passed_s = max(0.0, now - self._at)
        kept = exp(-passed_s / _MEMORY_S)
        self._tokens *= kept
        self._busy_s = self._busy_s * kept + passed_s
        self._at = now
