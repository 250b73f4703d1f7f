"""A fleet under virtual time: arrivals, routers, replicas, and what they tell each other, event by event.

Every router worker has a policy object of its own and sees its share of the traffic; what the others did it
hears of later, or never. What a policy decides with is what it would have in a real router, and no more.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from random import Random
from typing import Any

from loadtest.simulate.asks import Ask, Conversation, Workload
from loadtest.simulate.figures import Record
from loadtest.simulate.replica import Hardware, VirtualReplica, VirtualSequence
from policies.outcome import Ending, Outcome
from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    Dispatched,
    Done,
    Event,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.policy import Policy


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens to a replica: at `at` seconds, `what` to the one of this index.

    `restart` loses its cache and what runs there (asked again), `silent_flush` its cache and nobody is told,
    `slow` makes every step `factor` times as long, `join` adds it to the fleet.
    """

    at: float
    what: str
    replica: int
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A fleet and its routers. Seconds, unless a name says otherwise."""

    hardware: Hardware
    slowdowns: tuple[float, ...]
    """One replica each; 2.0 takes twice as long for every step."""
    weights: tuple[float, ...] = ()
    """What the policy is told of them; absent: all alike."""
    workers: int = 1
    gossip_s: float | None = 0.005
    """How late other workers hear of an event; None: never."""
    gossip_loss: float = 0.0
    """Share of requests that the others never hear of."""
    scrape_s: float | None = 1.0
    """How often the engines' own figures are read; None: never."""
    kv_events_s: float | None = None
    """How late the engines' cache events come; None: there are none."""
    reports_cached: bool = True
    incidents: tuple[Incident, ...] = ()
    killed_worker_at: float | None = None
    seed: int = 1


class _View:
    """A replica as one worker sees it."""

    __slots__ = ("id", "in_flight", "load", "load_at", "true", "weight")

    def __init__(self, true: VirtualReplica, weight: float) -> None:
        self.true = true
        self.id = true.name
        self.weight = weight
        self.in_flight = 0
        self.load: Load | None = None
        self.load_at = -inf


@dataclass(frozen=True, slots=True)
class Load:
    """A scrape."""

    running_requests: float
    waiting_requests: float
    kv_usage_ratio: float
    kv_capacity_tokens: float


