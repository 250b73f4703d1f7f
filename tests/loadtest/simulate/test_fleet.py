"""Whole runs that are small enough to be followed by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from time import process_time

import pytest

from loadtest.engine.latency import LatencyModel
from loadtest.simulate.faults import Flush, Restart, ScaleUp, SlowDown, WorkerCrash
from loadtest.simulate.fleet import simulate
from loadtest.simulate.generators import tool, zipf
from loadtest.simulate.hardware import HARDWARE, Hardware
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.replica import Load
from loadtest.simulate.results import Served
from loadtest.simulate.setup import Fault, PolicyMaker, ReplicaSetup, Setup, alike
from loadtest.simulate.worker import Candidate
from loadtest.simulate.workload import Call, Session, Workload
from policies.outcome import Ending
from policies.routing import POLICIES
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
from policies.routing.policy import R, RequestFacts, Weighed

HAND = Hardware(
    latency=LatencyModel(
        base_s=1.0, prefill_token_s=0.5, attention_pair_s=0, decode_s=0.25, context_token_s=0.0
    ),
    kv_tokens=400,
)


def of_kind(kind: str) -> PolicyMaker:
    return lambda random: POLICIES[kind](POLICIES[kind].Options(), random)


@dataclass
class Recorder:
    """Takes the first replica, and remembers what it saw."""

    learns: bool = True
    events: list[Event] = field(default_factory=list)
    seen: list[tuple[float, list[Candidate]]] = field(default_factory=list)

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        self.seen.append((now, [replace(one) for one in candidates]))  # type: ignore[type-var]
        return candidates[0]

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        return []

    def observe(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class Recorders:
    """Makes one for every worker, in their order."""

    made: list[Recorder] = field(default_factory=list)

    def __call__(self, _random: Random) -> Recorder:
        self.made.append(Recorder())
        return self.made[-1]


def call(tokens: int = 8, completion: int = 1, blocks: Sequence[int] = (), think_s: float = 0.0) -> Call:
    return Call(Prompt(blocks, tokens, 4), completion, think_s)


def at(*starts: float, blocks: Sequence[int] = (), completion: int = 1) -> Workload:
    return Workload("w", [Session(start, (call(8, completion, blocks),)) for start in starts], 4)


def setup(replicas: int = 2, **changes: object) -> Setup:
    return replace(Setup(replicas=alike(replicas, HAND), scrape_interval_s=None), **changes)  # type: ignore[arg-type]


def test_two_replicas_by_hand() -> None:
    """8 tokens cost 1 + 4 s. The third request joins the first one's decode on r0, the fourth r1's."""
    work = at(0.0, 1.0, 5.5, 6.5, completion=3)
    served = {one.at: one for one in simulate(work, setup(), of_kind("round_robin"))}
    assert {start: one.replica for start, one in served.items()} == {
        0.0: "r0",
        1.0: "r1",
        5.5: "r0",
        6.5: "r1",
    }
    assert served[0.0].first_token_at == pytest.approx(5.0)
    joined = 5.0 + 1.25
    assert served[5.5].first_token_at == pytest.approx(joined + 1 + 4 + 0.25)
    assert served[0.0].ended_at == served[5.5].first_token_at
    assert served[5.5].ended_at == pytest.approx(joined + 5.25 + 2 * 1.25)
    assert served[0.0].tpot_s == pytest.approx((joined + 5.25 - 5.0) / 2)
    assert [served[start].ended_at - start for start in (1.0, 6.5)] == pytest.approx(
        [served[start].ended_at - start for start in (0.0, 5.5)]
    )


def test_the_events_of_a_request() -> None:
    made = Recorders()
    session = Session(1.0, (Call(Prompt((1, 2), 8, 4), 3, 0.0, (1, 2, 3)),), "s")
    simulate(Workload("w", [session], 4), setup(1), made)
    dispatched, first, done = made.made[0].events
    assert dispatched == Dispatched("r0", 1, 1.0, Prompt((1, 2), 8, 4))
    assert first == FirstToken("r0", 1, pytest.approx(6.0))
    assert isinstance(done, Done) and done.outcome is not None
    assert done.answer == Prompt((1, 2, 3), 11, 4)
    assert done.outcome.ending is Ending.COMPLETED
    assert (done.outcome.prompt_tokens, done.outcome.cached_tokens, done.outcome.completion_tokens) == (
        8,
        0,
        3,
    )
    assert (done.outcome.sent_at, done.outcome.first_token_at) == (1.0, pytest.approx(6.0))
    assert done.at == done.outcome.ended_at == pytest.approx(6.0 + 2 * 1.25)


def test_a_policy_that_does_not_learn_is_told_nothing() -> None:
    made: list[Recorder] = []

    def make(_random: Random) -> Recorder:
        made.append(Recorder(learns=False))
        return made[-1]

    simulate(at(0.0, 1.0), setup(workers=2), make)
    assert sum(len(one.seen) for one in made) == 2
    assert not any(one.events for one in made)


def test_an_answer_that_only_the_engine_knows_is_not_told() -> None:
    made = Recorders()
    hidden = Call(Prompt((1,), 4, 4), 8, 0.0, (1, 2, 3), answer_seen=False)
    follow_up = Call(Prompt((1, 2, 3), 13, 4), 1)
    served = simulate(Workload("w", [Session(0, (hidden, follow_up))], 4), setup(1), made)
    assert [event.answer for event in made.made[0].events if isinstance(event, Done)] == [None, None]
    assert served[1].cached_tokens == 8


def test_a_closed_loop_waits_for_the_answer() -> None:
    calls = (call(8, 1), call(8, 1, think_s=2.5))
    served = simulate(Workload("w", [Session(1.0, calls, "s")], 4), setup(1), of_kind("random"))
    assert [one.at for one in served] == [1.0, pytest.approx(6.0 + 2.5)]


# ---- what workers know of each other ----


def test_workers_hear_of_each_other_after_the_delay() -> None:
    """Requests at 0, 0.05 and 0.5 s; whoever chooses sees the others' ones once 0.1 s have passed."""
    made = Recorders()
    served = simulate(at(0.0, 0.05, 0.5), setup(1, workers=3, gossip_s=0.1, seed=7), made)
    worker_of = {one.at: one.worker for one in served}
    assert worker_of[0.0] != worker_of[0.05], "the seed must give these to two workers"
    counts = {now: seen[0].in_flight for one in made.made for now, seen in one.seen}
    assert counts == {0.0: 0, 0.05: 0, 0.5: 2}
    for recorder in made.made:
        assert sum(isinstance(event, Dispatched) for event in recorder.events) == 3


