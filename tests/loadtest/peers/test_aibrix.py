import pytest

from policies.routing.events import Forgotten
from policies.routing.policy import Policy
from tests.support.peer_policies import cache, chosen, fleet_of, peer
from tests.support.routing import NOW


@pytest.fixture
def policy() -> Policy:
    """ "a" has all of ten blocks, "b" half."""
    policy = peer("aibrix")
    cache(policy, "a", "x" * 10, 1)
    cache(policy, "b", "x" * 5, 2)
    return policy


def test_the_best_match_within_a_deviation(policy: Policy) -> None:
    """Of 6, 0, 0 the mean is 2 and the deviation 3.46: 6 is too much; of 4, 0, 2 they are 2 and 2: 4 is not."""
    assert chosen(policy, "x" * 10, fleet_of(a=6, b=0, c=0)) == "b"
    assert chosen(policy, "x" * 10, fleet_of(a=4, b=0, c=2)) == "a"


def test_no_match_that_is_not_too_busy(policy: Policy) -> None:
    """Of 6, 6, 0, 0 the bound is 3 + 3.46; of 8, 7, 0, 0, 0 it is 3 + 4.14: then the fewest requests win."""
    assert chosen(policy, "x" * 10, fleet_of(a=6, b=6, c=0, d=0)) == "a"
    assert chosen(policy, "x" * 10, fleet_of(a=8, b=8, c=1, d=0, e=1)) == "d"


def test_imbalance_leaves_the_least_loaded_only(policy: Policy) -> None:
    """A spread of more than 8: among those with the fewest requests the best match, else any."""
    assert chosen(policy, "x" * 10, fleet_of(a=9, b=0, c=0)) == "b"
    assert chosen(policy, "x" * 10, fleet_of(a=0, b=9, c=0)) == "a"
    assert chosen(policy, "x" * 10, fleet_of(a=3, b=3, c=12, d=1)) == "d"


def test_a_miss_goes_to_the_fewest_requests(policy: Policy) -> None:
    """Also with none of it cached, and after a restart."""
    assert chosen(policy, "unseen", fleet_of(a=1, b=2, c=0)) == "c"
    policy.observe(Forgotten("a", NOW))
    assert chosen(policy, "x" * 10, fleet_of(a=0, b=0)) == "b"


def test_a_lone_replica(policy: Policy) -> None:
    """Has no deviation."""
    assert chosen(policy, "x" * 10, fleet_of(c=5)) == "c"
