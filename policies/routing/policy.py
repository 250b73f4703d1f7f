"""The seam of routing: a policy chooses one replica of several, and remembers nothing it was not handed.

`choose` is never called without candidates and never sees one that is down, draining or full:
availability has one home, the pool.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class RequestFacts(Protocol):
    """What a choice may know about a request."""

    @property
    def session(self) -> str | None:
        """What keeps the requests of one conversation together; None if nothing does."""
        ...


class ReplicaView(Protocol):
    """What a choice may know about a replica."""

    @property
    def id(self) -> str: ...
    @property
    def weight(self) -> float:
        """Relative capacity, greater than 0; 1.0 unless configured."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that this router has there now."""
        ...


R = TypeVar("R", bound=ReplicaView)


class Policy(Protocol):
    """One way to choose. Built as `Kind(Kind.Options(...), random)`, one object per pool."""

    def choose(self, request: RequestFacts, candidates: Sequence[R]) -> R:
        """Exactly one of `candidates` (one or more, stable order)."""
        ...
