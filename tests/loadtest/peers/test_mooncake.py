from tests.support.peer_policies import cache, chosen, costs, fleet_of, give, peer


def test_queue_time_and_prefill_time() -> None:
    """At 1,000 tokens/s: 0.032 s queued and 0.016 s of its own, against 0.064 s on the empty one."""
    policy = peer("mooncake")
    cache(policy, "a", "xxx", 1)
    give(policy, "a", "zz", 2)
    assert costs(policy, "xxxx", fleet_of(a=9, b=0)) == [0.048, 0.064]
    assert chosen(policy, "xxxx", fleet_of(a=9, b=0)) == "a"
    give(policy, "a", "qq", 3)
    assert chosen(policy, "xxxx", fleet_of(a=9, b=0)) == "b"


def test_rates_are_each_replicas_own() -> None:
    """Four times as fast without the cache is faster than with it."""
    policy = peer("mooncake")
    cache(policy, "a", "xx", 1)
    assert costs(policy, "xxxx", fleet_of(a=0, fast=0)) == [0.032, 0.016]
