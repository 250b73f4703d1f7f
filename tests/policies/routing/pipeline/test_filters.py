from collections.abc import Sequence
from random import Random
from typing import Any

from policies.routing.events import Dispatched
from policies.routing.pipeline.filters import FILTERS
from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.situation import Situation
from tests.support.routing import NOW, FakeLoad, FakeReplica, FakeRequest, prompt_of

PROMPT = prompt_of("x" * 10, block_tokens=64)
FLEET = [FakeReplica("a"), FakeReplica("b"), FakeReplica("c")]


def sticky(hits: Sequence[int], random: Random | None = None, **options: Any) -> list[int]:
    """Who is kept after "a" was given 16,000 tokens to prefill."""
    settings = PipelineOptions(**options)
    memory = Memory(settings)
    memory.observe(Dispatched("a", 1, NOW, prompt_of("y" * 250, block_tokens=64)))
    keep = FILTERS["prefix_affinity"](settings, memory)
    return list(keep(Situation(FakeRequest(), FLEET, PROMPT, hits), random))


def test_only_who_has_most_of_the_prompt_is_kept() -> None:
    """llm-d: a share of 0.8 or more; if nobody has, everyone is."""
    assert sticky([8, 7, 10]) == [0, 2]
    assert sticky([7, 7, 7]) == [0, 1, 2]
    assert sticky([8, 7, 10], affinity_threshold=0.0) == [0, 1, 2]


def test_affinity_yields_to_a_queue() -> None:
    """llm-d: "a" would answer 16 s later at 1,000 tokens/s, which is too much for 15 and not for 18."""
    assert sticky([10, 0, 0], peak_prefill_tokens_per_s=1_000.0) == [0]
    assert sticky([10, 0, 0], peak_prefill_tokens_per_s=1_000.0, max_ttft_penalty_s=15.0) == [0, 1, 2]
    assert sticky([10, 0, 9], peak_prefill_tokens_per_s=1_000.0, max_ttft_penalty_s=15.0) == [0, 2]
    assert sticky([10, 0, 0], peak_prefill_tokens_per_s=1.0, max_ttft_penalty_s=0.0) == [0]


def test_some_requests_explore() -> None:
    """A fifth of 10,000, and none where nothing is chosen."""
    random = Random(1)
    explored = sum(sticky([10, 0, 0], random, exploration_probability=0.2) != [0] for _ in range(2_000))
    assert 330 < explored < 470
    assert sticky([10, 0, 0], exploration_probability=1.0) == [0]


def test_who_is_full_is_left_out() -> None:
    """A queue of more than 5 or a KV cache above 0.8; if all are full, all are kept."""
    settings = PipelineOptions()
    keep = FILTERS["utilisation"](settings, Memory(settings))

    def kept(*figures: tuple[float, float]) -> list[int]:
        fleet = [
            FakeReplica("r", load=FakeLoad(waiting_requests=waiting, kv_usage_ratio=usage))
            for waiting, usage in figures
        ]
        return list(keep(Situation(FakeRequest(), fleet, PROMPT, [0] * len(fleet)), None))

    assert kept((5, 0.8), (6, 0.1), (0, 0.81)) == [0]
    assert kept((6, 0.9), (6, 0.1)) == [0, 1]
