"""trtllm-serve's telemetry: JSON records per iteration and per request, and both sets of Prometheus names.

Iteration records have their keys in alphabetical order, as nlohmann's JSON objects do.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from loadtest.engine.exposition_wire import Metric
from loadtest.engine.stats import Stats, StepRecord

GPU_BYTES: Final = 68_451_041_280
"""What weights and KV cache occupy on the card that the default latency model stands for."""


def _camel(name: str) -> str:
    """`iter_latency_ms` to `iterLatencyMS`."""
    first, *rest = name.split("_")
    return first + "".join("MS" if word == "ms" else word.capitalize() for word in rest)


class Batching(Struct, frozen=True, rename=_camel):
    avg_num_decoded_tokens_per_iter: float
    micro_batch_id: int
    num_context_requests: int
    num_ctx_tokens: int
    num_gen_requests: int
    num_paused_requests: int
    num_scheduled_requests: int


class KvStats(Struct, frozen=True, rename=_camel):
    """Block counters run since start; the hit rate is cumulative too."""

    alloc_new_blocks: int
    alloc_total_blocks: int
    cache_hit_rate: float
    free_num_blocks: int
    max_num_blocks: int
    missed_blocks: int
    reused_blocks: int
    tokens_per_block: int
    used_num_blocks: int


class Iteration(Struct, frozen=True, kw_only=True, rename=_camel):
    """One element of `GET /metrics`."""

    cpu_mem_usage: int = 0
    gpu_mem_usage: int = GPU_BYTES
    inflight_batching_stats: Batching
    iter: int
    iter_latency_ms: float
    kv_cache_stats: KvStats
    max_batch_size_runtime: int
    max_batch_size_static: int
    max_batch_size_tuner_recommended: int = 0
    max_num_active_requests: int
    max_num_tokens_runtime: int
    max_num_tokens_static: int
    max_num_tokens_tuner_recommended: int = 0
    new_active_requests_queue_latency_ms: float = 0.0
    num_active_requests: int
    num_completed_requests: int
    num_new_active_requests: int
    num_queued_requests: int
    pinned_mem_usage: int = 0
    spec_decoding_stats: None = None
    static_batching_stats: None = None
    timestamp: str


def hit_rate(stats: Stats) -> float:
    """Reused blocks over looked-up blocks since start; 0 before the first look-up."""
    return stats.blocks_reused / max(1, stats.blocks_reused + stats.blocks_missed)


def timestamp(when: datetime) -> str:
    """`08-17-2026 10:13:20.140189`: local time, no zone."""
    return when.strftime("%m-%d-%Y %H:%M:%S.%f")


def iteration(step: StepRecord, stats: Stats, max_num_tokens: int, when: datetime) -> Iteration:
    """The record of one step. `max_num_tokens` is the token budget of a step."""
    return Iteration(
        inflight_batching_stats=Batching(
            avg_num_decoded_tokens_per_iter=0.0,
            micro_batch_id=0,
            num_context_requests=step.context_requests,
            num_ctx_tokens=step.context_tokens,
            num_gen_requests=step.generation_requests,
            num_paused_requests=step.paused,
            num_scheduled_requests=step.context_requests + step.generation_requests,
        ),
        iter=step.number,
        iter_latency_ms=step.latency_s * 1000,
        kv_cache_stats=kv_stats(stats),
        max_batch_size_runtime=stats.max_num_seqs,
        max_batch_size_static=stats.max_num_seqs,
        max_num_active_requests=stats.max_num_seqs,
        max_num_tokens_runtime=max_num_tokens,
        max_num_tokens_static=max_num_tokens,
        new_active_requests_queue_latency_ms=step.new_active_queue_s * 1000,
        num_active_requests=stats.running,
        num_completed_requests=step.completed,
        num_new_active_requests=step.new_active,
        num_queued_requests=stats.waiting,
        timestamp=timestamp(when),
    )


def kv_stats(stats: Stats) -> KvStats:
    return KvStats(
        alloc_new_blocks=stats.blocks_allocated,
        alloc_total_blocks=stats.blocks_allocated,
        cache_hit_rate=hit_rate(stats),
        free_num_blocks=stats.blocks_total - stats.blocks_used,
        max_num_blocks=stats.blocks_total,
        missed_blocks=stats.blocks_missed,
        reused_blocks=stats.blocks_reused,
        tokens_per_block=stats.block_size,
        used_num_blocks=stats.blocks_used,
    )


class Timing(Struct, frozen=True):
    """Steady-clock seconds: only differences mean something."""

    server_arrival_time: float
    arrival_time: float
    first_scheduled_time: float | None
    first_token_time: float | None
    server_first_token_time: float | None
    last_token_time: float | None


class KvUse(Struct, frozen=True):
    num_total_allocated_blocks: int
    num_new_allocated_blocks: int
    num_reused_blocks: int
    num_missed_blocks: int


class RequestPerf(Struct, frozen=True):
    first_iter: int
    last_iter: int
    timing_metrics: Timing
    kv_cache_metrics: KvUse


class PerfRecord(Struct, frozen=True):
    """One element of `GET /perf_metrics`."""

    request_id: int
    perf_metrics: RequestPerf


_LONG = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_FIRST = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)

REQUESTS_2025: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "request_success_total": Metric("counter", "Count of successfully processed requests."),
        "e2e_request_latency_seconds": Metric(
            "histogram", "Histogram of end to end request latency in seconds.", _LONG
        ),
        "time_to_first_token_seconds": Metric(
            "histogram", "Histogram of time to first token in seconds.", _FIRST
        ),
        "time_per_output_token_seconds": Metric(
            "histogram", "Histogram of time per output token in seconds.", _EACH
        ),
        "request_queue_time_seconds": Metric(
            "histogram", "Histogram of time spent in WAITING phase for request.", _LONG
        ),
    }
)
"""The five unprefixed families of 2025."""

GAUGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "num_requests_running": "requests running",
        "num_requests_waiting": "requests waiting",
        "max_num_active_requests": "max active requests",
        "kv_cache_utilization": "KV cache utilization",
        "kv_cache_hit_rate": "KV cache hit rate",
        "kv_cache_max_blocks": "max blocks",
        "kv_cache_used_blocks": "used blocks",
        "kv_cache_free_blocks": "free blocks",
        "kv_cache_tokens_per_block": "tokens per block",
        "iteration_latency_seconds": "Iteration latency in seconds",
        "gpu_memory_usage_bytes": "GPU memory usage in bytes",
        "max_batch_size_static": "Static maximum batch size",
        "max_batch_size_runtime": "Runtime maximum batch size",
        "max_num_tokens_runtime": "Runtime maximum number of tokens",
        "num_context_requests": "Number of context requests",
        "num_generation_requests": "Number of generation requests",
        "num_paused_requests": "Number of paused requests",
        "num_scheduled_requests": "Number of scheduled requests",
        "total_context_tokens": "Total context tokens",
        "avg_decoded_tokens_per_iter": "Average decoded tokens per iteration",
    }
)
"""Iteration gauges of 2026 without their prefix, and what HELP says."""

_COUNTERS = {
    "kv_cache_reused_blocks_total": "reused blocks",
    "kv_cache_missed_blocks_total": "missed blocks",
    "prompt_tokens_total": "prompt tokens",
    "prompt_cached_tokens_total": "cached prompt tokens",
    "generation_tokens_total": "generation tokens",
    "request_error_total": "Count of failed requests by HTTP status.",
    "num_requests_completed_total": "Total number of completed requests across iterations",
}
_PHASES = {
    "request_prefill_time_seconds": "Histogram of prefill (context) phase duration in seconds.",
    "request_decode_time_seconds": "Histogram of decode (generation) phase duration in seconds.",
    "request_inference_time_seconds": "Histogram of total inference duration in seconds.",
}
REQUESTS_2026: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        **{f"trtllm_{name}": metric for name, metric in REQUESTS_2025.items()},
        **{f"trtllm_{name}": Metric("gauge", about) for name, about in GAUGES.items()},
        **{f"trtllm_{name}": Metric("counter", about) for name, about in _COUNTERS.items()},
        **{f"trtllm_{name}": Metric("histogram", about, _LONG) for name, about in _PHASES.items()},
    }
)
"""Everything of 2026, prefixed."""


def gauges(last: Iteration) -> Mapping[str, float]:
    """The values of `GAUGES` after an iteration."""
    batch, kv = last.inflight_batching_stats, last.kv_cache_stats
    return {
        "num_requests_running": last.num_active_requests,
        "num_requests_waiting": last.num_queued_requests,
        "max_num_active_requests": last.max_num_active_requests,
        "kv_cache_utilization": kv.used_num_blocks / kv.max_num_blocks,
        "kv_cache_hit_rate": kv.cache_hit_rate,
        "kv_cache_max_blocks": kv.max_num_blocks,
        "kv_cache_used_blocks": kv.used_num_blocks,
        "kv_cache_free_blocks": kv.free_num_blocks,
        "kv_cache_tokens_per_block": kv.tokens_per_block,
        "iteration_latency_seconds": last.iter_latency_ms / 1000,
        "gpu_memory_usage_bytes": last.gpu_mem_usage,
        "max_batch_size_static": last.max_batch_size_static,
        "max_batch_size_runtime": last.max_batch_size_runtime,
        "max_num_tokens_runtime": last.max_num_tokens_runtime,
        "num_context_requests": batch.num_context_requests,
        "num_generation_requests": batch.num_gen_requests,
        "num_paused_requests": batch.num_paused_requests,
        "num_scheduled_requests": batch.num_scheduled_requests,
        "total_context_tokens": batch.num_ctx_tokens,
        "avg_decoded_tokens_per_iter": batch.avg_num_decoded_tokens_per_iter,
    }
