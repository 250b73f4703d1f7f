from random import Random
from typing import Any

import pytest

from policies.routing.events import Dispatched, Forgotten
from policies.routing.pipeline.pipeline import Pipeline
from tests.support.routing import NOW, FakeLoad, FakeReplica, FakeRequest, prompt_of

REQUEST = FakeRequest(prompt=prompt_of("x" * 10, block_tokens=64))


def pipeline(**options: Any) -> Pipeline:
    """One that has given `REQUEST` to "a" and half of it to "b"."""
    policy = Pipeline(Pipeline.Options(**options), Random(1))
    policy.observe(Dispatched("a", 1, NOW, REQUEST.prompt))
    policy.observe(Dispatched("b", 2, NOW, prompt_of("x" * 5, block_tokens=64)))
    return policy


def fleet_of(**figures: tuple[float, float]) -> list[FakeReplica]:
    """Replicas by name, with their waiting requests and KV usage."""
    return [
        FakeReplica(name, load=FakeLoad(waiting_requests=waiting, kv_usage_ratio=usage))
        for name, (waiting, usage) in figures.items()
    ]


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        # a: 3 x 1.0 + 2 x 0 + 2 x 0.5 = 4;  b: 3 x 0.5 + 2 x 1 + 2 x 0.8 = 5.1
        ({"a": (9, 0.5), "b": (0, 0.2)}, "b"),
        # a: 3 x 1.0 + 2 x 1 + 2 x 0.5 = 6;  b: 3 x 0.5 + 2 x 1 + 2 x 0.8 = 5.1
        ({"a": (0, 0.5), "b": (0, 0.2)}, "a"),
        # a: 3 x 1.0 + 2 x 0 + 2 x 0.5 = 4;  c: 0 + 2 x 1 + 2 x 0.9 = 3.8
        ({"a": (1, 0.5), "c": (0, 0.1)}, "a"),
    ],
)
def test_the_best_weighted_sum_wins(figures: dict[str, tuple[float, float]], chosen: str) -> None:
    """llm-d's default profile on sums worked out by hand."""
    assert pipeline().choose(REQUEST, fleet_of(**figures), NOW).id == chosen


def test_filters_come_first() -> None:
    """A replica that scores better is no candidate any more, and scores are relative to those left."""
    policy = pipeline(filters=("prefix_affinity",), scorers={"queue": 1.0})
    assert policy.choose(REQUEST, fleet_of(a=(9, 0.5), b=(0, 0.0)), NOW).id == "a"
    assert policy.choose(REQUEST, fleet_of(b=(9, 0.5), c=(0, 0.0)), NOW).id == "c"


def test_filters_follow_each_other() -> None:
    """The second sees what the first has left: the full cache of "a" is the only one with the prompt."""
    fleet = fleet_of(a=(9, 0.9), b=(0, 0.0))
    for filters, chosen in (
        (("prefix_affinity", "utilisation"), "a"),
        (("utilisation", "prefix_affinity"), "b"),
    ):
        assert pipeline(filters=filters).choose(REQUEST, fleet, NOW).id == chosen


def test_a_restart_is_a_cold_cache() -> None:
    """Then what "b" has of the prompt is the most."""
    policy = pipeline()
    fleet = fleet_of(a=(0, 0.0), b=(0, 0.0))
    assert policy.choose(REQUEST, fleet, NOW).id == "a"
    policy.observe(Forgotten("a", NOW))
    assert policy.choose(REQUEST, fleet, NOW).id == "b"


def test_before_the_first_scrape_prefixes_decide() -> None:
    """Without load figures all replicas are as busy as each other."""
    fleet = [FakeReplica("c"), FakeReplica("b"), FakeReplica("a")]
    assert pipeline().choose(REQUEST, fleet, NOW).id == "a"


def test_sizes_of_caches_are_learned_when_choosing() -> None:
    """An engine with room for 128 tokens is not taken to hold ten blocks."""
    policy = Pipeline(Pipeline.Options(), Random(1))
    small, large = FakeReplica("small", load=FakeLoad(kv_capacity_tokens=128)), FakeReplica("large")
    policy.choose(REQUEST, [small, large], NOW)
    policy.observe(Dispatched("small", 1, NOW, REQUEST.prompt))
    weighed = policy.weigh(REQUEST, [small, large], NOW)
    assert weighed[0].terms["prefix"] == pytest.approx(3 * 0.2)


def test_a_scorer_of_no_weight_does_not_count() -> None:
    """It may stay in the table while it is tried without."""
    policy = pipeline(scorers={"prefix": 0.0, "queue": 1.0})
    assert policy.choose(REQUEST, fleet_of(a=(1, 0.0), b=(0, 0.0)), NOW).id == "b"


def test_why() -> None:
    """Terms are what each scorer adds, costs minus their sum; who is filtered out stands out."""
    policy = pipeline(filters=("prefix_affinity",), exploration_probability=1.0)
    kept, out = policy.weigh(REQUEST, fleet_of(a=(0, 0.5), b=(0, 0.2)), NOW)
    assert kept.terms == {"prefix": 3.0, "queue": 2.0, "kv_utilisation": 1.0}
    assert kept.cost == -6.0
    assert (out.cost, out.terms) == (1.0, {"filtered": 1.0})


def test_kv_events_are_asked_for() -> None:
    """Only by a pipeline that lives by them."""
    assert pipeline(prefix_from="kv_events").wants_kv_events
    assert not pipeline().wants_kv_events
