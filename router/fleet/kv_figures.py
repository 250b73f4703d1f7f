"""How well the KV events of a replica are heard: by one process, and by all of a router."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec


class KvFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica: a state of the moment, then counts since its events are heard; see `FeedFigures`.

    `known_blocks`: of the engine, that are known now. Stored and removed ones are the router's.
    `orphan_blocks`: told, and not understood for want of what they follow.
    """

    listeners: int = 1
    """Processes; each counts for itself."""
    connected: bool = False
    """Every listener is, to every rank."""
    known_blocks: int = 0
    """By the listener that knows least."""
    events_per_s: float = 0.0
    last_event_age_s: float | None = None
    """Of the listener that has waited longest."""
    lag_s: float | None = None
    connections: int = 0
    events: int = 0
    stored_blocks: int = 0
    removed_blocks: int = 0
    orphan_blocks: int = 0
    gaps: int = 0
    losses: int = 0
    replays: int = 0
    failed_replays: int = 0
    restarts: int = 0
    unreadable: int = 0


COUNTS: Final = (
    "connections",
    "events",
    "stored_blocks",
    "removed_blocks",
    "orphan_blocks",
    "gaps",
    "losses",
    "replays",
    "failed_replays",
    "restarts",
    "unreadable",
)


def merged(now: Sequence[KvFigures], ever: Sequence[KvFigures]) -> KvFigures | None:
    """The state of all that listen `now`, and the counts of all that `ever` did. None if nobody does now."""
    if not now:
        return None
    return KvFigures(
        listeners=sum(each.listeners for each in now),
        connected=all(each.connected for each in now),
        known_blocks=min(each.known_blocks for each in now),
        events_per_s=max(each.events_per_s for each in now),
        last_event_age_s=_most(each.last_event_age_s for each in now),
        lag_s=_most(each.lag_s for each in now),
        **{name: sum(getattr(each, name) for each in ever) for name in COUNTS},
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
