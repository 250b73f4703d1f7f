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

    `gaps` were noticed, `losses` could not be filled. `source` and `failure` are for people; the latter is
    empty while all is well.
    """

    source: str = ""
    connected: bool = False
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
    _last_at: float | None = None
    _rate: float = 0.0
    _rate_at: float = 0.0

    def count(self, events: int, now: float) -> None:
        self.batches += 1
        self.events += events
        self._rate = self.events_per_s(now) + events / _RATE_WINDOW_S
        self._rate_at = self._last_at = now

    def last_age_s(self, now: float) -> float | None:
        """Since the last batch; None before the first."""
        return None if self._last_at is None else max(0.0, now - self._last_at)

    def events_per_s(self, now: float) -> float:
        """Averaged with weights that fade over ten seconds."""
        return self._rate * exp((self._rate_at - now) / _RATE_WINDOW_S)

    @property
    def trouble(self) -> str:
        """Why nothing is heard, or of no use; empty while all is well."""
        if self.failure:
            return f"its KV events cannot be heard: {self.failure}"
        if not self.connected:
            return f"its KV events are not heard: there is no connection to {self.source}"
        if self.unreadable and not self.batches:
            return f"its KV events cannot be read: {self.source} sends what no known engine does"
        return ""
