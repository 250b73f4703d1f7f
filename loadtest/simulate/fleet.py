"""The whole of a run: sessions arrive, workers choose, replicas serve, and everybody is told of it.

The rule: a policy learns nothing here that a router in front of real engines could not know at that time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, NamedTuple

from loadtest.simulate.gossip import Gossip
from loadtest.simulate.kv_feed import KvFeed
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.results import Served
from loadtest.simulate.sequence import VirtualSequence
from loadtest.simulate.setup import PolicyMaker, ReplicaSetup, Setup
from loadtest.simulate.timeline import Timeline
from loadtest.simulate.worker import Candidate, Facts, Worker
from loadtest.simulate.workload import Call, Session, Workload
from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done, Event, FirstToken, Forgotten, Prompt
from policies.routing.policy import Policy

_NOBODY_THERE_S: Final = 0.5
"""After so long a request that found no replica, or no worker, tries again."""


Ended = Callable[[Served], None]
"""Hears once how a call ended."""


@dataclass(slots=True)
class _Visit:
    """A call under way, from its arrival to its end, with the worker that has it."""

    call: Call
    session: str | None
    at: float
    ended: Ended
    worker: Worker
    attempts: int = 0


class _Attempt(NamedTuple):
    """A call on a replica."""

    visit: _Visit
    candidate: Candidate
    sequence: VirtualSequence
    at: float


Watch = Callable[[Served], bool]
"""Sees every call as it ends; True: it has seen enough, the run may stop here."""


def simulate(
    workload: Workload, setup: Setup, make_policy: PolicyMaker, watch: Watch | None = None
) -> list[Served]:
    """Every call of the workload, in the order in which they ended.

    Calls that are longer than the smallest replica's memory are left out.
    """
    smallest = min(replica.hardware.kv_tokens for replica in setup.replicas)
    return Fleet(workload.fitting(smallest), setup, make_policy, watch).run()


class Fleet:
    """One run; `run` may be called once. Fleets of one `timeline` live at the same time."""

    def __init__(
        self,
        workload: Workload,
        setup: Setup,
        make_policy: PolicyMaker,
        watch: Watch | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.timeline = timeline or Timeline()
        self.setup = setup
        self.replicas: dict[str, VirtualReplica] = {}
        self._workload = workload
        self._make_policy = make_policy
        self._watch = watch
        self._random = Random(setup.seed)
        self._gossip = Gossip(self.timeline, setup.gossip_s, setup.gossip_loss, Random(setup.seed + 1))
        self.workers = self._gossip.workers
        self._down: set[str] = set()
        self._attempts: dict[int, _Attempt] = {}
        self._tickets = 0
        self._left = len(workload)
        self._served: list[Served] = []
        for number in range(setup.workers):
            self.workers.append(Worker(number, self._policy(), self.timeline))
        for replica in setup.replicas:
            self.join(replica)

    def run(self) -> list[Served]:
        for session in self._workload.sessions:
            self.timeline.at(session.starts_s, self._begin, session, 0, session.starts_s)
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

    def _begin(self, session: Session, index: int, at: float) -> None:
        self.ask(session.calls[index], session.name, at, partial(self._go_on, session, index))

    def ask(self, call: Call, session: str | None, at: float, ended: Ended) -> None:
        """The call came at `at`; any worker that is up takes it."""
        up = [worker for worker in self.workers if worker.up]
        if up:
            worker = up[0] if len(up) == 1 else self._random.choice(up)
            self._dispatch(_Visit(call, session, at, ended, worker))
        else:
            self.timeline.after(_NOBODY_THERE_S, self.ask, call, session, at, ended)

    def _dispatch(self, visit: _Visit) -> None:
        call, now = visit.call, self.timeline.now
        seen = call.seen or call.prompt
        candidate = visit.worker.choose(Facts(visit.session, seen))
        if candidate is None:
            self.timeline.after(_NOBODY_THERE_S, self.ask, call, visit.session, visit.at, visit.ended)
            return
        self._tickets += 1
        ticket, hashes = self._tickets, call.answer or call.prompt.blocks
        sequence = VirtualSequence(ticket, call.prompt.tokens, call.completion_tokens, hashes, now)
        visit.attempts += 1
        candidate.in_flight += 1
        self._attempts[ticket] = _Attempt(visit, candidate, sequence, now)
        self._tell(visit.worker, Dispatched(candidate.id, ticket, now, seen))
        self.replicas[candidate.id].submit(sequence)

    def _first(self, sequence: VirtualSequence) -> None:
        attempt = self._attempts[sequence.ticket]
        event = FirstToken(attempt.candidate.id, sequence.ticket, self.timeline.now)
        self._tell(attempt.visit.worker, event)

    def _end(self, sequence: VirtualSequence) -> None:
        attempt = self._attempts[sequence.ticket]
        self._close(attempt, Ending.COMPLETED, _answer(attempt.visit.call))
        self._leave(attempt, ok=True)

    def _close(self, attempt: _Attempt, ending: Ending, answer: Prompt | None = None) -> None:
        """The attempt is over, and its worker learns how it was."""
        sequence, candidate, now = attempt.sequence, attempt.candidate, self.timeline.now
        del self._attempts[sequence.ticket]
        candidate.in_flight -= 1
        completed = ending is Ending.COMPLETED
        outcome = Outcome(
            ending,
            attempt.at,
            sequence.first_token_s,
            now,
            sequence.prompt_tokens if completed else None,
            sequence.cached_tokens if completed else None,
            sequence.output_tokens if completed else None,
        )
        self._tell(attempt.visit.worker, Done(candidate.id, sequence.ticket, now, outcome, answer))

    def _leave(self, attempt: _Attempt, *, ok: bool) -> None:
        """The call is over."""
        visit, sequence = attempt.visit, attempt.sequence
        visit.ended(
            Served(
                visit.call,
                visit.at,
                sequence.prompt_tokens,
                sequence.cached_tokens,
                sequence.output_tokens,
                attempt.candidate.id,
                visit.worker.number,
                visit.attempts,
                attempt.at,
                sequence.first_token_s,
                self.timeline.now,
                ok,
            )
        )

    def _go_on(self, session: Session, index: int, served: Served) -> None:
        """To the session's next call, if there is one."""
        self._served.append(served)
        self._count_down(served)
        if index + 1 < len(session.calls):
            at = self.timeline.now + session.calls[index + 1].think_s
            self.timeline.at(at, self._begin, session, index + 1, at)

    def _count_down(self, served: Served) -> None:
        self._left -= 1
        enough = self._watch is not None and self._watch(served)
        if enough or not self._left:
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
            attempt = self._attempts[sequence.ticket]
            self._close(attempt, Ending.FAILED)
            self._dispatch(attempt.visit)

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
        for attempt in [one for one in self._attempts.values() if one.visit.worker is worker]:
            self.replicas[attempt.candidate.id].end(attempt.sequence)
            self._close(attempt, Ending.CLIENT_LEFT)
            self._leave(attempt, ok=False)

    def worker_up(self, number: int) -> None:
        talk = self.setup.gossip_s is not None
        colleague = next((worker for worker in self.workers if worker.up and talk), None)
        self.workers[number].start_again(self._policy(), colleague)


def _answer(call: Call) -> Prompt | None:
    if not call.answer or not call.answer_seen:
        return None
    return Prompt(call.answer, call.prompt.tokens + call.completion_tokens, call.prompt.block_tokens)
