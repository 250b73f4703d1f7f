"""What a trtllm-serve process keeps about itself: iteration records, perf records, Prometheus values.

Records are taken out by reading. With the Prometheus collector, iteration records are handed over only when a
request completes, and only then are the gauges refreshed.
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import count
from types import MappingProxyType
from typing import Final, Literal

from loadtest.engine.exposition_wire import PYTHON, Labels, Registry, exposition
from loadtest.engine.stats import RequestRecord, Stats, StepRecord
from loadtest.engine.trtllm_metrics_wire import (
    REQUESTS_2025,
    REQUESTS_2026,
    Iteration,
    KvUse,
    PerfRecord,
    RequestPerf,
    Timing,
    gauges,
    iteration,
)

Snapshot = Literal["old", "mid", "new"]
"""Releases that differ on the wire: 1.1 to 1.2 of 2025, early 2026, and mid-2026 on."""
_UNDEFINED: Final[Labels] = (("model_name", "undefined"), ("engine_type", "undefined"))
_MID_GAUGES: Final = ("kv_cache_hit_rate", "kv_cache_utilization")
_CATALOGUES: Final = MappingProxyType(
    {
        "old": REQUESTS_2025,
        "mid": {
            **REQUESTS_2025,
            **{f"trtllm_{name}": REQUESTS_2026[f"trtllm_{name}"] for name in _MID_GAUGES},
        },
        "new": REQUESTS_2026,
    }
)


class Telemetry:
    """Told by the engine, read by the metrics paths."""

    def __init__(
        self,
        snapshot: Snapshot,
        stats: Callable[[], Stats],
        *,
        collector: bool,
        kept: int,
        max_num_tokens: int,
        model: str,
    ) -> None:
        """`kept`: records of either kind at most; `collector`: whether Prometheus is on."""
        common = (("model_name", model), ("engine_type", "pytorch")) if snapshot == "new" else _UNDEFINED
        self._snapshot = snapshot
        self._stats = stats
        self._collector = collector and snapshot != "old"
        self._max_num_tokens = max_num_tokens
        self._registry = Registry(_CATALOGUES[snapshot], common)
        self._prefix = "trtllm_" if snapshot == "new" else ""
        self._held: deque[Iteration] = deque(maxlen=kept)
        self._ready: deque[Iteration] = deque(maxlen=kept)
        self._arrived = asyncio.Event()
        self._perf: deque[PerfRecord] = deque(maxlen=kept)
        self._steps: deque[tuple[float, int]] = deque(maxlen=kept)
        self._numbers = count(1)

    # ---- readings ----

    async def iterations(self, patience_s: float) -> list[Iteration]:
        """All records that are due, gone afterwards; waits so long for the first one."""
        if not self._ready:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), patience_s)
            except TimeoutError:
                return []
        records = list(self._ready)
        self._ready.clear()
        return records

    def perf_records(self) -> list[PerfRecord]:
        """The requests that ended since the last reading."""
        records = list(self._perf)
        self._perf.clear()
        return records

    def prometheus(self) -> bytes:
        return exposition(self._registry.families(), PYTHON)

    # ---- what the engine tells ----

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        """Not kept: all histograms are per request."""

    def step_done(self, step: StepRecord) -> None:
        """One iteration. Requests that completed with it were reported just before."""
        self._steps.append((step.ended_s, step.number))
        record = iteration(step, self._stats(), self._max_num_tokens, datetime.now().astimezone())
        (self._held if self._collector else self._ready).append(record)
        if step.completed and self._collector:
            self._ready.extend(self._held)
            self._held.clear()
            self._refresh(record)
        if self._ready:
            self._arrived.set()

    def _refresh(self, last: Iteration) -> None:
        values = gauges(last)
        for name in values if self._snapshot == "new" else _MID_GAUGES:
            self._registry.set(f"trtllm_{name}", values[name])
        if self._snapshot == "new":
            blocks = last.kv_cache_stats
            self._registry.set("trtllm_kv_cache_reused_blocks_total", blocks.reused_blocks)
            self._registry.set("trtllm_kv_cache_missed_blocks_total", blocks.missed_blocks)

    def request_done(self, request: RequestRecord) -> None:
        """One request that ended. Those that were aborted leave no trace."""
        if request.finish_reason == "error" and self._snapshot == "new":
            self._registry.add("trtllm_request_error_total", http_code="500")
        if request.finish_reason not in ("stop", "length"):
            return
        self._registry.add(f"{self._prefix}request_success_total", finished_reason=request.finish_reason)
        self._observe(request)
        if self._snapshot == "new":
            self._count_tokens(request)
        self._perf.append(PerfRecord(next(self._numbers), self._perf_of(request)))

    def _observe(self, request: RequestRecord) -> None:
        scheduled_s = request.scheduled_s or request.arrived_s
        first_s, last_s = request.first_token_s or scheduled_s, request.last_token_s or scheduled_s
        values = {
            "e2e_request_latency_seconds": last_s - request.arrived_s,
            "time_to_first_token_seconds": first_s - request.arrived_s,
            "request_queue_time_seconds": scheduled_s - request.arrived_s,
        }
        if request.output_tokens > 1:
            values["time_per_output_token_seconds"] = (last_s - first_s) / (request.output_tokens - 1)
        if self._snapshot == "new":
            values["request_prefill_time_seconds"] = first_s - scheduled_s
            values["request_decode_time_seconds"] = last_s - first_s
            values["request_inference_time_seconds"] = last_s - scheduled_s
        for name, value in values.items():
            self._registry.observe(self._prefix + name, value)

    def _count_tokens(self, request: RequestRecord) -> None:
        self._registry.add("trtllm_prompt_tokens_total", request.prompt_tokens)
        self._registry.add("trtllm_prompt_cached_tokens_total", request.cached_tokens)
        self._registry.add("trtllm_generation_tokens_total", request.output_tokens)
        self._registry.add("trtllm_num_requests_completed_total")

    def _perf_of(self, request: RequestRecord) -> RequestPerf:
        block_size = self._stats().block_size
        reused = request.cached_tokens // block_size
        allocated = -(-(request.prompt_tokens + request.output_tokens) // block_size) - reused
        return RequestPerf(
            first_iter=self._step_at(request.first_token_s),
            last_iter=self._step_at(request.last_token_s),
            timing_metrics=Timing(
                server_arrival_time=request.arrived_s,
                arrival_time=request.arrived_s,
                first_scheduled_time=request.scheduled_s,
                first_token_time=request.first_token_s,
                server_first_token_time=request.first_token_s,
                last_token_time=request.last_token_s,
            ),
            kv_cache_metrics=KvUse(
                allocated, allocated, reused, request.prompt_tokens // block_size - reused
            ),
        )

    def _step_at(self, when_s: float | None) -> int:
        """The iteration that ended at a time; the one under way is not known yet, hence one past the last."""
        at = bisect_left(self._steps, (when_s or 0.0, 0))
        return self._steps[at][1] if at < len(self._steps) else (self._steps[-1][1] + 1 if self._steps else 1)
