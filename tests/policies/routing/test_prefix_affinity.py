from collections import Counter
from random import Random

import pytest

from policies.routing.events import Dispatched, Forgotten, Prompt
from policies.routing.prefix_affinity import PrefixAffinity
from tests.support.routing import NOW, FakeReplica, FakeRequest, replicas


def prompt(*names: str) -> Prompt:
    """Ten blocks of 100 tokens a name."""
    blocks = [hash((names[: at + 1], part)) & (2**60 - 1) for at in range(len(names)) for part in range(10)]
    return Prompt(tuple(blocks), 1_000 * len(names), 100)


class There:
    def __init__(self, **options: float) -> None:
        self.policy = PrefixAffinity(PrefixAffinity.Options(**options), Random(3))
        self.replicas = replicas(1, 1, 1)

    def sent(self, replica: FakeReplica, asked: Prompt) -> None:
        self.policy.observe(Dispatched(replica.id, 1, NOW, asked))

    def choose(self, asked: Prompt | None) -> FakeReplica:
        return self.policy.choose(FakeRequest(None, asked), self.replicas, NOW)


def test_a_match_of_more_than_the_threshold_is_followed() -> None:
    there = There()
    second = there.replicas[1]
    there.sent(second, prompt("system", "x"))
    assert there.choose(prompt("system", "x", "y")) is second
    assert there.choose(prompt("system", "other")) is not second, "a half is not more than a half"


def test_a_miss_goes_to_whom_the_least_is_known_of_or_to_the_least_loaded() -> None:
    there = There()
    for replica, count in zip(there.replicas, (3, 1, 2), strict=True):
        replica.in_flight = 9 - count
        for number in range(count):
            there.sent(replica, prompt(f"{replica.id} {number}"))
    assert there.choose(prompt("new")) is there.replicas[1]
    smg = There(miss_to_least_loaded=True)
    for replica, load in zip(smg.replicas, (4, 5, 3), strict=True):
        replica.in_flight = load
    assert smg.choose(prompt("new")) is smg.replicas[2]


@pytest.mark.parametrize(
    ("loads", "follows"), [((33, 1, 1), True), ((34, 1, 1), False), ((400, 370, 370), True)]
)
def test_loads_are_evened_when_both_thresholds_are_passed(loads: tuple[int, ...], follows: bool) -> None:
    """32 apart, and 1.1 times: 400 beside 370 is neither."""
    there = There()
    first = there.replicas[0]
    there.sent(first, prompt("system"))
    for replica, load in zip(there.replicas, loads, strict=True):
        replica.in_flight = load
    assert (there.choose(prompt("system")) is first) is follows


def test_a_restarted_replica_is_forgotten() -> None:
    there = There()
    first = there.replicas[0]
    there.sent(first, prompt("system"))
    there.policy.observe(Forgotten(first.id, NOW))
    assert len({there.choose(prompt("system")).id for _ in range(50)}) == 3


def test_equals_go_by_chance() -> None:
    there = There()
    counts = Counter(there.choose(None).id for _ in range(3_000))
    assert min(counts.values()) > 850


def test_why_is_told() -> None:
    there = There()
    there.sent(there.replicas[0], prompt("system"))
    one, *_ = there.policy.weigh(FakeRequest(None, prompt("system")), there.replicas, NOW)
    assert one.terms == {"match": 1.0, "in_flight": 0, "known_blocks": 10, "uneven": 0.0}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cache_threshold", 1.1),
        ("balance_abs_threshold", -1),
        ("balance_rel_threshold", 0.9),
        ("index_mb", 0.0),
    ],
)
def test_senseless_options_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        PrefixAffinity.Options(**{option: value})
