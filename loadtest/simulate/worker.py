"""A worker process of the router: its own policy object, its own view of the replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from loadtest.simulate.replica import Load
from loadtest.simulate.timeline import Timeline
from policies.routing.events import Dispatched, Done, Event, Prompt
from policies.routing.policy import Policy


class Facts(NamedTuple):
    """A request as a policy sees it; see `policies.routing.policy.RequestFacts`."""

    session: str | None
    prompt: Prompt | None


@dataclass(slots=True)
class Candidate:
    """A replica as one worker sees it; see `policies.routing.policy.ReplicaView`."""

    id: str
    weight: float
    in_flight: int = 0
    load: Load | None = None
    load_at: float = 0.0


@runtime_checkable
class HandsOver(Protocol):
    """A policy that can give what it has learned to a worker that joins."""

    def dump(self) -> bytes: ...
    def load(self, state: bytes) -> None:
        """Take it over from another one's `dump`."""
        ...


class Worker:
    """Chooses, and learns: of its own requests at once, of those of others when it hears."""

    def __init__(self, number: int, policy: Policy, timeline: Timeline) -> None:
        self.number = number
        self.policy = policy
        self.up = True
        self._timeline = timeline
        self._learns = policy.learns
        self._candidates: dict[str, Candidate] = {}
        self._eligible: list[Candidate] = []
        self._foreign: dict[int, tuple[int, str]] = {}
        """Open requests of others: whose, and where."""

    def choose(self, facts: Facts) -> Candidate | None:
        """None: no replica is there."""
        if not self._eligible:
            return None
        return self.policy.choose(facts, self._eligible, self._timeline.now)

    def observe(self, event: Event) -> None:
        """Learn of an event of its own, or of one that a replica tells everybody."""
        if self._learns:
            self.policy.observe(event)

    def hear(self, sender: int, event: Event) -> None:
        """Learn of an event of another worker."""
        if not self.up:
            return
        if isinstance(event, Dispatched):
            self._foreign[event.ticket] = (sender, event.replica)
            self._count(event.replica, 1)
        elif isinstance(event, Done) and event.ticket in self._foreign:
            del self._foreign[event.ticket]
            self._count(event.replica, -1)
        self.observe(event)

    def hear_all_open(self, sender: int, requests: Mapping[int, Dispatched]) -> None:
        """Put right what was lost: these are all the requests that another worker has open."""
        over = [
            (ticket, replica)
            for ticket, (owner, replica) in self._foreign.items()
            if owner == sender and ticket not in requests
        ]
        for ticket, replica in over:
            self.hear(sender, Done(replica, ticket, self._timeline.now, None))
        for ticket, event in requests.items():
            if ticket not in self._foreign:
                self.hear(sender, event)

    def scraped(self, replica: str, load: Load) -> None:
        candidate = self._candidates[replica]
        candidate.load, candidate.load_at = load, self._timeline.now

    def add(self, candidate: Candidate) -> None:
        self._candidates[candidate.id] = candidate
        self._eligible.append(candidate)

    def set_eligible(self, replicas: Sequence[str]) -> None:
        """These may be chosen, in this order."""
        self._eligible = [self._candidates[replica] for replica in replicas]

    def start_again(self, policy: Policy, colleague: "Worker | None") -> None:
        """A new process in the place of one that died: it knows nothing but what a colleague hands over."""
        if (
            colleague is not None
            and isinstance(policy, HandsOver)
            and isinstance(colleague.policy, HandsOver)
        ):
            policy.load(colleague.policy.dump())
        self.policy, self.up = policy, True
        self._foreign.clear()
        for candidate in self._candidates.values():
            candidate.in_flight, candidate.load = 0, None

    def _count(self, replica: str, change: int) -> None:
        candidate = self._candidates.get(replica)
        if candidate is not None:
            candidate.in_flight += change
