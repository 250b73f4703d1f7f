from tests.support.peer_policies import cache, costs, fleet_of, give, peer, prefilled


def test_own_tokens_and_queued_tokens() -> None:
    """16 uncached plus whole prompts of 64 and 48 that wait, although of the first nothing is computed."""
    policy = peer("gorgo")
    cache(policy, "a", "xxxx", 1)
    give(policy, "a", "xxxx", 2)
    give(policy, "a", "zzz", 3)
    assert costs(policy, "xxxxy", fleet_of(a=9, b=0)) == [16 + 64 + 48, 80]
    prefilled(policy, "a", 2)
    assert costs(policy, "xxxxy", fleet_of(a=9, b=0)) == [16 + 48, 80]
