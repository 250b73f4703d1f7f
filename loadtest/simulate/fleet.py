"""The whole of a run: sessions arrive, workers choose, replicas serve, and everybody is told of it.

The rule: a policy learns nothing here that a router in front of real engines could not know at that time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loadtest.simulate.kv_feed import KvFeed
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.results import Served
from loadtest.simulate.sequence import VirtualSequence
from loadtest.simulate.setup import PolicyMaker, ReplicaSetup, Setup
from loadtest.simulate.timeline import Timeline
from loadtest.simulate.worker import Candidate, Facts, Gossip, Worker
from loadtest.simulate.workload import Call, Session, Workload
from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done, Event, FirstToken, Forgotten, Prompt
from policies.routing.policy import Policy

_NOBODY_THERE_S: Final = 0.5
"""After so long a request that found no replica, or no worker, tries again."""
_TOLD_EVERY: Final = 256
"""Calls from one report of progress to the next."""


@dataclass(slots=True)
class _Flight:
    """A call under way. `replica` and what follows are of the last attempt."""

    session: Session
    index: int
    at: float
    worker: Worker
    attempts: int = 0
    candidate: Candidate | None = None
    dispatched_at: float = 0.0
    sequence: VirtualSequence | None = None

    @property
    def call(self) -> Call:
        return self.session.calls[self.index]


def simulate(
    workload: Workload, setup: Setup, make_policy: PolicyMaker, tell: Callable[[int], object] | None = None
) -> list[Served]:
    """Every call of the workload, in the order in which they ended.

    Calls that are longer than the smallest replica's memory are left out. `tell` is told from time to time
    how many more have ended.
    """
    smallest = min(replica.hardware.kv_tokens for replica in setup.replicas)
    return Fleet(workload.fitting(smallest), setup, make_policy, tell).run()


class Fleet:
    """One run; `run` may be called once."""

    def __init__(
        self,
        workload: Workload,
        setup: Setup,
        make_policy: PolicyMaker,
        tell: Callable[[int], object] | None = None,
    ) -> None:
        self.timeline = Timeline()
        self.setup = setup
        self.replicas: dict[str, VirtualReplica] = {}
        self._workload = workload
        self._make_policy = make_policy
        self._tell_ended = tell
        self._random = Random(setup.seed)
        self._gossip = Gossip(self.timeline, setup.gossip_s, setup.gossip_loss, Random(setup.seed + 1))
        self.workers = self._gossip.workers
        self._down: set[str] = set()
        self._flights: dict[int, _Flight] = {}
        self._tickets = 0
        self._left = len(workload)
        self._served: list[Served] = []
        for number in range(setup.workers):
            self.workers.append(Worker(number, self._policy(), self.timeline))
        for replica in setup.replicas:
            self.join(replica)

    def run(self) -> list[Served]:
        for session in self._workload.sessions:
            self.timeline.at(session.starts_s, self._arrive, session, 0)
        for fault in self.setup.faults:
            self.timeline.at(fault.at, fault.strike, self)
        if self._left:
            self.timeline.run()
        return self._served

    def _policy(self) -> Policy:
        policy = self._make_policy(Random(self._random.getrandbits(64)))
        if isinstance(policy, Oracle):
            policy.see(self.replicas)
        return policy

    # ---- one call's way ----

    def _arrive(self, session: Session, index: int) -> None:
        self._start(session, index, self.timeline.now)

    def _start(self, session: Session, index: int, at: float) -> None:
        up = [worker for worker in self.workers if worker.up]
        if not up:
            self.timeline.after(_NOBODY_THERE_S, self._start, session, index, at)
            return
        worker = up[0] if len(up) == 1 else self._random.choice(up)
        self._dispatch(_Flight(session, index, at, worker))

    def _dispatch(self, flight: _Flight) -> None:
        call, now, worker = flight.call, self.timeline.now, flight.worker
        candidate = worker.choose(Facts(flight.session.name, call.prompt))
        if candidate is None:
            self.timeline.after(_NOBODY_THERE_S, self._dispatch, flight)
            return
        self._tickets += 1
        ticket, tokens = self._tickets, call.prompt.tokens
        flight.sequence = VirtualSequence(
            ticket, tokens, call.completion_tokens, call.answer or call.prompt.blocks, now
        )
        flight.attempts += 1
        flight.candidate, flight.dispatched_at = candidate, now
        candidate.in_flight += 1
        self._flights[ticket] = flight
        self._tell(worker, Dispatched(candidate.id, ticket, now, call.prompt))
        self.replicas[candidate.id].submit(flight.sequence)

    def _first(self, sequence: VirtualSequence) -> None:
        flight = self._flights[sequence.ticket]
        if flight.candidate is not None:
            self._tell(flight.worker, FirstToken(flight.candidate.id, sequence.ticket, self.timeline.now))

    def _end(self, sequence: VirtualSequence) -> None:
        flight = self._flights[sequence.ticket]
        self._close(sequence, Ending.COMPLETED, _answer(flight.call))
        self._record(flight, ok=True)

    def _close(self, sequence: VirtualSequence, ending: Ending, answer: Prompt | None = None) -> None:
        """The attempt is over."""
        flight = self._flights.pop(sequence.ticket)
        candidate, now = flight.candidate, self.timeline.now
        if candidate is None:
            return
        candidate.in_flight -= 1
        ended = ending is Ending.COMPLETED
        outcome = Outcome(
            ending,
            flight.dispatched_at,
            sequence.first_token_s,
            now,
            sequence.prompt_tokens if ended else None,
            sequence.cached_tokens if ended else None,
            sequence.output_tokens if ended else None,
        )
        self._tell(flight.worker, Done(candidate.id, sequence.ticket, now, outcome, answer))

    def _record(self, flight: _Flight, *, ok: bool) -> None:
        sequence, now = flight.sequence, self.timeline.now
        if sequence is None or flight.candidate is None:
            return
        self._served.append(
            Served(
                flight.call,
                flight.at,
                sequence.prompt_tokens,
                sequence.cached_tokens,
                sequence.output_tokens,
                flight.candidate.id,
                flight.worker.number,
                flight.attempts,
                flight.dispatched_at,
                sequence.first_token_s,
                now,
                ok,
            )
        )
        self._count_down()
        following = flight.index + 1
        if following < len(flight.session.calls):
            think_s = flight.session.calls[following].think_s
            self.timeline.after(think_s, self._arrive, flight.session, following)

    def _count_down(self) -> None:
        self._left -= 1
        if self._tell_ended is not None and self._left % _TOLD_EVERY == 0:
            self._tell_ended(_TOLD_EVERY)
        if not self._left:
            self.timeline.stop()

    def _tell(self, worker: Worker, event: Event) -> None:
        worker.observe(event)
        self._gossip.tell(worker, event)

    def tell_all(self, event: Event) -> None:
        """Something that every worker learns from the replica itself."""
        for worker in self.workers:
            worker.observe(event)

    # ---- what changes on the way ----

    def join(self, setup: ReplicaSetup) -> None:
        """One replica more, cold, for every worker at once."""
        replica = VirtualReplica(
            setup.id,
            setup.hardware,
            self._workload.block_tokens,
            self.timeline,
            fast_forward=self.setup.fast_forward,
        )
        replica.slow_down(setup.slowdown)
        replica.on_first, replica.on_end = self._first, self._end
        self.replicas[setup.id] = replica
        for worker in self.workers:
            worker.add(Candidate(setup.id, setup.weight))
        if self.setup.kv_events_s is not None:
            feed = KvFeed(setup.id, self.timeline, self.setup.kv_events_s, self.tell_all)
            replica.scheduler.cache.listeners.append(feed)
        interval_s = self.setup.scrape_interval_s
        if interval_s is not None:
            self.timeline.every(interval_s, interval_s * self._random.random(), lambda: self._scrape(replica))

    def _scrape(self, replica: VirtualReplica) -> None:
        if replica.id in self._down:
            return
        load = replica.load()
        for worker in self.workers:
            worker.scraped(replica.id, load)

    def replica_down(self, id_: str) -> None:
        """It dies with everything in it, which is noticed at once; its requests go elsewhere."""
        self._down.add(id_)
        self._set_eligible()
        for sequence in self.replicas[id_].restart():
            flight = self._flights[sequence.ticket]
            self._close(sequence, Ending.FAILED)
            self._dispatch(flight)

    def replica_up(self, id_: str) -> None:
        """It is back, and everybody sees that it was restarted."""
        self._down.discard(id_)
        self._set_eligible()
        self.tell_all(Forgotten(id_, self.timeline.now))

    def _set_eligible(self) -> None:
        eligible = [id_ for id_ in self.replicas if id_ not in self._down]
        for worker in self.workers:
            worker.set_eligible(eligible)

    def worker_down(self, number: int) -> None:
        """It dies, and its clients' requests with it; the others are told of their ends as if by itself."""
        worker = self.workers[number]
        worker.up = False
        mine: Sequence[_Flight] = [flight for flight in self._flights.values() if flight.worker is worker]
        for flight in mine:
            if flight.sequence is not None and flight.candidate is not None:
                self.replicas[flight.candidate.id].end(flight.sequence)
                self._close(flight.sequence, Ending.CLIENT_LEFT)
                self._record(flight, ok=False)

    def worker_up(self, number: int) -> None:
        self.workers[number].start_again(self._policy())


def _answer(call: Call) -> Prompt | None:
    if not call.answer or not call.answer_seen:
        return None
    return Prompt(call.answer, call.prompt.tokens + call.completion_tokens, call.prompt.block_tokens)
