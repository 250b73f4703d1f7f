"""vLLM's `/metrics`: names, labels and habits of v0.27, the older names beside them if asked for.

Histograms of a request's phases are recorded when it finishes, those of tokens when they are sampled.
"""

import time
from collections.abc import Iterable, Sequence

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
    LEGACY_HELP,
    REQUEST_BOUNDS,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsEndpoint:
    """Listens to the engine and answers scrapes."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base
        self._started = float(int(time.time()))
        lengths = one_two_five(base.options.max_model_len)
        self._histograms = {
            "request_queue_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_prefill_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_decode_time_seconds": Buckets(REQUEST_BOUNDS),
            "request_inference_time_seconds": Buckets(REQUEST_BOUNDS),
            "e2e_request_latency_seconds": Buckets(REQUEST_BOUNDS),
            "time_to_first_token_seconds": Buckets(FIRST_TOKEN_BOUNDS),
            "inter_token_latency_seconds": Buckets(INTER_TOKEN_BOUNDS),
            "request_time_per_output_token_seconds": Buckets(INTER_TOKEN_BOUNDS),
            "iteration_tokens_total": Buckets(ITERATION_BOUNDS),
            "request_prompt_tokens": Buckets(lengths),
            "request_generation_tokens": Buckets(lengths),
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
        families = [*self._gauges(stats), *self._counters(stats)]
        families += [
            self._family(name, "histogram", one.histogram()) for name, one in self._histograms.items()
        ]
        families += self._infos(stats)
        return exposition(families, PYTHON)

    @property
    def _labels(self) -> Labels:
        return (("engine", "0"), ("model_name", self._base.options.model))

    def _family(self, name: str, kind: str, value: Value) -> Family:
        return self._labelled(name, kind, [((), value)])

    def _labelled(self, name: str, kind: str, series: Iterable[tuple[Labels, Value]]) -> Family:
        about = HELP.get(name) or LEGACY_HELP.get(name) or name.replace("_", " ")
        return Family(
            f"vllm:{name}", kind, about, tuple(((*self._labels, *labels), value) for labels, value in series)
        )

    def _gauges(self, stats: Stats) -> list[Family]:
        level = self._base.core.sleep_level
        states = {"awake": level == 0, "weights_offloaded": level == 1, "discard_all": level == 2}
        gauges = [
            self._family("num_requests_running", "gauge", stats.running),
            self._family("num_requests_waiting", "gauge", stats.waiting),
        ]
        if self._base.flags.legacy_metrics:
            return [
                *gauges,
                self._family("gpu_cache_usage_perc", "gauge", stats.kv_usage_ratio),
                self._family("kv_cache_usage_perc", "gauge", stats.kv_usage_ratio),
            ]
        reasons: list[tuple[Labels, Value]] = [
            ((("reason", "capacity"),), stats.waiting),
            ((("reason", "deferred"),), 0),
        ]
        asleep: list[tuple[Labels, Value]] = [
            ((("sleep_state", state),), float(holds)) for state, holds in states.items()
        ]
        return [
            *gauges,
            self._labelled("num_requests_waiting_by_reason", "gauge", reasons),
            self._labelled("engine_sleep_state", "gauge", asleep),
            self._family("kv_cache_usage_perc", "gauge", stats.kv_usage_ratio),
        ]

    def _counters(self, stats: Stats) -> list[Family]:
        values = {
            "prefix_cache_queries": stats.prefix_query_tokens,
            "prefix_cache_hits": stats.prefix_hit_tokens,
            "num_preemptions": stats.preemptions,
            "prompt_tokens": stats.prompt_tokens,
            "generation_tokens": stats.generation_tokens,
        }
        if self._base.flags.legacy_metrics:
            values["gpu_prefix_cache_queries"] = stats.prefix_query_tokens
            values["gpu_prefix_cache_hits"] = stats.prefix_hit_tokens
        else:
            values["prompt_tokens_cached"] = stats.prefix_hit_tokens
        families = []
        for name, value in values.items():
            families.append(self._family(f"{name}_total", "counter", value))
            families.append(self._family(f"{name}_created", "gauge", self._started))
        finished: list[tuple[Labels, Value]] = [
            ((("finished_reason", reason),), count) for reason, count in stats.finished.items()
        ]
        finished.append(((("finished_reason", "repetition"),), 0))
        families.append(self._labelled("request_success_total", "counter", finished))
        if not self._base.flags.legacy_metrics:
            families.append(self._by_source(stats))
        return families

    def _by_source(self, stats: Stats) -> Family:
        values = (
            ("local_compute", stats.computed_prompt_tokens),
            ("local_cache_hit", stats.prefix_hit_tokens),
            ("external_kv_transfer", 0),
        )
        series: Sequence[tuple[Labels, Value]] = [((("source", source),), value) for source, value in values]
        return self._labelled("prompt_tokens_by_source_total", "counter", series)

    def _infos(self, stats: Stats) -> list[Family]:
        options = self._base.options
        cache: Labels = (
            ("block_size", str(options.block_size)),
            ("cache_dtype", "auto"),
            ("enable_prefix_caching", str(options.prefix_caching)),
            ("engine", "0"),
            ("gpu_memory_utilization", "0.9"),
            ("num_gpu_blocks", str(stats.blocks_total)),
            ("prefix_caching_hash_algo", "sha256"),
        )
        families = [
            Family("vllm:cache_config_info", "gauge", HELP["cache_config_info"], ((cache, 1.0),)),
        ]
        if self._base.loras:
            families.append(self._lora_info())
        return families

    def _lora_info(self) -> Family:
        scheduler = self._base.core.scheduler
        running = {one.params.lora for one in scheduler.running if one.params.lora}
        waiting = {one.params.lora for one in scheduler.waiting if one.params.lora}
        labels: Labels = (
            ("max_lora", str(self._base.flags.max_loras)),
            ("running_lora_adapters", ",".join(sorted(running))),
            ("waiting_lora_adapters", ",".join(sorted(waiting))),
        )
        return Family(
            "vllm:lora_requests_info", "gauge", HELP["lora_requests_info"], ((labels, time.time()),)
        )
