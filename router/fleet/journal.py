"""What becomes of a pool's leases, as events: for its policy if that learns, and for those who share.

A pool whose policy does not learn and that shares with nobody has no journal; its leases cost nothing more.
"""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from policies.outcome import Outcome
from policies.routing.events import Dispatched, Done, FirstToken
from policies.routing.policy import Policy
from router.api.request import InferenceRequest
from router.fleet.replicas import Fleet, Lease, Pool, Replica

LeaseEvent = Dispatched | FirstToken | Done
Publish = Callable[[LeaseEvent, str, str], None]
"""Takes an event, and the model and the version whose pool it concerns."""


class FollowedLease(Lease):
    """A lease that is written down from its beginning to its end."""

    __slots__ = ("_journal", "_streamed", "_ticket")

    def __init__(self, replica: Replica, journal: "PoolJournal", ticket: int, *, streamed: bool) -> None:
        super().__init__(replica)
        self._journal = journal
        self._ticket = ticket
        self._streamed = streamed

    def first_token(self) -> None:
        if self._waiting:
            super().first_token()
            if self._streamed:
                self._journal.write(FirstToken(self.replica.id, self._ticket, monotonic()))

    def close(self, outcome: Outcome | None) -> None:
        if self._open:
            super().close(outcome)
            at = monotonic() if outcome is None else outcome.ended_at
            self._journal.write(Done(self.replica.id, self._ticket, at, outcome))


class PoolJournal:
    """The journal of one pool. `tickets` are unique in the fleet. Prompts are hashed for learners only."""

    def __init__(
        self, model: str, version: str, policy: Policy, tickets: Iterator[int], publish: Publish | None
    ) -> None:
        self._model = model
        self._version = version
        self._policy = policy
        self._learns = policy.learns
        self._tickets = tickets
        self._publish = publish

    def lease(self, replica: Replica, request: InferenceRequest, now: float) -> Lease:
        ticket = next(self._tickets)
        lease = FollowedLease(replica, self, ticket, streamed=request.stream)
        prompt = request.prompt if self._learns else None
        self.write(Dispatched(replica.id, ticket, now, prompt, request.stream))
        return lease

    def write(self, event: LeaseEvent) -> None:
        if self._learns:
            self._policy.observe(event)
        if self._publish is not None:
            self._publish(event, self._model, self._version)


def keep_journals(fleet: Fleet, tickets: Iterator[int], publish: Publish | None) -> None:
    """Give a journal to every pool that needs one. `publish` None: there is nobody to share with."""
    for model, version, pool in pools_of(fleet):
        if pool.policy.learns or publish is not None:
            pool.journal = PoolJournal(model, version, pool.policy, tickets, publish)


def pools_of(fleet: Fleet) -> Iterable[tuple[str, str, Pool]]:
    """Model, version and pool, each pool once."""
    pools = {(route.model, route.version): route.pool for route in fleet.routes.values()}
    return [(model, version, pool) for (model, version), pool in pools.items()]
