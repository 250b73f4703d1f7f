from collections import Counter
from math import comb
from random import Random

import pytest

from policies.routing.power_of_two import PowerOfTwo
from tests.support.routing import NOW, FakeReplica, FakeRequest, fits, replicas

ANY = FakeRequest()


def power_of_two(seed: int, choices: int = 2) -> PowerOfTwo:
    return PowerOfTwo(PowerOfTwo.Options(choices=choices), Random(seed))


def loaded(*in_flight: int) -> list[FakeReplica]:
    fleet = replicas(*[1.0] * len(in_flight))
    for replica, requests in zip(fleet, in_flight, strict=True):
        replica.in_flight = requests
    return fleet


@pytest.mark.parametrize("in_flight", [(30, 20), (20, 30)])
def test_the_busier_of_two_is_never_chosen(in_flight: tuple[int, int]) -> None:
    """With two replicas both are always drawn, so 10,000 of 10,000 go to the less busy, in either order."""
    policy = power_of_two(1)
    fleet = loaded(*in_flight)
    assert {policy.choose(ANY, fleet, NOW).in_flight for _ in range(10_000)} == {20}


@pytest.mark.parametrize("choices", [2, 3, 5])
def test_shares_are_those_of_distinct_draws(choices: int) -> None:
    """Of n replicas the k-th least busy wins if it is drawn and the others drawn are busier.

    So its share is C(n - k, choices - 1) / C(n, choices), and the busiest get nothing at all.
    """
    policy = power_of_two(2, choices)
    fleet = loaded(5, 1, 7, 3, 0, 6, 2, 4)
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(20_000))
    shares = {replica.id: comb(7 - replica.in_flight, choices - 1) for replica in fleet}
    assert fits(counts, {id_: share for id_, share in shares.items() if share})


def test_equals_share_by_weight() -> None:
    """Where nobody is busier, 20,000 choices go in proportion to weight."""
    policy = power_of_two(3)
    fleet = replicas(1, 2, 5, 2)
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(20_000))
    assert fits(counts, {replica.id: replica.weight for replica in fleet})


def test_busy_is_measured_by_weight() -> None:
    """Six requests on weight 4 are less than two on weight 1."""
    policy = power_of_two(4)
    fleet = [FakeReplica("small", 1, 2), FakeReplica("large", 4, 6)]
    assert {policy.choose(ANY, fleet, NOW).id for _ in range(10_000)} == {"large"}


def test_more_choices_than_replicas() -> None:
    """All are drawn, so the least busy is always chosen."""
    policy = power_of_two(5, choices=9)
    assert {policy.choose(ANY, loaded(4, 2, 3), NOW).in_flight for _ in range(1_000)} == {2}


def test_load_stays_nearly_even() -> None:
    """10,000 requests on 16 replicas end within a few of each other; by chance alone they would not."""
    policy = power_of_two(6)
    fleet = loaded(*[0] * 16)
    for _ in range(10_000):
        policy.choose(ANY, fleet, NOW).in_flight += 1
    loads = [replica.in_flight for replica in fleet]
    assert max(loads) - min(loads) <= 6


@pytest.mark.parametrize("choices", [1, 0, -2])
def test_fewer_than_two_choices_is_refused(choices: int) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match="choices must be at least 2"):
        PowerOfTwo.Options(choices=choices)