@pytest.mark.parametrize(("gossip_s", "heard"), [(None, 0), (0.01, 600 * 3)])
def test_everything_is_heard_or_nothing(gossip_s: float | None, heard: int) -> None:
    made = Recorders()
    work = at(*[10.0 * number for number in range(600)])
    simulate(work, setup(1, workers=2, gossip_s=gossip_s), made)
    foreign = sum(len(one.events) for one in made.made) - 3 * 600
    assert heard - 5 <= foreign <= heard


def test_what_is_lost_is_put_right_soon_but_for_what_it_said() -> None:
    """Of a quarter of the requests the prompt is never heard, of another the outcome; but of all that they
    were there, and that they ended."""
    made = Recorders()
    work = at(*[10.0 * number for number in range(800)], blocks=(1,))
    simulate(work, setup(1, workers=2, gossip_loss=0.25), made)
    events = [event for one in made.made for event in one.events]
    dispatched = [event for event in events if isinstance(event, Dispatched)]
    done = [event for event in events if isinstance(event, Done)]
    assert 1595 <= len(done) <= len(dispatched) <= 1605
    assert sum(event.prompt is None for event in dispatched) / 800 == pytest.approx(0.25, abs=0.04)
    assert sum(event.outcome is None for event in done) / 800 == pytest.approx(0.25, abs=0.04)
    last = max((now, seen[0].in_flight) for one in made.made for now, seen in one.seen)
    assert last[1] == 0


def test_scrapes_are_seen_when_they_are_made() -> None:
    made = Recorders()
    simulate(at(0.0, 0.5, 6.0, 6.9, completion=20), setup(1, scrape_interval_s=2.0), made)
    views = {now: (seen[0].load, seen[0].load_at) for now, seen in made.made[0].seen}
    load, load_at = views[6.9]
    assert views[0.0][0] is None
    assert isinstance(load, Load) and 4.9 <= load_at <= 6.9
    assert load.running_requests + load.waiting_requests in (2, 3)
    assert load.kv_capacity_tokens == 400 and 0 < load.kv_usage_ratio < 0.1


