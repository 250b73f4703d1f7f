"""What a Triton server counts about itself, between one scrape and the next."""

import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from loadtest.engine.stats import RequestRecord, Stats, StepRecord
from loadtest.engine.triton_metrics_wire import Reading
from loadtest.engine.triton_wire import AllStats, InferenceStats, ModelStats, Times

_FAILURES: Final = MappingProxyType({"abort": "CANCELED", "error": "BACKEND"})
"""Triton's word for why a request gave no answer."""


@dataclass(slots=True)
class Meter:
    """Adds up what Triton counts itself: told by the engine, read by each scrape."""

    queue_us: int
    """What every request spends in Triton's own queue."""
    interval_s: float
    """Seconds over which the GPU's utilisation is averaged."""
    success: int = 0
    last_inference_ms: int = 0
    """Milliseconds since the epoch."""
    duration_us: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    last_step: StepRecord | None = None
    _busy: tuple[float, float] = (0.0, 0.0)
    _utilisation: float = 0.0

    def step_done(self, step: StepRecord) -> None:
        self.last_step = step

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        """Not kept: Triton's first-response histogram is off unless asked for."""

    def request_done(self, request: RequestRecord) -> None:
        """A request that ended, one way or another."""
        if request.finish_reason in _FAILURES:
            self.failed(_FAILURES[request.finish_reason])
            return
        self.success += 1
        self.last_inference_ms = int(time.time() * 1000)
        self.duration_us += int((request.ended_s - request.arrived_s) * 1e6) + self.queue_us

    def failed(self, reason: str) -> None:
        """Count a failure by Triton's word for it."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def statistics(self, model: str) -> AllStats:
        """What `/stats` answers."""
        failed = sum(self.failures.values())
        queue = Times(self.success + failed, self.queue_us * 1000 * (self.success + failed))
        infer = Times(self.success, max(0, self.duration_us * 1000 - self.queue_us * 1000 * self.success))
        stats = InferenceStats(
            success=Times(self.success, self.duration_us * 1000),
            fail=Times(failed, 0),
            queue=queue,
            compute_input=Times(self.success, 0),
            compute_infer=infer,
            compute_output=Times(self.success, 0),
        )
        return AllStats(
            (ModelStats(model, "1", self.last_inference_ms, self.success, self.success, stats, {}, ()),)
        )

    def utilisation(self, busy_s: float, now_s: float) -> float:
        """Busy seconds over seconds since the last reading, 0 to 1; read again only after the interval."""
        before_s, before_busy_s = self._busy
        if now_s - before_s >= self.interval_s:
            share = (busy_s - before_busy_s) / (now_s - before_s) if before_s else 0.0
            self._utilisation = min(1.0, max(0.0, share))
            self._busy = now_s, busy_s
        return self._utilisation

    def reading(self, model: str, stats: Stats, now_s: float, epoch_s: int) -> Reading:
        """What a scrape shows now. `now_s` is monotonic seconds."""
        step = self.last_step if stats.running else None
        return Reading(
            model=model,
            success=self.success,
            failures=self.failures,
            pending=0,
            request_duration_us=self.duration_us,
            queue_duration_us=self.queue_us * (self.success + sum(self.failures.values())),
            gpu_utilisation=self.utilisation(stats.busy_s, now_s),
            stats=stats,
            context_requests=step.context_requests if step else 0,
            context_tokens=step.context_tokens if step else 0,
            generation_requests=step.generation_requests if step else 0,
            epoch_s=epoch_s,
        )
