"""What is stored of releases: the state of each model, and who moved it, when, why and on what evidence."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from policies.release.lifecycle import Release
from policies.release.split import WHOLE

MOST_ENTRIES = 500
"""What is remembered of one model; older moves are forgotten first."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric said when a decision was made. It decides from `log_e` >= `threshold` on.

    `canary` and `stable` are what was compared: shares, seconds or tokens, over `canary_n` and `stable_n`.
    """

    metric: str
    log_e: float
    threshold: float
    canary_n: int
    stable_n: int
    canary: float | None = None
    stable: float | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One move. Weights are per cent by version, before and after it."""

    generation: int
    at: float
    verb: str
    actor: str
    reason: str = ""
    phase: str
    stable: str
    canary: str | None = None
    percent_before: float = 0.0
    percent: float = 0.0
    evidence: tuple[Evidence, ...] = ()


class Record(msgspec.Struct, frozen=True):
    """One model's release and its past, the newest move first."""

    release: Release
    history: tuple[Entry, ...] = ()

    def then(self, release: Release, entry: Entry) -> "Record":
        return Record(release, (entry, *self.history)[:MOST_ENTRIES])


class Conflict(Exception):
    """Somebody else has moved the release meanwhile."""


class StoreAway(Exception):
    """The store cannot be read or written now; the text says why."""


class ReleaseStore(Protocol):
    """Raises `StoreAway`."""

    async def read(self) -> Mapping[str, Release]: ...

    async def swap(self, model: str, release: Release, entry: Entry) -> None:
        """Store it if what is there has the generation before. Raises `Conflict` if it has not."""
        ...

    async def history(self, model: str) -> Sequence[Entry]:
        """The newest move first."""
        ...


def percent_of(release: Release) -> float:
    """The canary's share of stable's traffic."""
    return 100 * release.share / WHOLE if release.under_way else 0.0


_RELEASE = msgspec.json.Decoder(Release)


def encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


def release_from(data: bytes) -> Release:
    """Raises `ValueError`."""
    return _RELEASE.decode(data)