def test_without_scrapes_there_is_no_load() -> None:
    made = Recorders()
    simulate(at(0.0, 50.0), setup(1), made)
    assert all(seen[0].load is None for _, seen in made.made[0].seen)


def test_kv_events_come_late() -> None:
    """The two blocks are stored at 5 s; a flush at 20 s says so too."""
    made = Recorders()
    faults: list[Fault] = [Flush(20.0, "r0")]
    simulate(at(0.0, 30.0, blocks=(1, 2)), setup(1, kv_events_s=0.5, faults=faults), made)
    told = [event for event in made.made[0].events if isinstance(event, BlocksStored | Forgotten)]
    assert told[:2] == [BlocksStored("r0", pytest.approx(5.0), (1, 2)), Forgotten("r0", 20.0)]


def test_evicted_blocks_are_told_too() -> None:
    made = Recorders()
    tiny = [ReplicaSetup("r0", replace(HAND, kv_tokens=16))]
    sessions = [
        Session(10.0 * number, (call(13, 1, [10 * number + 1, 10 * number + 2, 10 * number + 3]),))
        for number in range(3)
    ]
    sessions.append(Session(40.0, (call(4),)))
    simulate(Workload("w", sessions, 4), Setup(replicas=tiny, scrape_interval_s=None, kv_events_s=0.0), made)
    stored = {
        block for event in made.made[0].events if isinstance(event, BlocksStored) for block in event.blocks
    }
    removed = {
        block for event in made.made[0].events if isinstance(event, BlocksRemoved) for block in event.blocks
    }
    assert stored == {1, 2, 3, 11, 12, 13, 21, 22, 23}
    assert removed == {1, 2, 3, 11, 12, 13}


# ---- faults ----


def test_a_restart_moves_the_requests_and_is_told() -> None:
    """The request on r0 fails at 3 s, goes to r1, and r0 is no candidate until 13 s."""
    made = Recorders()
    faults: list[Fault] = [Restart(3.0, "r0", 10.0)]
    served = simulate(at(0.0, 4.0, 20.0), setup(faults=faults), made)
    assert [(one.at, one.replica, one.attempts) for one in served] == [
        (0.0, "r1", 2),
        (4.0, "r1", 1),
        (20.0, "r0", 1),
    ]
    assert served[0].ttft_s == pytest.approx(8.0)
    events = made.made[0].events
    failed = [
        event.outcome.ending for event in events if isinstance(event, Done) and event.outcome is not None
    ]
    assert failed[0] is Ending.FAILED and len(failed) == 4
    assert [event for event in events if isinstance(event, Forgotten)] == [Forgotten("r0", 13.0)]
    assert [[one.id for one in seen] for _, seen in made.made[0].seen] == [
        ["r0", "r1"],
        ["r1"],
        ["r1"],
        ["r0", "r1"],
    ]


def test_a_fleet_of_one_that_restarts_answers_afterwards() -> None:
    faults: list[Fault] = [Restart(1.0, "r0", 10.0)]
    served = simulate(at(0.0), setup(1, faults=faults), of_kind("least_requests"))
    assert served[0].ok and 11.0 < served[0].ended_at < 17.0


def test_a_flush_costs_the_cache_and_nobody_is_told() -> None:
    made = Recorders()
    faults: list[Fault] = [Flush(15.0, "r0")]
    served = simulate(at(0.0, 10.0, 20.0, blocks=(1, 2)), setup(1, faults=faults), made)
    assert [one.cached_tokens for one in served] == [0, 4, 0]
    assert not any(isinstance(event, Forgotten) for event in made.made[0].events)


def test_a_slow_down_ends() -> None:
    faults: list[Fault] = [SlowDown(5.0, "r0", 4.0, 20.0)]
    served = simulate(at(0.0, 10.0, 40.0), setup(1, faults=faults), of_kind("random"))
    assert [one.ended_at - one.at for one in served] == pytest.approx([5.0, 20.0, 5.0])


