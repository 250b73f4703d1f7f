"""What an engine reports about itself: a snapshot of it all, a record per step, a record per request."""

from dataclasses import dataclass
from typing import Protocol

from loadtest.engine.sampling import FinishReason


@dataclass(frozen=True, slots=True)
class Stats:
    """Gauges now and counters since start."""

    running: int
    """Requests in the running batch."""
    waiting: int
    """Requests queued, preempted ones included."""
    running_max_tokens: int
    """Sum over running requests of prompt plus longest output (TGI's batch budget)."""
    max_num_seqs: int
    blocks_total: int
    blocks_used: int
    """Blocks that running requests hold; cached free blocks do not count."""
    block_size: int
    blocks_reused: int
    """Counter: prompt blocks found in the prefix cache."""
    blocks_missed: int
    """Counter: full prompt blocks that had to be computed."""
    blocks_allocated: int
    """Counter: blocks taken from the free list."""
    prefix_query_tokens: int
    """Counter: prompt tokens looked up, new requests only."""
    prefix_hit_tokens: int
    prompt_tokens: int
    """Counter: prompt tokens of requests whose prefill completed, cached ones included."""
    computed_prompt_tokens: int
    """Counter: prompt tokens that were computed."""
    generation_tokens: int
    preemptions: int
    steps: int
    """Counter: the heartbeat."""
    finished: dict[FinishReason, int]
    """Counter by finish reason."""
    busy_s: float
    """Counter: seconds spent in steps, as if the GPU worked all through each."""

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV blocks held by running requests, 0 to 1."""
        return self.blocks_used / self.blocks_total


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One iteration. Times are monotonic seconds."""

    number: int
    ended_s: float
    latency_s: float
    context_requests: int
    """Requests with prompt tokens in the step."""
    context_tokens: int
    """Prompt tokens computed in the step."""
    generation_requests: int
    """Requests that decoded in the step."""
    new_tokens: int
    """Tokens sampled in the step."""
    new_active: int
    """Requests admitted for the step."""
    new_active_queue_s: float
    """Sum of the queueing times of those."""
    paused: int
    """Requests preempted for the step."""
    completed: int
    """Requests that ended with the step."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One ended request. Times are monotonic seconds; None where the request never got so far."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    max_tokens: int
    finish_reason: FinishReason
    arrived_s: float
    scheduled_s: float | None
    first_token_s: float | None
    last_token_s: float | None
    ended_s: float
    preemptions: int = 0


class EngineListener(Protocol):
    """Told what happened, after it happened; metrics are kept by listeners, not by the engine."""

    def step_done(self, step: StepRecord) -> None: ...

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        """Per step: times to first token and gaps between tokens, in seconds."""

    def request_done(self, request: RequestRecord) -> None: ...
