"""What vLLM says of itself: `GET /metrics`, one set of series per data-parallel rank (label `engine`).

Names since v0.12 first, then those of v0.8 to v0.11. It exposes neither its batch limit nor use of the GPU.
"""

from collections.abc import Mapping
from typing import Final

from router.engines.engine import ReplicaLoad
from router.engines.prometheus_text import Exposition, Families
from router.engines.unknown import difference, first, product, share, total

_FAMILIES: Final = Families(
    "vLLM",
    prefixes=["vllm:"],
    names=[
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:cache_config_info",
        "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:prompt_tokens_total",
        "vllm:prompt_tokens_by_source_total",
        "vllm:prompt_tokens_cached_total",
        "vllm:request_prefill_kv_computed_tokens_sum",
        "vllm:generation_tokens_total",
        "vllm:request_queue_time_seconds_sum",
        "vllm:request_queue_time_seconds_count",
        "vllm:num_preemptions_total",
        "vllm:engine_sleep_state",
        "vllm:iteration_tokens_total_count",
    ],
)


class VllmTelemetry:
    """`max_running` is `max_num_seqs` times the ranks; `kv_capacity_tokens` is used where vLLM is silent."""

    health_path = "/health"
    metrics_paths: tuple[str, ...] = ("/metrics",)
    lagging: frozenset[str] = frozenset()

    def __init__(self, *, max_running: float | None = None, kv_capacity_tokens: float | None = None) -> None:
        self._max_running = max_running
        self._kv_capacity_tokens = kv_capacity_tokens

    def load_from(self, path: str, content: bytes) -> ReplicaLoad:  # noqa: ARG002
        """Raises `ValueError` for other metrics; with `--disable-log-stats` vLLM has none of its own."""
        said = _FAMILIES.read(content)
        running = said.total("vllm:num_requests_running")
        caches = said.labels("vllm:cache_config_info")
        queries = _renamed(said, "prefix_cache_queries_total")
        hits = _renamed(said, "prefix_cache_hits_total")
        prompt_tokens = said.total("vllm:prompt_tokens_total")
        return ReplicaLoad(
            running_requests=running,
            waiting_requests=said.total("vllm:num_requests_waiting"),
            max_running_requests=self._max_running,
            # From 0 to 1 in spite of its name.
            kv_usage_ratio=first(
                said.ratio("vllm:kv_cache_usage_perc"), said.ratio("vllm:gpu_cache_usage_perc")
            ),
            kv_capacity_tokens=first(total(map(_capacity, caches)), self._kv_capacity_tokens),
            kv_block_tokens=_number(caches[0], "block_size") if caches else None,
            prefix_query_tokens=queries,
            prefix_hit_tokens=hits,
            prefill_tokens=prompt_tokens,
            prefill_tokens_computed=first(
                said.total("vllm:prompt_tokens_by_source_total", source="local_compute"),
                difference(prompt_tokens, said.total("vllm:prompt_tokens_cached_total")),
                said.total("vllm:request_prefill_kv_computed_tokens_sum"),
                difference(prompt_tokens, hits),
            ),
            decode_tokens=said.total("vllm:generation_tokens_total"),
            queue_wait_seconds_sum=said.total("vllm:request_queue_time_seconds_sum"),
            queue_wait_count=said.total("vllm:request_queue_time_seconds_count"),
            batch_utilisation=share(running, self._max_running),
            preemptions=said.total("vllm:num_preemptions_total"),
            sleeping=_sleeping(said),
            # A histogram in spite of its name: its count is the engine's steps.
            heartbeat=said.total("vllm:iteration_tokens_total_count"),
        )


def _renamed(said: Exposition, name: str) -> float | None:
    """A counter that was called `gpu_…` until v0.11."""
    return first(said.total(f"vllm:{name}"), said.total(f"vllm:gpu_{name}"))


def _capacity(cache: Mapping[str, str]) -> float | None:
    """Tokens that one rank's KV cache holds, from the labels of `cache_config_info`."""
    return first(
        _number(cache, "kv_cache_size_tokens"),
        product(_number(cache, "num_gpu_blocks"), _number(cache, "block_size")),
    )


def _number(labels: Mapping[str, str], name: str) -> float | None:
    """A whole number in a label; vLLM writes "None" for what it has not settled."""
    text = labels.get(name, "")
    return float(text) if text.isascii() and text.isdigit() else None


def _sleeping(said: Exposition) -> bool | None:
    awake = said.total("vllm:engine_sleep_state", sleep_state="awake")
    return None if awake is None else awake == 0
