"""Help texts and bucket bounds of vLLM's metrics, as recorded from v0.32; older versions had fewer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

REQUEST_BOUNDS: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
    *(960.0, 1920.0, 7680.0),
)
"""Seconds."""
FIRST_TOKEN_BOUNDS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    *(80.0, 160.0, 640.0, 2560.0),
)
"""Seconds."""
INTER_TOKEN_BOUNDS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    80.0,
)
"""Seconds."""
ITERATION_BOUNDS: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Tokens."""
PREEMPTION_BOUNDS: Final = (1, 2, 3, 4, 5, 10, 20)

HELP: Final[Mapping[str, str]] = MappingProxyType(
    {
        # gauges
        "num_requests_running": "Number of requests in model execution batches.",
        "num_requests_waiting": "Number of requests waiting to be processed.",
        "num_requests_waiting_by_reason": "Number of waiting requests by reason. Reason labels: 'capacity' = "
        "waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV "
        "transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        "engine_sleep_state": "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means "
        "engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
        "gpu_cache_usage_perc": "GPU KV-cache usage. 1 means 100 percent usage."
        "DEPRECATED: Use vllm:kv_cache_usage_perc instead.",
        "cache_config_info": "Information of the LLMEngine CacheConfig",
        "lora_requests_info": "Running stats on lora requests.",
        # counters
        "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
        "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
        "gpu_prefix_cache_queries": "GPU prefix cache queries, in terms of number of queried tokens."
        "DEPRECATED: Use vllm:prefix_cache_queries instead.",
        "gpu_prefix_cache_hits": "GPU prefix cache hits, in terms of number of cached tokens."
        "DEPRECATED: Use vllm:prefix_cache_hits instead.",
        "external_prefix_cache_queries": "External prefix cache queries from KV connector cross-instance "
        "cache sharing, in terms of number of queried tokens.",
        "external_prefix_cache_hits": "External prefix cache hits from KV connector cross-instance cache "
        "sharing, in terms of number of cached tokens.",
        "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
        "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
        "num_preemptions": "Cumulative number of preemption from the engine.",
        "prompt_tokens": "Number of prefill tokens processed.",
        "prompt_tokens_by_source": "Number of prompt tokens by source.",
        "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
        "generation_tokens": "Number of generation tokens processed.",
        "request_success": "Count of successfully processed requests.",
        "admission_rejections": "Number of admission attempts rejected by a queue limit, by reason.",
        # histograms
        "request_queue_time_seconds": "Histogram of time spent in WAITING phase for request.",
        "request_prefill_time_seconds": "Histogram of time spent in PREFILL phase for request.",
        "request_decode_time_seconds": "Histogram of time spent in DECODE phase for request.",
        "request_inference_time_seconds": "Histogram of time spent in RUNNING phase for request.",
        "e2e_request_latency_seconds": "Histogram of e2e request latency in seconds.",
        "time_to_first_token_seconds": "Histogram of time to first token in seconds.",
        "inter_token_latency_seconds": "Histogram of inter-token latency in seconds.",
        "request_time_per_output_token_seconds": "Histogram of time_per_output_token_seconds per request.",
        "iteration_tokens_total": "Histogram of number of tokens per engine_step.",
        "request_prompt_tokens": "Number of prefill tokens processed.",
        "request_generation_tokens": "Number of generation tokens processed.",
        "request_params_max_tokens": "Histogram of the max_tokens request parameter.",
        "request_num_preemptions": "Histogram of the number of times a request was preempted.",
        "request_prefill_kv_computed_tokens": "Histogram of new KV tokens computed during prefill (excluding "
        "cached tokens).",
    }
)
"""By name, without the `vllm:` in front and without the `_total` of counters."""
