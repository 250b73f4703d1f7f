"""What a Triton text model answers: one response as JSON, whole or piece by piece.

The ensemble streams deltas among many other tensors, llmapi the text so far among those that were asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtest.engine.generation import Generation
from loadtest.engine.sampling import FinishReason, Output
from loadtest.engine.triton_request_wire import GenerateRequest
from loadtest.engine.triton_wire import (
    ENSEMBLE_EXTRAS,
    Layout,
    Outputs,
    answer,
    error,
    event,
    generation_failed,
)


@dataclass(frozen=True, slots=True)
class Model:
    """The text model that is served."""

    name: str
    layout: Layout
    cumulative: bool
    """Whether an event repeats the text so far."""
    block_size: int


def finish_word(reason: FinishReason | None) -> str:
    """`str()` of what Python holds: "None" until the end."""
    return "cancelled" if reason == "abort" else str(reason)


def response(
    model: Model, request: GenerateRequest, generation: Generation, text: str, last: Output
) -> bytes:
    """One response. `last` is the output that it ends with; only the very last has performance numbers."""
    outputs: dict[str, str | int | float | bool | tuple[float, ...]] = {"text_output": text}
    if model.layout == "ensemble":
        outputs |= ENSEMBLE_EXTRAS
    if request.finish_reason:
        outputs["finish_reason"] = finish_word(last.finish_reason)
    if request.stop_reason:
        outputs["stop_reason"] = str(last.stop_reason)
    if request.perf and last.finish_reason is not None:
        outputs |= performance(generation, model.block_size)
    return answer(model.name, outputs, request.request_id)


def performance(generation: Generation, block_size: int) -> Outputs:
    """The outputs of `return_perf_metrics`: blocks, and steady-clock nanoseconds."""
    reused = generation.cached_tokens // block_size
    looked_up = generation.prompt_tokens // block_size
    allocated = -(-(generation.prompt_tokens + generation.output_tokens) // block_size) - reused
    times = {
        "arrival": generation.arrived_s,
        "first_scheduled": generation.scheduled_s,
        "first_token": generation.first_token_s,
        "last_token": generation.last_token_s,
    }
    return {
        "kv_cache_reused_block": reused,
        "kv_cache_missed_block": looked_up - reused,
        "kv_cache_alloc_new_blocks": allocated,
        "kv_cache_alloc_total_blocks": allocated,
        "kv_cache_hit_rate": reused / max(1, looked_up),
        **{f"{name}_time_ns": int((seconds or 0.0) * 1e9) for name, seconds in times.items()},
    }


@dataclass(slots=True)
class Events:
    """The stream of one generation."""

    model: Model
    request: GenerateRequest
    generation: Generation
    prefix: str
    """The echoed prompt, if it was not excluded."""
    _text: str = field(default="", init=False)

    def output(self, _: int, output: Output) -> Sequence[bytes]:
        """A model that does not stream answers once, at its end."""
        first = not self._text
        self._text += output.text
        if not self.request.streaming and output.finish_reason is None:
            return ()
        if self.model.cumulative or not self.request.streaming:
            text = self.prefix + self._text
        else:
            text = (self.prefix if first else "") + output.text
        return (event(response(self.model, self.request, self.generation, text, output)),)

    def end(self) -> Sequence[bytes]:
        """No `[DONE]`: the body just ends."""
        return ()

    def error(self, message: str) -> Sequence[bytes]:
        return (event(error(generation_failed(message))),)
