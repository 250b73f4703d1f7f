"""Whether a replica has room for one more request: predicted from what is there, corrected by what it says.

Own counts react at once; every scrape corrects what they mean there. A scrape that is too old says nothing,
and what nothing is known of has no bound: it is never a reason to hold a request back.

A few requests may always wait in an engine, so that its next step is never smaller than it could be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple, Protocol

from policies.routing.policy import LoadView

_FULL: Final = 0.9
"""KV cache in use from which requests that wait do so for want of room, not for their turn."""
_LEAST_USE: Final = 0.05
"""KV cache in use below which it is not compared with own counts: too little to tell."""
_STEP: Final = 0.3
_LEAST_TOKEN: Final = 0.02
_MOST_TOKEN: Final = 2.0
_LOOSENED: Final = 0.9


class EngineLoad(LoadView, Protocol):
    """What of a scrape says how full an engine is."""

    @property
    def max_running_requests(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class SaturationOptions:
    """`waiting_share`: requests that may wait in an engine for each that runs; `least_waiting` always may.

    A scrape is believed for `fresh_s` seconds.
    """

    waiting_share: float = 0.1
    least_waiting: int = 2
    fresh_s: float = 5.0


class Bounds(NamedTuple):
    """What may be at a replica before it is saturated, in the router's own counts."""

    requests: float = inf
    tokens: float = inf


UNBOUNDED: Final = Bounds()


def saturation(in_flight: int, tokens: float, bounds: Bounds) -> float:
    """0 is idle; from 1 on there is no room for one more. 0 too where nothing bounds it."""
    return max(in_flight / bounds.requests, tokens / bounds.tokens)


def pool_saturation(replicas: Iterable[float]) -> float:
    """A pool is as saturated as the least of those that are ready; without any it is beyond all measure."""
    return min(replicas, default=inf)


class RoomModel:
    """One replica's bounds, renewed with every scrape.

    Requests: as many as it says it can run, and those that may wait. Where it does not say, the queue that
    stands in it shows its limit: one that was there at two scrapes, or at one with the KV cache full. While
    the limit binds and less waits than may, it is raised; when it no longer binds it is forgotten.

    Tokens: what the KV cache holds. How much of it an own token takes is learned: prompts share
    prefixes, estimates err. While this bound binds and less waits than may, it is raised, too: some
    engines count as used what they only keep for later.
    """

    __slots__ = ("_at", "_options", "_slack", "_stood", "bounds", "limit", "token_size")

    def __init__(self, options: SaturationOptions, *, queues: bool = True) -> None:
        """`queues` False: the engine's own number of requests counts those that wait in it, too (TGI)."""
        self._options = options
        self._slack = 1.0 if queues else 0.0
        self._stood = False
        self._at = -inf
        self.limit = inf
        """Requests, as its queue has shown."""
        self.token_size = 1.0
        """Of its KV cache, tokens that one of ours takes."""
        self.bounds = UNBOUNDED

    def read(self, load: EngineLoad, in_flight: int, tokens: float, now: float) -> Bounds:
        """A scrape came, and this is what was there then by own count."""
        self._at = now
        may_wait = self._may_wait(load.running_requests or 0.0)
        self._learn_limit(load, in_flight, may_wait)
        self._learn_token(load, tokens, may_wait)
        slots = load.max_running_requests
        if slots:
            slots += self._slack * self._may_wait(slots)
        capacity = load.kv_capacity_tokens
        self.bounds = Bounds(
            min(self.limit, slots or inf),
            capacity * (1 + self._options.waiting_share) / self.token_size if capacity else inf,
        )
        return self.bounds

    def at(self, now: float) -> Bounds:
        """The bounds, or none if the last scrape is too old."""
        if now - self._at > self._options.fresh_s:
            self._stood = False
            self.limit = inf
            self.bounds = UNBOUNDED
        return self.bounds

    def _may_wait(self, running: float) -> float:
        return max(float(self._options.least_waiting), self._options.waiting_share * running)

    def _learn_limit(self, load: EngineLoad, in_flight: int, may_wait: float) -> None:
        waiting = load.waiting_requests
        if waiting is None:
            self.limit = inf
            return
        excess = waiting - may_wait
        stands = self._stood or (load.kv_usage_ratio or 0.0) >= _FULL
        self._stood = excess > 0
        if excess > 0 and stands:
            self.limit = max(1.0, in_flight - excess)
        elif in_flight < self.limit:
            self.limit = inf
        elif excess < 0:
            self.limit -= excess

    def _learn_token(self, load: EngineLoad, tokens: float, may_wait: float) -> None:
        """What waits in the engine holds no memory yet."""
        waiting = load.waiting_requests
        if tokens >= self.bounds.tokens and waiting is not None and waiting < may_wait:
            self.token_size = max(_LOOSENED * self.token_size, _LEAST_TOKEN)
        use, capacity, running = load.kv_usage_ratio, load.kv_capacity_tokens, load.running_requests
        if not (use and capacity and running) or use < _LEAST_USE or tokens <= 0:
            return
        there = tokens * running / (running + (waiting or 0.0))
        size = min(max(use * capacity / there, _LEAST_TOKEN), _MOST_TOKEN)
        self.token_size += _STEP * (size - self.token_size)
