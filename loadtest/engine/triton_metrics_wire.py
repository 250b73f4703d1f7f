"""Triton's metrics: what each family is, and their values from an engine's snapshot.

Counters have no `_total` and durations are microseconds; the LLM statistics are gauges with one label each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from loadtest.engine.exposition_wire import CPP, Metric, Registry, exposition
from loadtest.engine.stats import Stats

GPU_UUID: Final = "GPU-00000000-0000-0000-0000-000000000000"
CATALOGUE: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "nv_inference_request_success": Metric(
            "counter", "Number of successful inference requests, all batch sizes"
        ),
        "nv_inference_request_failure": Metric(
            "counter", "Number of failed inference requests, all batch sizes"
        ),
        "nv_inference_pending_request_count": Metric(
            "gauge", "Instantaneous number of pending requests awaiting execution per-model."
        ),
        "nv_inference_request_duration_us": Metric(
            "counter", "Cumulative inference request duration in microseconds (includes cached requests)"
        ),
        "nv_inference_queue_duration_us": Metric(
            "counter", "Cumulative inference queuing duration in microseconds (includes cached requests)"
        ),
        "nv_gpu_utilization": Metric("gauge", "GPU utilization rate [0.0 - 1.0)"),
        "nv_gpu_memory_total_bytes": Metric("gauge", "GPU total memory, in bytes"),
        "nv_gpu_memory_used_bytes": Metric("gauge", "GPU used memory, in bytes"),
        "nv_trt_llm_request_metrics": Metric("gauge", "TRT LLM request metrics"),
        "nv_trt_llm_kv_cache_block_metrics": Metric("gauge", "TRT LLM KV cache block metrics"),
        "nv_trt_llm_inflight_batcher_metrics": Metric("gauge", "TRT LLM inflight_batcher-specific metrics"),
        "nv_trt_llm_general_metrics": Metric("gauge", "General TRT LLM metrics"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that one scrape shows."""

    model: str
    """The model that clients call: the subject of `nv_inference_*`."""
    engine_model: str = "tensorrt_llm"
    success: int
    failures: Mapping[str, int]
    """Failed requests by reason."""
    pending: int
    """Requests in Triton's own queue."""
    request_duration_us: int
    queue_duration_us: int
    gpu_utilisation: float
    stats: Stats
    context_requests: int
    context_tokens: int
    generation_requests: int
    epoch_s: int


def scrape(reading: Reading) -> bytes:
    """The text of the metrics port."""
    registry = Registry(CATALOGUE)
    _inference(registry, reading)
    _batch_manager(registry, reading)
    return exposition(registry.families(), CPP)


def _inference(registry: Registry, reading: Reading) -> None:
    who = {"model": reading.model, "version": "1"}
    registry.set("nv_inference_request_success", reading.success, **who)
    for reason, count in reading.failures.items():
        registry.set("nv_inference_request_failure", count, reason=reason, **who)
    registry.set("nv_inference_pending_request_count", reading.pending, **who)
    registry.set("nv_inference_request_duration_us", reading.request_duration_us, **who)
    registry.set("nv_inference_queue_duration_us", reading.queue_duration_us, **who)
    registry.set("nv_gpu_utilization", reading.gpu_utilisation, gpu_uuid=GPU_UUID)


def _batch_manager(registry: Registry, reading: Reading) -> None:
    who = {"model": reading.engine_model, "version": "1"}
    stats = reading.stats
    requests: Mapping[str, float] = {
        "waiting": stats.waiting,
        "context": reading.context_requests,
        "scheduled": reading.context_requests + reading.generation_requests,
        "max": stats.max_num_seqs,
        "active": stats.running + stats.waiting,
    }
    blocks: Mapping[str, float] = {
        "fraction": stats.kv_usage_ratio,
        "tokens_per": stats.block_size,
        "used": stats.blocks_used,
        "free": stats.blocks_total - stats.blocks_used,
        "max": stats.blocks_total,
    }
    batcher: Mapping[str, float] = {
        "micro_batch_id": 0,
        "generation_requests": reading.generation_requests,
        "total_context_tokens": reading.context_tokens,
    }
    for kind, value in requests.items():
        registry.set("nv_trt_llm_request_metrics", value, request_type=kind, **who)
    for kind, value in blocks.items():
        registry.set("nv_trt_llm_kv_cache_block_metrics", value, kv_cache_block_type=kind, **who)
    for kind, value in batcher.items():
        registry.set(
            "nv_trt_llm_inflight_batcher_metrics", value, inflight_batcher_specific_metric=kind, **who
        )
    for kind, count in (("iteration_counter", stats.steps), ("timestamp", reading.epoch_s)):
        registry.set("nv_trt_llm_general_metrics", count, general_type=kind, **who)
