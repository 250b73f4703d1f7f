"""What every source of KV events has: somebody who listens, and figures of how well it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Final, Protocol

from router.engines.kv_cache_events import CacheEvent

_RATE_WINDOW_S: Final = 10.0


class KvListener(Protocol):
    """Told in the order in which an engine did things."""

    def heard(self, events: Sequence[CacheEvent], rank: int) -> None: ...

    def lost(self, rank: int) -> None:
        """Nothing is known any more of what this rank caches."""
        ...


class KvFeed(Protocol):
    """One source."""

    figures: "FeedFigures"

    def hasten(self) -> None: ...

    async def run(self) -> None:
        """Listen until cancelled."""
        ...


@dataclass(slots=True)
class FeedFigures:
    """Counts since the feed began, but for `lag_s`, the age of the last live batch when it came.

    `gaps` were noticed, `losses` could not be filled. `failure` is for people, empty while all is well.
    """

    connections: int = 0
    batches: int = 0
    events: int = 0
    gaps: int = 0
    losses: int = 0
    replays: int = 0
    failed_replays: int = 0
    restarts: int = 0
    unreadable: int = 0
    lag_s: float | None = None
    failure: str = ""
    _rate: float = 0.0
    _rate_at: float = 0.0

    def count(self, events: int, now: float) -> None:
        self.batches += 1
        self.events += events
        self._rate = self.events_per_s(now) + events / _RATE_WINDOW_S
        self._rate_at = now

    def events_per_s(self, now: float) -> float:
        """Averaged with weights that fade over ten seconds."""
        return self._rate * exp((self._rate_at - now) / _RATE_WINDOW_S)
