from collections import Counter
from random import Random

from policies.routing.least_requests import LeastRequests
from tests.support.routing import NOW, FakeRequest, fits, replicas

ANY = FakeRequest()


def least_requests(seed: int = 1) -> LeastRequests:
    return LeastRequests(LeastRequests.Options(), Random(seed))


def test_the_least_loaded_is_always_chosen() -> None:
    """In 10,000 random fleets the choice has the fewest requests for its weight, wherever it stands."""
    policy = least_requests()
    rng = Random(2)
    fleet = replicas(1, 1, 2, 4, 0.5)
    for _ in range(10_000):
        for replica in fleet:
            replica.in_flight = rng.randrange(20)
        chosen = policy.choose(ANY, fleet, NOW)
        assert chosen.in_flight / chosen.weight == min(r.in_flight / r.weight for r in fleet)


def test_ties_are_shared() -> None:
    """Of eight replicas three are equally idle; 12,000 choices divide evenly among those three."""
    policy = least_requests(3)
    fleet = replicas(*[1.0] * 8)
    for replica, in_flight in zip(fleet, (4, 1, 9, 1, 2, 7, 1, 3), strict=True):
        replica.in_flight = in_flight
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(12_000))
    assert fits(counts, {fleet[position].id: 1.0 for position in (1, 3, 6)})


def test_an_idle_fleet_follows_weights() -> None:
    """With nothing in flight all are equal, and the greater replica still gets the greater share."""
    policy = least_requests(4)
    fleet = replicas(1, 2, 5)
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(10_000))
    assert fits(counts, {replica.id: replica.weight for replica in fleet})


def test_load_levels_out() -> None:
    """10,000 requests that never end leave no two replicas more than one request per weight apart."""
    policy = least_requests(5)
    fleet = replicas(1, 1, 1, 2, 2)
    for _ in range(10_000):
        policy.choose(ANY, fleet, NOW).in_flight += 1
        loads = [replica.in_flight / replica.weight for replica in fleet]
        assert max(loads) - min(loads) <= 1
