from typing import Any

import pytest

from policies.routing.pipeline.options import PipelineOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scorers": {"prefx": 1.0}}, "scorers must be of prefix, queue, .*, got 'prefx'"),
        ({"scorers": {"prefix": -1.0}}, "scorers must have weights of 0 or more"),
        ({"filters": ("x",)}, "filters must be of prefix_affinity, utilisation, got 'x'"),
        ({"picker": "best"}, "picker must be of max_score, weighted_random, random, got 'best'"),
        ({"affinity_threshold": 1.1}, "affinity_threshold must be 0 to 1, got 1.1"),
        ({"affinity_threshold": float("nan")}, "affinity_threshold must be 0 to 1, got nan"),
        ({"block_tokens": 0}, "block_tokens must be at least 1, got 0"),
    ],
)
def test_values_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    """The message begins with the option."""
    with pytest.raises(ValueError, match=f"^{message}"):
        PipelineOptions(**options)


def test_the_default_is_llm_ds() -> None:
    """Its loader's default profile, and its plugins' default parameters."""
    options = PipelineOptions()
    assert options.scorers == {"prefix": 3.0, "queue": 2.0, "kv_utilisation": 2.0}
    assert (options.filters, options.picker) == ((), "max_score")
    assert (options.affinity_threshold, options.max_ttft_penalty_s) == (0.8, 18.0)
    assert (options.block_tokens, options.lru_capacity_per_replica) == (64, 31_250)
