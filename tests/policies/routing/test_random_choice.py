from collections import Counter
from random import Random

from policies.routing.random_choice import RandomChoice, draw
from tests.support.routing import NOW, FakeRequest, fits, replicas

ANY = FakeRequest()


def test_equal_replicas_get_equal_shares() -> None:
    """20,000 choices over eight replicas are even."""
    policy = RandomChoice(RandomChoice.Options(), Random(5))
    fleet = replicas(*[1.0] * 8)
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(20_000))
    assert fits(counts, {replica.id: 1.0 for replica in fleet})


def test_shares_follow_weights() -> None:
    """20,000 choices are in proportion to weight, and load has no say."""
    policy = RandomChoice(RandomChoice.Options(), Random(6))
    fleet = replicas(0.5, 1, 2, 4)
    fleet[3].in_flight = 1_000
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(20_000))
    assert fits(counts, {replica.id: replica.weight for replica in fleet})


def test_weight_zero_is_never_drawn() -> None:
    """Neither at the edges nor in the middle, even with the smallest and greatest numbers that chance has."""

    class Edge(Random):
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    weights = [0.0, 3.0, 0.0, 0.1, 0.0]
    assert [draw(weights, Edge(value)) for value in (0.0, 1 - 2**-53)] == [1, 3]
    assert {draw(weights, Random(seed)) for seed in range(1_000)} == {1, 3}
