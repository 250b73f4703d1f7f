from importlib import import_module
from random import Random

import pytest

from loadtest.peers import PEERS, scrape_interval_s, wants_kv_events
from policies.routing.events import BlocksRemoved, Dispatched, Done, FirstToken, Forgotten
from policies.routing.policy import Policy
from tests.support.peer_policies import FACTS, cache, give
from tests.support.routing import NOW, FakeLoad, FakeReplica, FakeRequest, prompt_of, replicas

EVERY_PEER = pytest.mark.parametrize("name", sorted(PEERS))


def some_request(rng: Random) -> FakeRequest:
    text = rng.choice(["system ", "other ", ""]) + "".join(rng.choices("ab", k=rng.randrange(6)))
    return FakeRequest(f"session-{rng.randrange(20)}", prompt_of(text) if rng.random() < 0.9 else None)


def choices(policy: Policy, seed: int, times: int, *, weighing: bool = False) -> list[str]:
    """What comes out of a fleet of changing load, half of which was never scraped, while events come and get lost."""
    rng = Random(seed)
    fleet = replicas(*[1.0] * 6)
    running: list[tuple[str, int]] = []
    chosen = []
    for ticket in range(times):
        for replica in fleet:
            replica.in_flight = rng.randrange(8)
            known = FakeLoad(rng.randrange(9), rng.randrange(9), rng.random(), 4_096)
            replica.load = rng.choice([None, FakeLoad(), known])
        candidates = rng.sample(fleet, rng.randint(1, len(fleet)))
        request, now = some_request(rng), NOW + ticket
        if weighing:
            weighed = policy.weigh(request, candidates, now)
            assert [each.replica for each in weighed] == [replica.id for replica in candidates]
        choice = policy.choose(request, candidates, now)
        assert any(choice is candidate for candidate in candidates)
        chosen.append(choice.id)
        policy.observe(Dispatched(choice.id, ticket, now, request.prompt))
        running.append((choice.id, ticket))
        if rng.random() < 0.7:
            policy.observe(FirstToken(*running[rng.randrange(len(running))], now + 0.5))
        if rng.random() < 0.7:
            policy.observe(Done(*running.pop(rng.randrange(len(running))), now + 0.9, None))
        if rng.random() < 0.02:
            policy.observe(Forgotten(rng.choice(fleet).id, now))
    return chosen


@EVERY_PEER
def test_the_choice_is_one_of_the_candidates(name: str) -> None:
    """Whatever the load, whoever came or left, and with figures of engines or without."""
    assert len(choices(PEERS[name](Random(1), FACTS), seed=1, times=1_000)) == 1_000


@EVERY_PEER
def test_equal_seeds_give_equal_choices(name: str) -> None:
    """And to ask why, in between, changes none of them."""
    plain = choices(PEERS[name](Random(2), FACTS), seed=2, times=500)
    assert choices(PEERS[name](Random(2), FACTS), seed=2, times=500, weighing=True) == plain


@EVERY_PEER
def test_a_fleet_that_was_never_scraped(name: str) -> None:
    """Load figures are None before the first scrape: all replicas are used, and none is favoured for it."""
    policy = PEERS[name](Random(3), FACTS)
    fleet = replicas(*[1.0] * 4)
    for number in range(400):
        request = FakeRequest(f"s{number}", prompt_of(chr(1_000 + number) * 3))
        choice = policy.choose(request, fleet, NOW)
        choice.in_flight += 1
        policy.observe(Dispatched(choice.id, number, NOW, request.prompt))
    assert min(replica.in_flight for replica in fleet) > 50


@EVERY_PEER
def test_a_restart_forgets_everything(name: str) -> None:
    """After all replicas restarted a policy chooses as a new one does; production-stack's never forgets."""
    used, new = PEERS[name](Random(4), FACTS), PEERS[name](Random(4), FACTS)
    for ticket, replica in enumerate("abcab"):
        cache(used, replica, f"system {ticket}", ticket)
        give(used, replica, f"system {ticket} more", 100 + ticket)
    for replica in "abc":
        used.observe(Forgotten(replica, NOW))
    fleet = [FakeReplica("a", in_flight=2), FakeReplica("b", in_flight=1), FakeReplica("c", in_flight=1)]
    requests = [FakeRequest(f"s{number}", prompt_of(f"system {number % 5}")) for number in range(50)]
    after = [[policy.choose(request, fleet, NOW).id for request in requests] for policy in (used, new)]
    assert (after[0] == after[1]) is (name != "production_stack")


@EVERY_PEER
def test_only_some_live_by_kv_events(name: str) -> None:
    """Dynamo and llm-d's precise scorer; what engines say of their caches tells others nothing."""
    policy = PEERS[name](Random(5), FACTS)
    assert wants_kv_events(policy) is (name in ("dynamo", "llm_d_precise"))
    for _ in range(2):  # also if it is said twice
        policy.observe(BlocksRemoved("a", NOW, [1, 2]))


@EVERY_PEER
def test_only_some_read_metrics(name: str) -> None:
    """llm-d's, every 50 ms; all others count what they have sent."""
    assert scrape_interval_s(name) == (0.05 if name.startswith("llm_d") else None)


@EVERY_PEER
def test_its_source_is_named(name: str) -> None:
    """Each says where its rule comes from, but for those that are a shipped policy as it is."""
    make = PEERS[name]
    assert make.__doc__
    told = f"{import_module(make.__module__).__doc__} {make.__doc__}"
    assert "Source: " in told or make.__module__ == "loadtest.peers.shipped"
