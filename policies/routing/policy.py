"""The seam of routing: a policy chooses one replica of several, and learns from what it is told.

`choose` is never called without candidates and never sees one that is down, draining or full:
availability has one home, the pool. It decides only; that a request went where it said comes back as an
event, like those of other workers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from policies.routing.events import Event, Prompt


class RequestFacts(Protocol):
    """What a choice may know about a request."""

    @property
    def session(self) -> str | None:
        """What keeps the requests of one conversation together; None if nothing does."""
        ...

    @property
    def prompt(self) -> Prompt | None:
        """Hashed when first asked for; None for requests without a prompt."""
        ...


class LoadView(Protocol):
    """What an engine last said of itself; None where it does not say."""

    @property
    def running_requests(self) -> float | None: ...
    @property
    def waiting_requests(self) -> float | None: ...
    @property
    def kv_usage_ratio(self) -> float | None:
        """0 to 1."""
        ...

    @property
    def kv_capacity_tokens(self) -> float | None: ...


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
        """Requests that are there now, as far as this router knows."""
        ...

    @property
    def load(self) -> LoadView | None:
        """The last scrape; None before the first."""
        ...

    @property
    def load_at(self) -> float:
        """When `load` was read, on the clock of `now`."""
        ...


R = TypeVar("R", bound=ReplicaView)


class Weighed(NamedTuple):
    """One candidate as a policy weighed it; the least `cost` is chosen. `terms` say what it is made of."""

    replica: str
    cost: float
    terms: Mapping[str, float]


class Policy(Protocol):
    """One way to choose. Built as `Kind(Kind.Options(...), random)`, one object per pool."""

    @property
    def learns(self) -> bool:
        """Whether it wants events; where not, nobody makes any."""
        ...

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        """Exactly one of `candidates` (one or more, stable order). `now`: seconds, never going back."""
        ...

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        """Why: each candidate in its order. Changes nothing, and draws no chance."""
        ...

    def observe(self, event: Event) -> None:
        """Learn."""
        ...
