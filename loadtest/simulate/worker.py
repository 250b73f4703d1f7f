"""A worker process of the router: its own policy object, its own view of the replicas."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, Protocol, runtime_checkable

from loadtest.simulate.replica import Load
from loadtest.simulate.timeline import Timeline
from policies.routing.events import Dispatched, Done, Event, Prompt
from policies.routing.policy import Policy

_FOREIGN_S: Final = 120.0
"""A request of another worker whose end was never heard of counts as in flight for so long."""


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
        self._foreign: dict[int, Dispatched] = {}

    def choose(self, facts: Facts) -> Candidate | None:
        """None: no replica is there."""
        if not self._eligible:
            return None
        return self.policy.choose(facts, self._eligible, self._timeline.now)

    def observe(self, event: Event) -> None:
        """Learn of an event of its own, or of one that a replica tells everybody."""
        if self._learns:
            self.policy.observe(event)

    def hear(self, event: Event) -> None:
        """Learn of an event of another worker."""
        if not self.up:
            return
        if isinstance(event, Dispatched):
            self._drop_old()
            self._foreign[event.ticket] = event
            self._count(event.replica, 1)
        elif isinstance(event, Done) and event.ticket in self._foreign:
            del self._foreign[event.ticket]
            self._count(event.replica, -1)
        self.observe(event)

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

    def _drop_old(self) -> None:
        oldest = self._timeline.now - _FOREIGN_S
        while self._foreign:
            ticket, event = next(iter(self._foreign.items()))
            if event.at > oldest:
                return
            del self._foreign[ticket]
            self._count(event.replica, -1)

    def _count(self, replica: str, change: int) -> None:
        candidate = self._candidates.get(replica)
        if candidate is not None:
            candidate.in_flight += change


class Gossip:
    """What workers tell each other: late by `delay_s`, and each message lost with probability `loss`.

    `delay_s` None: they tell each other nothing.
    """

    def __init__(self, timeline: Timeline, delay_s: float | None, loss: float, random: Random) -> None:
        self.workers: list[Worker] = []
        self._timeline = timeline
        self._delay_s = delay_s
        self._loss = loss
        self._random = random

    def tell(self, sender: Worker, event: Event) -> None:
        """One message to every other worker."""
        if self._delay_s is None or len(self.workers) == 1:
            return
        hearers = [worker for worker in self.workers if worker is not sender]
        if self._loss:
            hearers = [worker for worker in hearers if self._random.random() >= self._loss]
        self._timeline.after(self._delay_s, self._deliver, event, hearers)

    @staticmethod
    def _deliver(event: Event, hearers: Sequence[Worker]) -> None:
        for worker in hearers:
            worker.hear(event)
