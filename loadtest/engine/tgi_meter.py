"""What TGI's router and batcher count. A family exists once something was recorded in it, gauges included."""

import time
from collections.abc import Mapping
from itertools import accumulate, repeat
from types import MappingProxyType
from typing import Final

from loadtest.engine.core import Generation
from loadtest.engine.exposition_wire import RUST, Family, Metric, Registry, Summary, exposition
from loadtest.engine.stats import RequestRecord, Stats, StepRecord
from loadtest.engine.tgi_validation import Failure

_QUANTILES: Final = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
_SECONDS: Final = tuple(accumulate(repeat(1.5, 35), lambda bound, ratio: bound * ratio, initial=0.0001))[1:]
"""35 bounds from 0.00015 s, each half as much again."""
_DURATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tgi_request_duration": "Request duration",
        "tgi_request_validation_duration": "Request validation duration",
        "tgi_request_queue_duration": "Request queue duration",
        "tgi_request_inference_duration": "Request inference duration",
        "tgi_request_mean_time_per_token_duration": "Mean time per token per request",
        "tgi_batch_inference_duration": "Batch inference duration",
        "tgi_batch_forward_duration": "Batch forward duration per method (prefill or decode)",
    }
)


def catalogue(max_input_tokens: int, max_total_tokens: int) -> Mapping[str, Metric]:
    """Every family. Token histograms have 100 equal buckets up to the server's limits."""

    def equal(limit: int) -> tuple[float, ...]:
        return tuple(limit / 100 * (index + 1) for index in range(100))

    return {
        "tgi_queue_size": Metric("gauge", "Current queue size"),
        "tgi_batch_current_size": Metric("gauge", "Current batch size"),
        "tgi_batch_current_max_tokens": Metric("gauge", "Maximum tokens for the current batch"),
        "tgi_request_count": Metric("counter", "Total number of requests"),
        "tgi_request_success": Metric("counter", "Number of successful requests"),
        "tgi_request_failure": Metric("counter"),
        "tgi_batch_inference_count": Metric("counter", "Inference calls per method (prefill or decode)"),
        "tgi_batch_inference_success": Metric(
            "counter", "Number of successful inference calls per method (prefill or decode)"
        ),
        **{name: Metric("histogram", about, _SECONDS) for name, about in _DURATIONS.items()},
        "tgi_request_generated_tokens": Metric(
            "histogram", "Generated tokens per request", equal(max_total_tokens)
        ),
        "tgi_request_input_length": Metric(
            "histogram", "Input token length per request", equal(max_input_tokens)
        ),
        "tgi_request_max_new_tokens": Metric(
            "histogram", "Maximum new tokens per request", equal(max_total_tokens)
        ),
        "tgi_batch_next_size": Metric("histogram", "Batch size of the next batch", tuple(range(1, 1025))),
    }


class Meter:
    """Told by the handlers and by the engine."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int) -> None:
        self._registry = Registry(catalogue(max_input_tokens, max_total_tokens))
        self._tokens = 0
        self.suspicious = False
        """Whether a generation has failed since the engine was last seen to work."""

    # ---- the handlers' side ----

    def counted(self) -> None:
        """A request came; chat and completions count once more when they reach the engine's door."""
        self._registry.add("tgi_request_count")

    def failed(self, failure: Failure) -> None:
        """A request got no answer."""
        if failure.counted is not None:
            self._registry.add("tgi_request_failure", err=failure.counted)

    def accepted(self, prompt_tokens: int, max_new_tokens: int) -> None:
        """A request passed validation."""
        self._registry.observe("tgi_request_input_length", prompt_tokens)
        self._registry.observe("tgi_request_max_new_tokens", max_new_tokens)
        self._registry.set("tgi_queue_size", 0)

    def succeeded(self, generation: Generation, started_s: float) -> None:
        """A request was answered; everything about its time is recorded only now."""
        now = time.monotonic()
        scheduled_s = generation.scheduled_s or generation.arrived_s
        values = {
            "tgi_request_duration": now - started_s,
            "tgi_request_validation_duration": generation.arrived_s - started_s,
            "tgi_request_queue_duration": scheduled_s - generation.arrived_s,
            "tgi_request_inference_duration": now - scheduled_s,
            "tgi_request_mean_time_per_token_duration": (now - scheduled_s)
            / max(1, generation.output_tokens),
            "tgi_request_generated_tokens": generation.output_tokens,
        }
        self._registry.add("tgi_request_success")
        for name, value in values.items():
            self._registry.observe(name, value)

    # ---- the engine's side ----

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        """TGI has no such histograms; it counts one speculated-token sample for each token."""
        self._tokens += len(first_s) + len(gaps_s)

    def step_done(self, step: StepRecord) -> None:
        """A step is a prefill call, a decode call, or both."""
        if step.new_active:
            self._registry.observe("tgi_batch_next_size", step.new_active)
        for method, busy in (("prefill", step.context_requests), ("decode", step.generation_requests)):
            if busy:
                self._registry.add("tgi_batch_inference_count", method=method)
                self._registry.add("tgi_batch_inference_success", method=method)
                self._registry.observe("tgi_batch_inference_duration", step.latency_s, method=method)
                self._registry.observe("tgi_batch_forward_duration", step.latency_s, method=method)

    def request_done(self, request: RequestRecord) -> None:
        """Only what the handlers cannot see: who left, and what the model did wrong."""
        self.suspicious = self.suspicious or request.finish_reason == "error"
        reasons = {"abort": "dropped", "error": "generation"}
        if request.finish_reason in reasons:
            self._registry.add("tgi_request_failure", err=reasons[request.finish_reason])

    # ---- the scrape ----

    def scrape(self, stats: Stats) -> bytes:
        """The text of `/metrics`; almost nothing before the first request."""
        if stats.steps:
            self._registry.set("tgi_queue_size", stats.waiting)
            self._registry.set("tgi_batch_current_size", stats.running)
            self._registry.set("tgi_batch_current_max_tokens", stats.running_max_tokens)
        return exposition((*self._registry.families(), *self._skipped()), RUST)

    def _skipped(self) -> tuple[Family, ...]:
        """A summary of zeros, as speculation is off."""
        if not self._tokens:
            return ()
        zeros = Summary(tuple((quantile, 0.0) for quantile in _QUANTILES), 0.0, self._tokens)
        name = "tgi_request_skipped_tokens"
        return (Family(name, "summary", "Speculated tokens per request", (((), zeros),)),)
