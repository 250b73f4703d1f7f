from collections import Counter
from math import nan
from random import Random
from typing import Any

import pytest

from policies.routing.events import Dispatched, Forgotten
from policies.routing.prefix_affinity import PrefixAffinity
from tests.support.routing import NOW, FakeReplica, FakeRequest, fits, prompt_of


def prefix_affinity(**options: Any) -> PrefixAffinity:
    return PrefixAffinity(PrefixAffinity.Options(**options), Random(1))


def fleet_of(*in_flight: int) -> list[FakeReplica]:
    return [FakeReplica(name, in_flight=count) for name, count in zip("abcd", in_flight, strict=False)]


def sent(policy: PrefixAffinity, **prompts: str) -> PrefixAffinity:
    """`policy`, after each of the named replicas was given a prompt."""
    for ticket, (replica, text) in enumerate(prompts.items()):
        policy.observe(Dispatched(replica, ticket, NOW, prompt_of(text)))
    return policy


def asked(text: str) -> FakeRequest:
    return FakeRequest(prompt=prompt_of(text))


def test_who_saw_most_of_it_gets_it() -> None:
    """Also when it is the busiest, as long as load is even."""
    policy = sent(prefix_affinity(), a="system question", b="system")
    assert policy.choose(asked("system question two"), fleet_of(20, 0, 0), NOW).id == "a"


def test_as_much_as_the_threshold_is_not_enough() -> None:
    """Half of the prompt seen at a threshold of 0.5 is a miss, one block more is a hit."""
    policy = sent(prefix_affinity(cache_threshold=0.5), a="half")
    assert policy.choose(asked("halfhalf"), fleet_of(9, 1), NOW).id == "b"
    assert policy.choose(asked("halfhal"), fleet_of(9, 1), NOW).id == "a"


def test_equal_hits_go_to_the_less_loaded() -> None:
    """Then by chance."""
    policy = sent(prefix_affinity(), a="same", b="same", c="same")
    assert policy.choose(asked("same"), fleet_of(5, 3, 4), NOW).id == "b"
    counts = Counter(policy.choose(asked("same"), fleet_of(5, 3, 3), NOW).id for _ in range(2_000))
    assert fits(counts, {"b": 1, "c": 1})


@pytest.mark.parametrize(
    ("in_flight", "chosen"),
    [
        ((33, 0), "b"),  # 33 > 32 and 33 > 0
        ((32, 0), "a"),  # the difference is not more than 32
        ((433, 400), "a"),  # 33 > 32, but 433 <= 1.1 x 400
        ((434, 394), "b"),  # 40 > 32 and 434 > 433.4
    ],
)
def test_uneven_load_goes_before_affinity(in_flight: tuple[int, ...], chosen: str) -> None:
    """Only if the difference and the ratio are both too large."""
    policy = sent(prefix_affinity(), a="prompt")
    assert policy.choose(asked("prompt"), fleet_of(*in_flight), NOW).id == chosen


def test_unevenness_is_measured_by_weight() -> None:
    """80 requests on weight 4 are no more than 20 on weight 1."""
    policy = sent(prefix_affinity(), a="prompt")
    fleet = [FakeReplica("a", 4.0, 80), FakeReplica("b", 1.0, 10)]
    assert policy.choose(asked("prompt"), fleet, NOW).id == "a"


def test_a_miss_goes_to_the_least_loaded() -> None:
    """The rule of vllm-router and SMG now."""
    policy = sent(prefix_affinity(), a="one", b="other and more")
    assert policy.choose(asked("unseen"), fleet_of(2, 1), NOW).id == "b"


def test_a_miss_goes_to_the_smallest_tree() -> None:
    """The rule of SGLang's first router: who has seen least, then the less loaded."""
    policy = sent(prefix_affinity(on_miss="smallest_tree"), a="a long prompt", b="short", c="brief")
    assert policy.choose(asked("unseen"), fleet_of(0, 5, 4), NOW).id == "c"
    assert policy.choose(asked("unseen"), fleet_of(0, 5, 4, 6), NOW).id == "d"


def test_the_tree_is_bounded() -> None:
    """320 characters are 80 tokens, five blocks of 16: the sixth pushes out the tail of the oldest prompt."""
    policy = sent(prefix_affinity(max_tree_size=320), a="abcd")
    sent(policy, a="xy")
    assert policy.choose(asked("abcd"), fleet_of(5, 1), NOW).id == "a"
    sent(policy, a="z")
    assert policy.choose(asked("abcd"), fleet_of(5, 1), NOW).id == "b"


def test_a_restarted_replica_has_seen_nothing() -> None:
    """Its prompts are misses again."""
    policy = sent(prefix_affinity(), a="prompt")
    policy.observe(Forgotten("a", NOW))
    assert policy.choose(asked("prompt"), fleet_of(1, 0), NOW).id == "b"


def test_without_a_prompt_the_least_loaded_serves() -> None:
    """Whatever happens to prompts that miss, and nothing is learned from it."""
    policy = prefix_affinity(on_miss="smallest_tree")
    policy.observe(Dispatched("b", 1, NOW))
    assert policy.choose(FakeRequest(), fleet_of(2, 1, 3), NOW).id == "b"


def test_an_empty_prompt_is_a_miss() -> None:
    """Nothing of nothing is not more than the threshold."""
    policy = sent(prefix_affinity(cache_threshold=0.0), a="x")
    assert policy.choose(asked(""), fleet_of(1, 0), NOW).id == "b"


def test_why() -> None:
    """The least cost is the choice, in whatever the rule compares; the terms tell which rule it was."""
    policy = sent(prefix_affinity(), a="prompt", b="pro")
    hit = policy.weigh(asked("prompt"), fleet_of(9, 0), NOW)
    assert [weighed.cost for weighed in hit] == [0.0, 48.0]
    assert [weighed.terms["seen"] for weighed in hit] == [1.0, 0.5]
    uneven = policy.weigh(asked("prompt"), fleet_of(90, 0), NOW)
    assert [weighed.cost for weighed in uneven] == [90.0, 0.0]
    promptless = policy.weigh(FakeRequest(), fleet_of(3, 0), NOW)
    assert [weighed.terms["seen"] for weighed in promptless] == [0.0, 0.0]


@pytest.mark.parametrize(
    "options",
    [
        {"cache_threshold": 1.1},
        {"cache_threshold": nan},
        {"balance_abs_threshold": -1.0},
        {"balance_rel_threshold": 0.9},
        {"max_tree_size": 0},
    ],
)
def test_values_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    """The message begins with the option."""
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be "):
        PrefixAffinity.Options(**options)
