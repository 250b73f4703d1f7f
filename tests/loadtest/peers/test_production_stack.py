from collections import Counter

from policies.routing.events import Forgotten
from tests.support.peer_policies import cache, chosen, fleet_of, peer
from tests.support.routing import NOW


def test_the_longest_match_whatever_the_load() -> None:
    """One block more is enough."""
    policy = peer("production_stack")
    cache(policy, "a", "xxx", 1)
    cache(policy, "b", "xx", 2)
    assert chosen(policy, "xxxx", fleet_of(a=500, b=0)) == "a"


def test_equals_go_by_chance() -> None:
    """Also those that match nothing."""
    policy = peer("production_stack")
    cache(policy, "a", "xx", 1)
    cache(policy, "b", "xx", 2)
    fleet = fleet_of(a=9, b=0, c=0)
    assert Counter(chosen(policy, "xxxx", fleet) for _ in range(100)).keys() == {"a", "b"}
    assert Counter(chosen(policy, "unseen", fleet) for _ in range(100)).keys() == {"a", "b", "c"}


def test_a_restart_is_not_noticed() -> None:
    """Its trie keeps what a replica that lost its cache once had."""
    policy = peer("production_stack")
    cache(policy, "a", "xxx", 1)
    policy.observe(Forgotten("a", NOW))
    assert chosen(policy, "xxx", fleet_of(a=9, b=0)) == "a"
