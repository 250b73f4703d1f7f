"""What one iteration of the scheduler is, and what has been counted over all of them."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from loadtest.engine.latency import StepLoad
from loadtest.engine.sampling import FinishReason
from loadtest.engine.work import Work

W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True)
class Step(Generic[W]):
    """One iteration as decided: which sequences compute how many tokens."""

    chunks: tuple[tuple[W, int], ...]
    load: StepLoad
    context_requests: int
    admitted: int
    admitted_queue_s: float
    preempted: int


@dataclass(slots=True)
class Counters:
    """Monotonic counts since start; tokens unless the name says otherwise."""

    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    generation_tokens: int = 0
    blocks_reused: int = 0
    blocks_missed: int = 0
    preemptions: int = 0
    steps: int = 0
    finished: dict[FinishReason, int] = field(
        default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0}
    )


def load_of(chunks: list[tuple[W, int]], loaded_tokens: int) -> tuple[StepLoad, int]:
    """The work in a batch, and how many of its sequences prefill."""
    prefill = pairs = decodes = context = context_requests = 0
    for sequence, count in chunks:
        length = sequence.computed + count
        if count == 1 and sequence.computed >= sequence.prompt_tokens:
            decodes += 1
            context += length
        else:
            context_requests += 1
            prefill += count
            pairs += count * (sequence.computed + length + 1) // 2
    return StepLoad(prefill, pairs, decodes, context, loaded_tokens), context_requests
