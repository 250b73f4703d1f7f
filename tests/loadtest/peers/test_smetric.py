import pytest

from loadtest.peers.smetric import PrefillRate
from policies.routing.events import Forgotten
from policies.routing.policy import Policy
from tests.support.peer_policies import cache, chosen, costs, fleet_of, give, peer, prefilled
from tests.support.routing import NOW


def learn_rate(policy: Policy, replica: str, tokens_per_s: int) -> None:
    """Eight prompts of one block, prefilled one after the other."""
    for ticket in range(1_000, 1_008):
        give(policy, replica, chr(ticket), ticket)
        prefilled(policy, replica, ticket, NOW + 16 / tokens_per_s)


def test_who_has_most_of_the_prompt_keeps_it() -> None:
    """More than half, whatever its load, while no rate is known."""
    policy = peer("vllm_router_smetric")
    cache(policy, "a", "xxx", 1)
    assert chosen(policy, "xxxxx", fleet_of(a=90, b=1)) == "a"
    assert chosen(policy, "xxxyyy", fleet_of(a=90, b=1)) == "b"


def test_affinity_yields_to_a_replica_in_time() -> None:
    """80 tokens queued at 64 tokens/s take 1.25 s, the target is 1.005 s: another that is in time takes over."""
    policy = peer("vllm_router_smetric")
    cache(policy, "a", "xxxx", 1)
    learn_rate(policy, "a", 64)
    assert chosen(policy, "xxxxx", fleet_of(a=2, b=1)) == "a"
    give(policy, "a", "qqqq", 2)
    assert chosen(policy, "xxxxx", fleet_of(a=2, b=1)) == "b"


def test_affinity_stays_if_nobody_is_in_time() -> None:
    """Then the cache is at least of use."""
    policy = peer("vllm_router_smetric")
    cache(policy, "a", "xxxx", 1)
    for replica in "ab":
        learn_rate(policy, replica, 64)
    give(policy, "a", "qqqq", 2)
    give(policy, "b", "rrrrrrrr", 3)
    assert chosen(policy, "xxxxx", fleet_of(a=9, b=1)) == "a"


def test_balance_is_work_times_requests() -> None:
    """(pending + uncached) x in flight: 16 x 4 with a third of it cached, 48 x 1 without."""
    policy = peer("vllm_router_smetric")
    cache(policy, "a", "x", 1)
    assert costs(policy, "xyz", fleet_of(a=4, b=1)) == [32 * 4, 48]
    give(policy, "b", "qqqqqqqq", 2)
    assert costs(policy, "xyz", fleet_of(a=4, b=1)) == [32 * 4, 48 + 128]


def test_a_restarted_replica_has_no_rate() -> None:
    """Until it has shown one again it counts as in time."""
    policy = peer("vllm_router_smetric")
    learn_rate(policy, "a", 1)
    policy.observe(Forgotten("a", NOW))
    cache(policy, "a", "xxxx", 1)
    assert chosen(policy, "xxxxx", fleet_of(a=90, b=1)) == "a"


def test_the_rate_is_a_high_quantile() -> None:
    """Of 1 to 8 the 90th percentile is the seventh; of fewer than 8 nothing; only the last 64 count."""
    rate = PrefillRate()
    for sample in range(1, 8):
        rate.record(sample)
    assert rate.value is None
    rate.record(8)
    assert rate.value == 7
    for _ in range(64):
        rate.record(100)
    assert rate.value == pytest.approx(100)
