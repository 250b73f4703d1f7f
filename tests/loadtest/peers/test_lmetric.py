from tests.support.peer_policies import cache, chosen, costs, fleet_of, give, peer


def test_work_times_batch() -> None:
    """(pending + new) x (batch + 1): 16 x 5 for the cache, 64 x 1 for who is idle; with three in flight it turns."""
    policy = peer("lmetric")
    cache(policy, "a", "xxx", 1)
    assert costs(policy, "xxxx", fleet_of(a=4, b=0)) == [80, 64]
    assert chosen(policy, "xxxx", fleet_of(a=4, b=0)) == "b"
    assert chosen(policy, "xxxx", fleet_of(a=2, b=0)) == "a"


def test_pending_prefill_counts() -> None:
    """32 uncached tokens that wait on "a" are added to its own 16."""
    policy = peer("lmetric")
    cache(policy, "a", "xxx", 1)
    give(policy, "a", "zz", 2)
    assert costs(policy, "xxxx", fleet_of(a=1, b=0)) == [(32 + 16) * 2, 64]


def test_the_mirror_is_as_large_as_the_cache() -> None:
    """1,600 tokens are a hundred blocks; what was sent before them is still a hit for the published one only."""
    for name, own in (("lmetric", 16.0), ("lmetric_with_mirror", 64.0)):
        policy = peer(name)
        cache(policy, "a", "xxx", 1)
        cache(policy, "a", "y" * 100, 2)
        assert costs(policy, "xxxx", fleet_of(a=0)) == [own]
