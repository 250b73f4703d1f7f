from collections import Counter

from tests.support.peer_policies import chosen, fleet_of, peer
from tests.support.routing import NOW, FakeRequest


def test_round_robin() -> None:
    """Each in its turn, whatever is in flight."""
    policy = peer("round_robin")
    assert "".join(chosen(policy, "x", fleet_of(a=9, b=0, c=0)) for _ in range(6)) == "abcabc"


def test_random() -> None:
    """All of them, whatever is in flight."""
    policy = peer("random")
    assert Counter(chosen(policy, "x", fleet_of(a=9, b=0)) for _ in range(100)).keys() == {"a", "b"}


def test_least_requests() -> None:
    """The fewest."""
    assert chosen(peer("least_requests"), "x", fleet_of(a=2, b=1, c=3)) == "b"


def test_power_of_two() -> None:
    """Never the busiest of three, of which two are drawn."""
    policy = peer("power_of_two")
    assert Counter(chosen(policy, "x", fleet_of(a=1, b=2, c=3)) for _ in range(200)).keys() == {"a", "b"}


def test_session_hash_is_bounded() -> None:
    """A session stays, until its home has 1.25 times the mean: five with this one on two replicas allow four."""
    policy = peer("session_hash")
    request = FakeRequest("alice")
    home = policy.choose(request, fleet_of(a=0, b=0), NOW).id
    other = "ab".replace(home, "")
    assert policy.choose(request, fleet_of(**{home: 3, other: 1}), NOW).id == home
    assert policy.choose(request, fleet_of(**{home: 4, other: 0}), NOW).id == other