def test_replicas_that_join_are_used() -> None:
    faults: list[Fault] = [ScaleUp(10.0, (ReplicaSetup("new", HAND),))]
    served = simulate(at(0.0, 11.0, 11.5), setup(1, faults=faults), of_kind("least_requests"))
    assert {one.replica for one in served} == {"r0", "new"}


def test_a_worker_that_dies_takes_its_requests_along() -> None:
    """They are gone from the replica and from the other worker's count, and the new one knows nothing."""
    made = Recorders()
    work = at(*[0.5 * number for number in range(40)], completion=200)
    faults: list[Fault] = [WorkerCrash(10.0, 0, 3.0)]
    served = simulate(work, setup(1, workers=2, faults=faults), made)
    lost = [one for one in served if not one.ok]
    assert lost and all(one.worker == 0 and one.at <= 10.0 and one.ended_at == 10.0 for one in lost)
    assert not [one for one in served if one.worker == 0 and 10.0 < one.at < 13.0]
    assert [one for one in served if one.worker == 0 and one.at > 13.0]
    assert len(made.made) == 3
    left = [
        e
        for e in made.made[1].events
        if isinstance(e, Done) and e.outcome and e.outcome.ending is Ending.CLIENT_LEFT
    ]
    assert len(left) == len(lost)


@dataclass
class Teacher(Recorder):
    """Knows how many events it has seen, and what it was told by others."""

    learned: bytes = b""

    def dump(self) -> bytes:
        return str(len(self.events)).encode()

    def load(self, state: bytes) -> None:
        self.learned = state


@pytest.mark.parametrize("gossip_s", [0.005, None])
def test_a_new_worker_is_taught_by_one_that_lives(gossip_s: float | None) -> None:
    """If they talk at all, and if there is one."""
    made: list[Teacher] = []

    def make(_random: Random) -> Teacher:
        made.append(Teacher())
        return made[-1]

    work = at(*[0.5 * number for number in range(40)])
    faults: list[Fault] = [WorkerCrash(10.0, 0, 3.0)]
    simulate(work, setup(1, workers=2, gossip_s=gossip_s, faults=faults), make)
    assert [bool(one.learned) for one in made] == [False, False, gossip_s is not None]
    made.clear()
    simulate(work, setup(1, workers=1, faults=faults), make)
    assert [one.learned for one in made] == [b"", b""]


# ---- books ----


@pytest.mark.parametrize("kind", POLICIES)
def test_every_call_is_served_once_and_a_seed_says_everything(kind: str) -> None:
    work = tool(400, Random(5)).faster(2.0)
    hardware = HARDWARE["8b-h100"]
    options = Setup(
        replicas=alike(4, hardware, (1.0, 2.0)), workers=3, gossip_loss=0.05, kv_events_s=0.03, seed=7
    )

    def run(seed: int) -> list[Served]:
        return simulate(work, replace(options, seed=seed), of_kind(kind))

    served = run(7)
    assert len(served) == len(work)
    assert sum(one.prompt_tokens for one in served) == sum(call.prompt.tokens for call in work.calls)
    assert sum(one.completion_tokens for one in served) == sum(call.completion_tokens for call in work.calls)
    assert all(one.at <= (one.first_token_at or 0.0) <= one.ended_at for one in served)
    assert served == run(7)
    assert served != run(8)


def test_the_oracle_sees_caches() -> None:
    """Equal prompts stay together, and different ones spread."""
    served = simulate(zipf(600, Random(1)).faster(2.0), Setup(replicas=alike(4)), Oracle)
    least = simulate(zipf(600, Random(1)).faster(2.0), Setup(replicas=alike(4)), of_kind("least_requests"))
    assert sum(one.cached_tokens for one in served) > 1.3 * sum(one.cached_tokens for one in least)
    assert {one.replica for one in served} == {"r0", "r1", "r2", "r3"}


def test_twenty_thousand_requests_a_minute() -> None:
    """What is promised for a plain machine; CPU time, so that busy neighbours do not count."""
    work = tool(3000, Random(5)).faster(3.0)
    began = process_time()
    simulate(work, Setup(replicas=alike(8), workers=2), of_kind("least_requests"))
    assert len(work) / (process_time() - began) * 60 > 20_000