@dataclass(slots=True)
class _Worker:
    policy: Policy
    views: dict[str, _View]
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What a policy may know of a request."""

    session: str | None
    prompt: Prompt | None


@dataclass(slots=True)
class _Running:
    ask: Ask
    conversation: Conversation
    turn: int
    worker: int
    asked_at: float
    sent_at: float
    facts: Facts
    announced: bool
    first_at: float | None = None


@dataclass(slots=True)
class Simulation:
    """One run. `make_policy` is called once per worker."""

    workload: Workload
    setting: Setting
    make_policy: Callable[[Random], Policy]
    records: list[Record] = field(default_factory=list)
    decisions: int = 0
    now: float = 0.0
    _events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _order: Any = field(default_factory=count)
    _tickets: Any = field(default_factory=lambda: count(1))
    _running: dict[int, _Running] = field(default_factory=dict)
    _replicas: list[VirtualReplica] = field(default_factory=list)
    _workers: list[_Worker] = field(default_factory=list)
    _up: set[str] = field(default_factory=set)
    _chance: Random = field(default_factory=Random)
    _wakes: dict[str, float] = field(default_factory=dict)

    def run(self) -> "Simulation":
        """To the last answer."""
        self._set_up()
        events = self._events
        while events:
            self.now, _, call, arguments = heapq.heappop(events)
            call(*arguments)
        return self

    @property
    def replicas(self) -> Sequence[VirtualReplica]:
        return self._replicas

    # ---- setting up ----

    def _set_up(self) -> None:
        setting = self.setting
        self._chance = Random(setting.seed)
        joins = {incident.replica for incident in setting.incidents if incident.what == "join"}
        for index, slowdown in enumerate(setting.slowdowns):
            replica = VirtualReplica(
                f"r{index}",
                setting.hardware,
                self.workload.block_tokens,
                slowdown,
                first=self._first_token,
                done=self._done,
            )
            self._replicas.append(replica)
            if index not in joins:
                self._up.add(replica.name)
            if setting.kv_events_s is not None:
                replica.cache.listeners.append(_CacheTeller(self, replica.name))
        weights = setting.weights or (1.0,) * len(self._replicas)
        for number in range(setting.workers):
            views = {
                each.name: _View(each, weight) for each, weight in zip(self._replicas, weights, strict=True)
            }
            self._workers.append(_Worker(self.make_policy(Random(setting.seed * 1_000 + number)), views))
        for conversation in self.workload.conversations:
            self._at(conversation.turns[0].at, self._ask, conversation, 0)
        for incident in setting.incidents:
            self._at(incident.at, self._happen, incident)
        if setting.killed_worker_at is not None:
            self._at(setting.killed_worker_at, self._kill_worker)
        if setting.scrape_s is not None:
            self._at(0.0, self._scrape)

    def _at(self, at: float, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (at, next(self._order), call, arguments))

    # ---- requests ----

    def _ask(self, conversation: Conversation, turn: int) -> None:
        ask = conversation.turns[turn]
        alive = [number for number, worker in enumerate(self._workers) if worker.alive]
        worker = alive[self._chance.randrange(len(alive))]
        prompt = ask.prompt
        facts = Facts(ask.session, prompt)
        announced = self._chance.random() >= self.setting.gossip_loss
        self._send(_Running(ask, conversation, turn, worker, self.now, self.now, facts, announced))

    def _send(self, running: _Running) -> None:
        worker = self._workers[running.worker]
        candidates = [view for name, view in worker.views.items() if name in self._up]
        chosen = worker.policy.choose(running.facts, candidates, self.now)
        self.decisions += 1
        ticket = next(self._tickets)
        running.sent_at = self.now
        self._running[ticket] = running
        self._tell(running, Dispatched(chosen.id, ticket, self.now, running.facts.prompt))
        chosen.true.add(VirtualSequence(running.ask, ticket, self.now), self.now)
        self._rewake(chosen.true)

    def _first_token(self, replica: VirtualReplica, sequence: VirtualSequence, at: float) -> None:
        running = self._running[sequence.ticket]
        running.first_at = at
        self._tell(running, FirstToken(replica.name, sequence.ticket, at))

    def _done(self, replica: VirtualReplica, sequence: VirtualSequence, at: float) -> None:
        running = self._running.pop(sequence.ticket)
        ask = running.ask
        first_at = running.first_at if running.first_at is not None else at
        outcome = Outcome(
            Ending.COMPLETED,
            running.sent_at,
            first_at,
            at,
            ask.prompt.tokens,
            sequence.cached_tokens if self.setting.reports_cached else None,
            sequence.output_tokens,
        )
        self._tell(running, Done(replica.name, sequence.ticket, at, outcome, ask.answer))
        self.records.append(
            Record(
                asked_at=running.asked_at,
                ttft_s=first_at - running.asked_at,
                tpot_s=(at - first_at) / max(1, sequence.output_tokens - 1),
                ended_at=at,
                prompt_tokens=ask.prompt.tokens,
                cached_tokens=sequence.cached_tokens,
                replica=replica.name,
            )
        )
        following = running.turn + 1
        if following < len(running.conversation.turns):
            self._at(
                at + running.conversation.turns[following].at, self._ask, running.conversation, following
            )

    # ---- what policies hear ----

    def _tell(self, running: _Running, event: Event) -> None:
        """The worker that it belongs to at once, the others after the gossip's delay."""
        self._hear(running.worker, event)
        if self.setting.gossip_s is None or not running.announced:
            return
        for number in range(len(self._workers)):
            if number != running.worker:
                self._at(self.now + self.setting.gossip_s, self._hear, number, event)

    def _hear(self, number: int, event: Event) -> None:
        worker = self._workers[number]
        if not worker.alive:
            return
        if isinstance(event, Dispatched):
            worker.views[event.replica].in_flight += 1
        elif isinstance(event, Done):
            worker.views[event.replica].in_flight -= 1
        if worker.policy.learns:
            worker.policy.observe(event)

    def tell_of_cache(self, event: BlocksStored | BlocksRemoved) -> None:
        """To all workers alike."""
        for number in range(len(self._workers)):
            self._at(self.now + (self.setting.kv_events_s or 0.0), self._hear, number, event)

    def _scrape(self) -> None:
        for replica in self._replicas:
            scheduler = replica.scheduler
            load = Load(
                len(scheduler.running),
                len(scheduler.waiting),
                replica.kv_usage_ratio,
                replica.hardware.kv_tokens,
            )
            for worker in self._workers:
                view = worker.views[replica.name]
                view.load, view.load_at = load, self.now
        if self._events:
            assert self.setting.scrape_s is not None
            self._at(self.now + self.setting.scrape_s, self._scrape)

    # ---- replicas ----

    def _rewake(self, replica: VirtualReplica) -> None:
        at = replica.wakes_at
        if at != self._wakes.get(replica.name):
            self._wakes[replica.name] = at
            if at < inf:
                self._at(at, self._wake, replica, at)

    def _wake(self, replica: VirtualReplica, at: float) -> None:
        if self._wakes.get(replica.name) != at:
            return  # the stretch was cut, or lost
        self._wakes[replica.name] = inf
        replica.wake()
        self._rewake(replica)

    # ---- incidents ----

    def _happen(self, incident: Incident) -> None:
        replica = self._replicas[incident.replica]
        match incident.what:
            case "restart":
                lost = replica.restart()
                self._wakes[replica.name] = inf
                for number in range(len(self._workers)):
                    self._hear_all(number, Forgotten(replica.name, self.now))
                for sequence in lost:
                    self._ask_again(replica, sequence)
            case "silent_flush":
                replica.flush()
            case "slow":
                replica.slowdown *= incident.factor
            case "join":
                self._up.add(replica.name)
            case other:
                raise ValueError(f"unknown incident {other!r}")

    def _hear_all(self, number: int, event: Event) -> None:
        if self._workers[number].policy.learns:
            self._workers[number].policy.observe(event)

    def _ask_again(self, replica: VirtualReplica, sequence: VirtualSequence) -> None:
        running = self._running.pop(sequence.ticket)
        self._tell(running, Done(replica.name, sequence.ticket, self.now, None))
        running.first_at = None
        if not self._workers[running.worker].alive:
            running.worker = next(n for n, worker in enumerate(self._workers) if worker.alive)
        self._send(running)

    def _kill_worker(self) -> None:
        """The first one dies: its requests are lost to nobody but the count of what is in flight."""
        self._workers[0].alive = False
        for running in self._running.values():
            if running.worker == 0:
                running.worker = 1
                running.announced = True


class _CacheTeller:
    """A listener of one replica's cache."""

    def __init__(self, simulation: Simulation, replica: str) -> None:
        self._simulation = simulation
        self._replica = replica

    def stored(self, hashes: Sequence[int], _parent: int | None, _token_ids: Sequence[int]) -> None:
        self._simulation.tell_of_cache(BlocksStored(self._replica, self._simulation.now, tuple(hashes)))

    def removed(self, hashes: Sequence[int]) -> None:
        self._simulation.tell_of_cache(BlocksRemoved(self._replica, self._simulation.now, tuple(hashes)))

    def cleared(self) -> None:
        """A restart is told otherwise."""
