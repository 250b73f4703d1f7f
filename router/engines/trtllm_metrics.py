"""What trtllm-serve says of itself: Prometheus text where it has it, else iteration records.

All names begin with `trtllm_` since spring 2026; before that there were five bare ones, all of requests.
"""

from typing import Final

from router.engines.engine import ReplicaLoad
from router.engines.prometheus_text import Exposition, Families
from router.engines.trtllm_records import Drained
from router.engines.unknown import difference, first, product, share

_FAMILIES: Final = Families(
    "trtllm-serve",
    prefixes=[
        "trtllm_",
        "request_success_total",
        "request_queue_time_seconds",
        "e2e_request_latency_seconds",
        "time_to_first_token_seconds",
        "time_per_output_token_seconds",
    ],
    names=[
        "trtllm_num_requests_running",
        "trtllm_num_requests_waiting",
        "trtllm_max_num_active_requests",
        "trtllm_kv_cache_utilization",
        "trtllm_kv_cache_max_blocks",
        "trtllm_kv_cache_tokens_per_block",
        "trtllm_kv_cache_hit_rate",
        "trtllm_prompt_tokens_total",
        "trtllm_prompt_cached_tokens_total",
        "trtllm_generation_tokens_total",
        "trtllm_request_queue_time_seconds_sum",
        "trtllm_request_queue_time_seconds_count",
        "request_queue_time_seconds_sum",
        "request_queue_time_seconds_count",
        "trtllm_num_scheduled_requests",
        "trtllm_max_batch_size_runtime",
        "trtllm_num_paused_requests",
    ],
)


class TrtllmTelemetry:
    """One object per replica, and the only reader of its records: reading removes them from the engine.

    The options are used where the engine is silent.
    """

    health_path = "/health"
    metrics_paths: tuple[str, ...] = ("/prometheus/metrics", "/metrics")
    lagging: frozenset[str] = frozenset(
        {"running_requests", "waiting_requests", "batch_utilisation", "decode_tokens_per_s"}
    )
    """Both forms are renewed when a request completes, and not while a few long streams run."""

    def __init__(self, *, max_running: float | None = None, kv_capacity_tokens: float | None = None) -> None:
        self._max_running = max_running
        self._kv_capacity_tokens = kv_capacity_tokens
        self._drained = Drained(max_running, kv_capacity_tokens)

    def load_from(self, path: str, content: bytes) -> ReplicaLoad:  # noqa: ARG002
        """Either form, told apart by its first byte: no sample's name begins with a bracket.

        Records are added to running totals that this object keeps.
        """
        if content.lstrip()[:1] in (b"[", b"{"):
            return self._drained.add(content)
        return self._load_from_text(_FAMILIES.read(content))

    def _load_from_text(self, said: Exposition) -> ReplicaLoad:
        prompt_tokens = said.total("trtllm_prompt_tokens_total")
        cached_tokens = said.total("trtllm_prompt_cached_tokens_total")
        block_tokens = said.mean("trtllm_kv_cache_tokens_per_block")
        capacity = product(said.total("trtllm_kv_cache_max_blocks"), block_tokens)
        scheduled = said.total("trtllm_num_scheduled_requests")
        return ReplicaLoad(
            running_requests=said.total("trtllm_num_requests_running"),
            waiting_requests=said.total("trtllm_num_requests_waiting"),
            max_running_requests=first(said.total("trtllm_max_num_active_requests"), self._max_running),
            kv_usage_ratio=said.ratio("trtllm_kv_cache_utilization"),
            kv_capacity_tokens=first(capacity, self._kv_capacity_tokens),
            kv_block_tokens=block_tokens,
            prefix_query_tokens=prompt_tokens,
            prefix_hit_tokens=cached_tokens,
            prefix_hit_ratio=said.ratio("trtllm_kv_cache_hit_rate"),
            prefill_tokens=prompt_tokens,
            prefill_tokens_computed=difference(prompt_tokens, cached_tokens),
            decode_tokens=said.total("trtllm_generation_tokens_total"),
            queue_wait_seconds_sum=_renamed(said, "request_queue_time_seconds_sum"),
            queue_wait_count=_renamed(said, "request_queue_time_seconds_count"),
            batch_utilisation=share(scheduled, said.total("trtllm_max_batch_size_runtime")),
            preemptions=said.total("trtllm_num_paused_requests"),
        )


def _renamed(said: Exposition, name: str) -> float | None:
    """A family that had no prefix until spring 2026."""
    return first(said.total(f"trtllm_{name}"), said.total(name))
