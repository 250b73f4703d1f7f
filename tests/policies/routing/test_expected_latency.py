"""What the policy weighs, one thing at a time. How well it does on whole workloads is the simulator's to say."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from random import Random

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    CacheLost,
    Dispatched,
    Done,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.expected_latency import ExpectedLatency
from policies.routing.policy import Weighed
from tests.support.routing import FakeLoad, FakeReplica, FakeRequest, replicas

PREFILL_S = 0.5
DECODE_S = 1.0


def prompt(*names: str, blocks: int = 10) -> Prompt:
    """A prompt of some blocks of 100 tokens for each name; equal as far as the names are."""
    hashes = [
        hash((names[: place + 1], number)) & (2**60 - 1)
        for place in range(len(names))
        for number in range(blocks)
    ]
    return Prompt(tuple(hashes), 100 * len(hashes), 100)


class Fleet:
    """A policy, its replicas, and a clock that every request moves on by a second."""

    def __init__(self, policy: ExpectedLatency, fleet: Sequence[FakeReplica]) -> None:
        self.policy = policy
        self.replicas = fleet
        self.now = 100.0
        self._tickets = count(1)

    def choose(self, asked: Prompt | None, among: Sequence[FakeReplica] | None = None) -> FakeReplica:
        return self.policy.choose(FakeRequest(None, asked), among or self.replicas, self.now)

    def weigh(self, asked: Prompt | None) -> dict[str, Weighed]:
        weighed = self.policy.weigh(FakeRequest(None, asked), self.replicas, self.now)
        return {one.replica: one for one in weighed}

    def send(self, asked: Prompt | None, replica: FakeReplica | None = None) -> int:
        """To a replica, or to the one that is chosen."""
        ticket = next(self._tickets)
        chosen = replica or self.choose(asked)
        self.policy.observe(Dispatched(chosen.id, ticket, self.now, asked))
        return ticket

    def serve(
        self,
        asked: Prompt,
        replica: FakeReplica,
        *,
        prefill_s: float = PREFILL_S,
        decode_s: float = DECODE_S,
        cached: int | None = None,
    ) -> None:
        """Send it, and let it take so long."""
        began = self.now
        ticket = self.send(asked, replica)
        first = began + prefill_s
        self.policy.observe(FirstToken(replica.id, ticket, first))
        self.now = first + decode_s
        outcome = Outcome(Ending.COMPLETED, began, first, self.now, asked.tokens, cached, 101)
        self.policy.observe(Done(replica.id, ticket, self.now, outcome))


def fleet(*weights: float, **options: float) -> Fleet:
    chosen = {"slow_start_s": 0.0, **options}
    policy = ExpectedLatency(ExpectedLatency.Options(**chosen), Random(7))
    return Fleet(policy, replicas(*(weights or (1, 1, 1, 1))))


def test_the_cheapest_is_chosen_and_the_terms_add_up() -> None:
    """Whatever has happened: `choose` and `weigh` are of one mind."""
    there = fleet(1, 1, 2, 0.5, slow_start_s=3.0)
    rng = Random(1)
    for number in range(300):
        asked = prompt(f"system {rng.randrange(3)}", f"user {rng.randrange(20)}", blocks=rng.randrange(1, 9))
        for replica in there.replicas:
            if rng.random() < 0.1:
                replica.load = FakeLoad(1, 0, rng.random(), rng.choice((2_000, 20_000)))
                replica.load_at = there.now
        weighed = there.weigh(asked)
        chosen = there.choose(asked)
        assert weighed[chosen.id].cost == pytest.approx(min(one.cost for one in weighed.values()))
        for one in weighed.values():
            terms = one.terms
            own = terms["wait_s"] + terms["prefill_s"] + terms["memory_s"]
            others = terms["stall_s"] + terms["slowdown_s"] + terms["decode_s"]
            assert one.cost == pytest.approx(terms["newness"] * (own + 0.5 * others))
        if number % 3:
            there.serve(asked, chosen, prefill_s=rng.uniform(0.1, 1.0), cached=rng.choice((None, 0, 500)))
        else:
            there.send(asked, chosen)


def test_equal_costs_go_by_chance() -> None:
    there = fleet()
    counts = Counter(there.choose(prompt("any")).id for _ in range(4_000))
    assert min(counts.values()) > 850


def test_a_prompt_goes_where_its_prefix_is() -> None:
    there = fleet()
    second = there.replicas[1]
    there.serve(prompt("system", "first question"), second)
    assert all(there.choose(prompt("system", "another")) is second for _ in range(20))
    terms = there.weigh(prompt("system", "another"))[second.id].terms
    assert (terms["hit_tokens"], terms["uncached_tokens"]) == (1_000, 1_000)


def test_a_queue_outweighs_a_cached_prefix() -> None:
    """As soon as waiting there takes longer than computing it anew elsewhere, and no sooner."""
    there = fleet()
    home = there.replicas[0]
    for number in range(40):
        there.serve(prompt(f"warm {number}"), there.replicas[number % 4])
    there.serve(prompt("system", "question"), home)
    sent = 0
    while there.choose(prompt("system", "question")) is home:
        there.send(prompt(f"long {sent}"), home)
        sent += 1
    weighed = there.weigh(prompt("system", "question"))
    assert 1 <= sent <= 5
    assert weighed[home.id].terms["wait_s"] > 0.5 * (
        weighed[there.replicas[1].id].terms["prefill_s"] - weighed[home.id].terms["prefill_s"]
    )


def test_what_was_sent_counts_at_once() -> None:
    """Before any answer or scrape: a burst of equals spreads evenly."""
    there = fleet()
    counts: Counter[str] = Counter()
    for number in range(400):
        asked = prompt(f"unlike {number}")
        chosen = there.choose(asked)
        counts[chosen.id] += 1
        there.send(asked, chosen)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_one_prompt_for_everyone_does_not_pile_up() -> None:
    """All hold it soon, and share its load."""
    there = fleet()
    counts: Counter[str] = Counter()
    for _ in range(400):
        chosen = there.choose(prompt("the same"))
        counts[chosen.id] += 1
        there.send(prompt("the same"), chosen)
    assert min(counts.values()) > 80


def test_a_slow_replica_is_found_out_and_gets_less() -> None:
    """Four times slower, nobody said so: of a burst it gets less than half an even share."""
    there = fleet()
    slow = there.replicas[2]
    for number in range(200):
        replica = there.replicas[number % 4]
        factor = 4 if replica is slow else 1
        there.serve(prompt(f"{number}"), replica, prefill_s=0.2 * factor, decode_s=1.0 * factor)
    counts: Counter[str] = Counter()
    for number in range(100):
        asked = prompt(f"burst {number}")
        chosen = there.choose(asked)
        counts[chosen.id] += 1
        there.send(asked, chosen)
    assert counts[slow.id] < 12


def test_events_of_other_workers_count_like_own() -> None:
    """Two policies that hear of everything decide alike, whoever dispatched it."""
    one, other = fleet(), fleet()
    rng = Random(5)
    for number in range(200):
        asked = prompt(f"system {rng.randrange(4)}", f"user {number % 30}")
        chosen = one.choose(asked)
        event = Dispatched(chosen.id, number, one.now, asked)
        first = FirstToken(chosen.id, number, one.now + 0.3)
        done = Done(
            chosen.id,
            number,
            one.now + 1,
            Outcome(Ending.COMPLETED, one.now, one.now + 0.3, one.now + 1, 2_000, 0, 50),
        )
        one.now += 0.4
        for each in (event, first, done):
            one.policy.observe(each)
            other.policy.observe(each)
        other.now = one.now
        theirs = [(w.replica, pytest.approx(w.cost)) for w in other.weigh(asked).values()]
        assert [(w.replica, w.cost) for w in one.weigh(asked).values()] == theirs


def test_a_forgotten_replica_is_a_stranger() -> None:
    there = fleet()
    home = there.replicas[0]
    there.serve(prompt("system"), home)
    there.send(prompt("system"), home)
    there.policy.observe(Forgotten(home.id, there.now))
    terms = there.weigh(prompt("system"))[home.id].terms
    assert (terms["hit_tokens"], terms["batch"], terms["pending"]) == (0, 0, 0)


def test_a_flushed_cache_shows_in_the_answers() -> None:
    """Nobody said that it was restarted, but what it should hold it does not."""
    there = fleet()
    home = there.replicas[0]
    for number in range(10):
        there.serve(prompt("system", f"{number}"), home, cached=1_000 if number else 0)
    assert there.weigh(prompt("system", "9"))[home.id].terms["hit_tokens"] == 2_000
    for number in range(4):
        there.serve(prompt("system", f"{number}"), home, cached=0)
    assert there.weigh(prompt("system", "9"))[home.id].terms["hit_tokens"] == 0


def test_a_flushed_cache_shows_in_the_times_where_nobody_reports() -> None:
    """As with TGI: cold prompts take a second, those it should hold a tenth; then those take a second, too."""
    there = fleet()
    home = there.replicas[0]
    for number in range(20):
        there.serve(prompt(f"{number}", "a", "b", "c"), home, prefill_s=1.0)
        there.serve(prompt(f"{number}", "a", "b", "c"), home, prefill_s=0.1)
    assert there.weigh(prompt("7", "a", "b", "c"))[home.id].terms["hit_tokens"] == 4_000
    for number in range(4):
        there.serve(prompt(f"{number}", "a", "b", "c"), home, prefill_s=1.0)
    assert there.weigh(prompt("7", "a", "b", "c"))[home.id].terms["hit_tokens"] == 0
    assert there.policy.reported_tokens == 0


def test_a_mirror_is_as_large_as_the_engine_says() -> None:
    """2,000 tokens hold two of these prompts, 100,000 all of them."""
    there = fleet(1, 1)
    small, large = there.replicas
    small.load, small.load_at = FakeLoad(kv_capacity_tokens=2_000), there.now
    large.load, large.load_at = FakeLoad(kv_capacity_tokens=100_000), there.now
    there.choose(None)
    for number in range(20):
        for replica in there.replicas:
            there.serve(prompt(f"{number}"), replica)
    held = {
        replica.id: sum(
            there.weigh(prompt(f"{number}"))[replica.id].terms["hit_tokens"] for number in range(20)
        )
        for replica in there.replicas
    }
    assert held == {small.id: 2_000, large.id: 20_000}


def test_a_full_engine_makes_waiting_for_memory() -> None:
    """Fresh figures are believed, old ones are not, and what was sent since is added to them."""
    there = fleet(1, 1)
    full, free = there.replicas
    for replica, ratio in ((full, 0.96), (free, 0.1)):
        replica.load, replica.load_at = FakeLoad(kv_usage_ratio=ratio, kv_capacity_tokens=50_000), there.now
    assert there.weigh(prompt("large"))[full.id].terms["memory_s"] > 0
    assert there.choose(prompt("large")) is free
    there.now += 11.0
    for replica in there.replicas:
        there.serve(prompt("x"), replica)
    assert there.weigh(prompt("large"))[full.id].terms["memory_s"] == 0


def test_a_newcomer_is_taken_for_one_of_the_fleet_and_begins_slowly() -> None:
    there = fleet(1, 1, 1, slow_start_s=5.0)
    veterans = there.replicas[:2]
    for number in range(100):
        there.serve(prompt(f"{number}"), veterans[number % 2], prefill_s=2.0, decode_s=4.0)
    newcomer = there.replicas[2]
    assert there.weigh(prompt("new"))[newcomer.id].terms["newness"] == pytest.approx(10.0)
    assert there.choose(prompt("new")) is not newcomer
    terms = {one.replica: one.terms for one in there.weigh(prompt("new")).values()}
    assert terms[newcomer.id]["prefill_s"] == pytest.approx(terms[veterans[0].id]["prefill_s"], rel=0.1)
    there.now += 2.5
    assert there.weigh(prompt("new"))[newcomer.id].terms["newness"] == pytest.approx(2.0)
    there.now += 2.6
    assert there.weigh(prompt("new"))[newcomer.id].terms["newness"] == 1.0


def test_what_engines_say_of_their_caches_is_believed() -> None:
    there = fleet()
    third = there.replicas[2]
    asked = prompt("system")
    there.policy.observe(BlocksStored(third.id, there.now, asked.blocks))
    there.serve(prompt("other"), there.replicas[0])
    there.policy.observe(BlocksStored(third.id, there.now, asked.blocks))
    assert there.choose(asked) is third
    there.policy.observe(BlocksRemoved(third.id, there.now, asked.blocks[5:]))
    assert there.weigh(asked)[third.id].terms["hit_tokens"] == 500


def test_a_lost_cache_is_not_a_lost_replica() -> None:
    """What is known of its requests stays."""
    there = fleet()
    home = there.replicas[0]
    there.serve(prompt("system"), home)
    there.send(prompt("system"), home)
    there.policy.observe(CacheLost(home.id, there.now))
    there.policy.observe(CacheLost("a stranger", there.now))
    terms = there.weigh(prompt("system"))[home.id].terms
    assert (terms["hit_tokens"], terms["batch"], terms["pending"]) == (0, 1, 1)


@pytest.mark.parametrize("first", ["events", "text"])
def test_mirrors_hold_as_many_tokens_in_small_blocks(first: str) -> None:
    """Events may come before any prompt, or after prompts whose ids are not known; 4,000 tokens are 400 blocks."""
    there = fleet(cache_tokens=4_000)
    home = there.replicas[0]
    if first == "text":
        there.serve(prompt("text"), home)
    ids = Prompt(tuple(range(1_000, 1_300)), 3_000, 10, exact=True)
    there.policy.observe(BlocksStored(home.id, there.now, ids.blocks, 10))
    assert there.weigh(ids)[home.id].terms["hit_tokens"] == 3_000


def test_requests_without_a_prompt_go_by_load() -> None:
    there = fleet()
    busy = there.replicas[0]
    for _ in range(3):
        there.send(None, busy)
    assert all(there.choose(None) is not busy for _ in range(50))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("others", -1.0),
        ("cache_tokens", 0.0),
        ("index_mb", float("inf")),
        ("scope_share", 1.5),
        ("drift", -1e-9),
    ],
)
def test_senseless_options_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        ExpectedLatency.Options(**{option: value})
