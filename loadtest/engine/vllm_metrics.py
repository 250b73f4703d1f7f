"""vLLM's `/metrics`: names, labels and habits of the real one, older names beside them if asked for.

Histograms of a request's phases are recorded when it finishes, those of tokens when they are sampled.
"""

import time
from collections.abc import Iterator, Mapping

from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.exposition_wire import PYTHON, Family, Labels, Value, exposition
from loadtest.engine.histograms import Buckets, one_two_five
from loadtest.engine.stats import RequestRecord, Stats, StepRecord
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_metric_names import (
    FIRST_TOKEN_BOUNDS,
    HELP,
    INTER_TOKEN_BOUNDS,
    ITERATION_BOUNDS,
    PREEMPTION_BOUNDS,
    REQUEST_BOUNDS,
)

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
Series = tuple[tuple[Labels, Value], ...]


class MetricsEndpoint:
    """Listens to the engine and answers scrapes."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base
        self._started = time.time()
        lengths = one_two_five(base.options.max_model_len)
        self._histograms = {
            "request_prompt_tokens": Buckets(lengths),
            "request_generation_tokens": Buckets(lengths),
            "iteration_tokens_total": Buckets(ITERATION_BOUNDS),
            "request_params_max_tokens": Buckets(lengths),
            "time_to_first_token_seconds": Buckets(FIRST_TOKEN_BOUNDS),
            "inter_token_latency_seconds": Buckets(INTER_TOKEN_BOUNDS),
            "request_time_per_output_token_seconds": Buckets(INTER_TOKEN_BOUNDS),
            "e2e_request_latency_seconds": Buckets(REQUEST_BOUNDS),
            "request_queue_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_inference_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_prefill_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_decode_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_num_preemptions": Buckets(PREEMPTION_BOUNDS),
            "request_prefill_kv_computed_tokens": Buckets(lengths),
        }
        base.core.listeners.append(self)

    # ---- what the engine tells ----

    def step_done(self, step: StepRecord) -> None:
        self._histograms["iteration_tokens_total"].add(step.context_tokens + step.new_tokens)

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        self._histograms["time_to_first_token_seconds"].add_all(first_s)
        self._histograms["inter_token_latency_seconds"].add_all(gaps_s)

    def request_done(self, request: RequestRecord) -> None:
        if request.scheduled_s is None or request.first_token_s is None or request.last_token_s is None:
            return
        decode_s = request.last_token_s - request.first_token_s
        values = {
            "request_queue_time_seconds": request.scheduled_s - request.arrived_s,
            "request_prefill_time_seconds": request.first_token_s - request.scheduled_s,
            "request_decode_time_seconds": decode_s,
            "request_inference_time_seconds": request.last_token_s - request.scheduled_s,
            "e2e_request_latency_seconds": request.ended_s - request.arrived_s,
            "request_prompt_tokens": request.prompt_tokens,
            "request_generation_tokens": request.output_tokens,
            "request_params_max_tokens": request.max_tokens,
            "request_num_preemptions": request.preemptions,
            "request_prefill_kv_computed_tokens": request.prompt_tokens - request.cached_tokens,
        }
        if request.output_tokens > 1:
            values["request_time_per_output_token_seconds"] = decode_s / (request.output_tokens - 1)
        for name, value in values.items():
            self._histograms[name].add(value)

    # ---- what scrapers read ----

    async def handle(self, _: Request) -> Reply:
        return Response(200, self.text(), CONTENT_TYPE)

    def text(self) -> bytes:
        """The exposition."""
        stats = self._base.core.stats()
        families: list[Family] = []
        for name, series in self._gauges(stats):
            families.append(Family(f"vllm:{name}", "gauge", HELP[name], series))
        for name, series in self._counters(stats):
            families += self._with_created(name, "counter", f"{name}_total", series)
        for name, buckets in self._histograms.items():
            series = ((self._labels, buckets.histogram()),)
            families += self._with_created(name, "histogram", name, series)
        families += [self._cache_info(stats), *self._lora_info()]
        return exposition(families, PYTHON)

    @property
    def _labels(self) -> Labels:
        return (("engine", "0"), ("model_name", self._base.options.model))

    def _with_created(self, name: str, kind: str, shown: str, series: Series) -> tuple[Family, Family]:
        """A family, and the gauge with its creation time that `prometheus_client` puts beside it."""
        created = tuple((labels, self._started) for labels, _ in series)
        return (
            Family(f"vllm:{shown}", kind, HELP[name], series),
            Family(f"vllm:{name}_created", "gauge", HELP[name], created),
        )

    def _one(self, value: Value) -> Series:
        return ((self._labels, value),)

    def _by(self, label: str, values: Mapping[str, float]) -> Series:
        return tuple(((*self._labels, (label, key)), value) for key, value in values.items())

    def _gauges(self, stats: Stats) -> Iterator[tuple[str, Series]]:
        yield "num_requests_running", self._one(stats.running)
        yield "num_requests_waiting", self._one(stats.waiting)
        if self._base.flags.legacy_metrics:
            yield "gpu_cache_usage_perc", self._one(stats.kv_usage_ratio)
        else:
            level = self._base.core.sleep_level
            states = {"awake": level == 0, "weights_offloaded": level == 1, "discard_all": level == 2}
            waiting = {"capacity": stats.waiting, "deferred": 0}
            yield "num_requests_waiting_by_reason", self._by("reason", waiting)
            yield (
                "engine_sleep_state",
                self._by("sleep_state", {key: float(on) for key, on in states.items()}),
            )
        yield "kv_cache_usage_perc", self._one(stats.kv_usage_ratio)

    def _counters(self, stats: Stats) -> Iterator[tuple[str, Series]]:
        legacy = self._base.flags.legacy_metrics
        finished: dict[str, float] = dict(stats.finished.items())
        for prefix in ("gpu_", "") if legacy else ("",):
            yield f"{prefix}prefix_cache_queries", self._one(stats.prefix_query_tokens)
            yield f"{prefix}prefix_cache_hits", self._one(stats.prefix_hit_tokens)
        yield "num_preemptions", self._one(stats.preemptions)
        yield "prompt_tokens", self._one(stats.prompt_tokens)
        yield "generation_tokens", self._one(stats.generation_tokens)
        yield "request_success", self._by("finished_reason", {**finished, "repetition": 0})
        if not legacy:
            yield from self._recent_counters(stats)

    def _recent_counters(self, stats: Stats) -> Iterator[tuple[str, Series]]:
        sources = {
            "local_compute": stats.computed_prompt_tokens,
            "local_cache_hit": stats.prefix_hit_tokens,
            "external_kv_transfer": 0,
        }
        yield "prompt_tokens_by_source", self._by("source", sources)
        yield "prompt_tokens_cached", self._one(stats.prefix_hit_tokens)
        for cache in ("external_prefix_cache", "mm_cache"):
            yield f"{cache}_queries", self._one(0)
            yield f"{cache}_hits", self._one(0)
        name = ("model_name", self._base.options.model)
        reasons = {"max_num_queued_reqs": self._base.rejected, "max_num_queued_tokens": 0}
        yield (
            "admission_rejections",
            tuple(((name, ("reason", key)), count) for key, count in reasons.items()),
        )

    def _cache_info(self, stats: Stats) -> Family:
        options = self._base.options
        tokens = stats.blocks_total * stats.block_size
        labels = {
            "block_size": str(stats.block_size),
            "cache_dtype": self._base.flags.kv_cache_dtype,
            "enable_prefix_caching": str(options.prefix_caching),
            "engine": "0",
            "gpu_memory_utilization": "0.9",
            "kv_cache_max_concurrency": str(tokens / options.max_model_len),
            "kv_cache_size_tokens": str(tokens),
            "num_cpu_blocks": "None",
            "num_gpu_blocks": str(stats.blocks_total),
            "num_gpu_blocks_override": "None",
            "prefix_caching_hash_algo": "sha256",
            "sliding_window": "None",
        }
        return Family(
            "vllm:cache_config_info", "gauge", HELP["cache_config_info"], ((tuple(labels.items()), 1.0),)
        )

    def _lora_info(self) -> Iterator[Family]:
        """Only where adapters are loaded; the value is the time."""
        if not self._base.loras:
            return
        scheduler = self._base.core.scheduler
        running = {one.params.lora for one in scheduler.running if one.params.lora}
        waiting = {one.params.lora for one in scheduler.waiting if one.params.lora}
        labels: Labels = (
            ("max_lora", str(self._base.flags.max_loras)),
            ("running_lora_adapters", ",".join(sorted(running))),
            ("waiting_lora_adapters", ",".join(sorted(waiting))),
        )
        yield Family("vllm:lora_requests_info", "gauge", HELP["lora_requests_info"], ((labels, time.time()),))
