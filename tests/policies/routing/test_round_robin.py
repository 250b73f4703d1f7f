from collections import Counter
from random import Random

import pytest

from policies.routing.round_robin import RoundRobin
from tests.support.routing import NOW, FakeReplica, FakeRequest, replicas

ANY = FakeRequest()


def round_robin() -> RoundRobin:
    return RoundRobin(RoundRobin.Options(), Random(1))


def test_turns_are_spread_out() -> None:
    """Weights 5, 1, 1 interleave as smooth weighted round robin does: no five in a row."""
    policy = round_robin()
    fleet = [FakeReplica("a", 5), FakeReplica("b", 1), FakeReplica("c", 1)]
    assert "".join(policy.choose(ANY, fleet, NOW).id for _ in range(14)) == "aabacaa" * 2


def test_proportions_are_exact() -> None:
    """Over whole rounds counts are the weights, and on the way no replica is a turn off its share."""
    policy = round_robin()
    fleet = replicas(5, 3, 1, 1)
    counts: Counter[str] = Counter()
    for number in range(1, 10_001):
        counts[policy.choose(ANY, fleet, NOW).id] += 1
        for replica in fleet:
            assert abs(counts[replica.id] - number * replica.weight / 10) <= 1
    assert [counts[replica.id] for replica in fleet] == [5_000, 3_000, 1_000, 1_000]


def test_fractions_are_weights_too() -> None:
    """Weights that have no exact binary form still give every replica its share to the turn."""
    policy = round_robin()
    fleet = replicas(0.1, 0.2, 0.7)
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(10_000))
    assert [counts[replica.id] for replica in fleet] == [
        pytest.approx(share, abs=1) for share in (1_000, 2_000, 7_000)
    ]


def test_a_replica_that_comes_and_goes_keeps_its_place() -> None:
    """A candidate at every second choice only, it gets its quarter of those 5,000 and no more."""
    policy = round_robin()
    fleet = replicas(1, 1, 1, 1)
    counts: Counter[str] = Counter()
    for number in range(10_000):
        counts[policy.choose(ANY, fleet if number % 2 else fleet[:3], NOW).id] += 1
    assert counts[fleet[3].id] == pytest.approx(1_250, abs=1)


def test_a_break_after_service_is_no_second_turn() -> None:
    """Full for two choices after each request, it gets a quarter of those it is there for: one of four in six."""
    policy = round_robin()
    fleet = replicas(1, 1, 1, 1)
    counts: Counter[str] = Counter()
    back_at = 0
    for number in range(10_000):
        chosen = policy.choose(ANY, fleet if number >= back_at else fleet[1:], NOW)
        counts[chosen.id] += 1
        if chosen is fleet[0]:
            back_at = number + 3
    assert counts[fleet[0].id] == pytest.approx(10_000 / 6, abs=3)


def test_a_weight_may_change_between_choices() -> None:
    """A replica that warms up from a tenth gets a tenth now and its whole share later."""
    policy = round_robin()
    fleet = replicas(0.1, 1, 1)
    cold = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(2_100))
    assert cold[fleet[0].id] == pytest.approx(100, abs=1)
    fleet[0].weight = 1.0
    warm = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(3_000))
    assert warm[fleet[0].id] == pytest.approx(1_000, abs=2)


def test_replicas_that_left_are_forgotten() -> None:
    """A fleet whose addresses change for ever takes no more memory, and shares stay equal."""
    policy = round_robin()
    counts: Counter[str] = Counter()
    steady = FakeReplica("steady")
    for number in range(20_000):
        chosen = policy.choose(ANY, [steady, FakeReplica(f"pod-{number // 2}")], NOW)
        counts[chosen.id] += 1
    assert len(policy._credits) < 100
    assert counts["steady"] == pytest.approx(10_000, rel=0.02)


@pytest.mark.parametrize("leaves_when_served", [True, False])
def test_churn_leaves_no_debt(leaves_when_served: bool) -> None:
    """After thousands came and went, at the best or the worst moment for the others, shares are equal again."""
    policy = round_robin()
    steady = replicas(1, 1)
    pod = FakeReplica("pod-0")
    for number in range(1, 5_000):
        if (policy.choose(ANY, [*steady, pod], NOW) is pod) is leaves_when_served:
            pod = FakeReplica(f"pod-{number}")
    fleet = [*steady, FakeReplica("new"), FakeReplica("newer")]
    counts = Counter(policy.choose(ANY, fleet, NOW).id for _ in range(400))
    assert all(counts[replica.id] == pytest.approx(100, abs=3) for replica in fleet)
