from collections.abc import Sequence
from typing import Any

import pytest

from policies.routing.events import Dispatched
from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.scorers import SCORERS
from policies.routing.pipeline.situation import Situation
from tests.support.routing import NOW, FakeLoad, FakeReplica, FakeRequest, prompt_of

PROMPT = prompt_of("x" * 10, block_tokens=64)


def scores(
    name: str,
    fleet: Sequence[FakeReplica],
    hits: Sequence[int] = (),
    session: str | None = None,
    **options: Any,
) -> list[float]:
    settings = PipelineOptions(**options)
    situation = Situation(FakeRequest(session), fleet, PROMPT, hits or [0] * len(fleet))
    return list(SCORERS[name](settings, Memory(settings))(situation))


def loads(**figures: Sequence[float | None]) -> list[FakeReplica]:
    """Replicas whose engines tell these figures, one of each per replica."""
    rows = [dict(zip(figures, row, strict=True)) for row in zip(*figures.values(), strict=True)]
    return [FakeReplica(f"r{number}", load=FakeLoad(**row)) for number, row in enumerate(rows)]


def busy(*in_flight: int) -> list[FakeReplica]:
    return [FakeReplica(f"r{number}", in_flight=count) for number, count in enumerate(in_flight)]


def test_prefix_is_the_share_of_blocks() -> None:
    """llm-d: matchBlocks / totalBlocks."""
    assert scores("prefix", busy(0, 0, 0), [10, 4, 0]) == [1.0, 0.4, 0.0]


def test_prefix_may_count_length() -> None:
    """llm-d: the square of 256 of 512 tokens weighs half beside a share of 0.4."""
    mixed = scores("prefix", busy(0, 0), [4, 8], match_length_weight=0.5, match_length_scale_tokens=512)
    assert mixed == pytest.approx([0.5 * 0.25 + 0.5 * 0.4, 0.5 * 1.0 + 0.5 * 0.8])


@pytest.mark.parametrize(("name", "figure"), [("queue", "waiting_requests"), ("running", "running_requests")])
def test_queues_are_scaled_between_least_and_most(name: str, figure: str) -> None:
    """llm-d: the least scores 1, the most 0, and 1 all round if they are equal."""
    assert scores(name, loads(**{figure: [0, 5, 10]})) == [1.0, 0.5, 0.0]
    assert scores(name, loads(**{figure: [3, 3]})) == [1.0, 1.0]


def test_kv_utilisation_is_what_is_free() -> None:
    """llm-d: 1 - usage."""
    assert scores("kv_utilisation", loads(kv_usage_ratio=[0.0, 0.25, 1.0])) == [1.0, 0.75, 0.0]


def test_what_is_not_told_is_the_mean() -> None:
    """Of those that tell; a fleet that tells nothing, or was never scraped, is even."""
    assert scores("kv_utilisation", loads(kv_usage_ratio=[0.2, None, 0.6])) == pytest.approx([0.8, 0.6, 0.4])
    assert scores("queue", loads(waiting_requests=[None, None])) == [1.0, 1.0]
    assert scores("queue", busy(1, 2)) == [1.0, 1.0]


def test_active_requests() -> None:
    """llm-d: idle replicas score 1, the busiest 0, the others in between and at most `max_busy_score`."""
    assert scores("active", busy(0, 2, 4)) == [1.0, 0.5, 0.0]
    assert scores("active", busy(0, 2, 4), idle_threshold=2, max_busy_score=0.5) == [1.0, 1.0, 0.0]
    assert scores("active", busy(1, 2, 4), max_busy_score=0.5) == [0.375, 0.25, 0.0]
    assert scores("active", busy(0, 0)) == [1.0, 1.0]


def test_load_aware() -> None:
    """llm-d: 0.5 without a queue, 0 at the threshold and beyond."""
    assert scores("load_aware", loads(waiting_requests=[0, 64, 128, 500])) == [0.5, 0.25, 0.0, 0.0]


def test_token_load() -> None:
    """llm-d: 1 - tokens / threshold."""
    options = PipelineOptions(queue_threshold_tokens=1280)
    memory = Memory(options)
    memory.observe(Dispatched("r1", 1, NOW, PROMPT))
    memory.observe(Dispatched("r2", 2, NOW, prompt_of("y" * 30, block_tokens=64)))
    score = SCORERS["token_load"](options, memory)
    assert list(score(Situation(FakeRequest(), busy(0, 0, 0), None, [0] * 3))) == [1.0, 0.5, 0.0]


def test_cold_requests_go_round() -> None:
    """llm-d: who never had one scores best, who had the last one 0; a known prompt is no matter."""
    options = PipelineOptions()
    memory = Memory(options)
    for ticket, replica in enumerate(("r2", "r0")):
        memory.observe(Dispatched(replica, ticket, NOW, prompt_of(f"{ticket}", block_tokens=64)))
    score = SCORERS["no_hit_lru"](options, memory)
    assert list(score(Situation(FakeRequest(), busy(0, 0, 0), PROMPT, [0, 0, 0]))) == [0.0, 1.0, 0.5]
    assert list(score(Situation(FakeRequest(), busy(0, 0, 0), PROMPT, [0, 1, 0]))) == [0.5] * 3
    assert list(score(Situation(FakeRequest(), busy(0), PROMPT, [0]))) == [1.0]


def test_a_session_has_one_home() -> None:
    """The same each time; without a session nobody scores."""
    fleet = busy(0, 0, 0)
    first = scores("session", fleet, session="alice")
    assert sorted(first) == [0.0, 0.0, 1.0]
    assert scores("session", fleet, session="alice") == first
    assert scores("session", fleet) == [0.0] * 3
