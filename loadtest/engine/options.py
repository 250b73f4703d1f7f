"""Every knob of a simulated engine that all dialects share; a dialect's own knobs travel in `extra`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import msgspec

from loadtest.engine.latency import LatencyModel

Extra = TypeVar("Extra", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """One simulated replica. Defaults: an 8B model on one H100-class GPU, as vLLM would configure it."""

    dialect: str = "vllm"
    """Wire dialect: vllm, tgi, trtllm or triton."""
    model: str = "demo-8b"
    """Model name on the wire."""
    aliases: tuple[str, ...] = ()
    """Further served names of the same model."""
    loras: tuple[str, ...] = ()
    """LoRA adapters loaded at start."""
    max_model_len: int = 8192
    """Longest prompt plus output, tokens."""
    seed: int = 0
    """Stands for the weights: replicas with equal seeds answer equally, a new version takes another seed."""
    latency: LatencyModel = field(default_factory=LatencyModel)
    """What a step costs."""
    speed: float = 1.0
    """Divides every step time; raise it to make tests quick."""
    max_num_seqs: int = 256
    """Largest running batch, requests."""
    max_num_batched_tokens: int = 8192
    """Token budget of one step, tokens; a longer prefill is done in chunks."""
    num_blocks: int = 26_250
    """KV cache size, blocks (420,000 tokens of 16)."""
    block_size: int = 16
    """Tokens per KV block."""
    prefix_caching: bool = True
    """Whether full blocks are shared between requests."""
    reuse: Literal["as_filled", "prompt_on_finish"] = "as_filled"
    """When a block becomes reusable: once filled (vLLM, TensorRT-LLM), or prompt blocks at the end (TGI)."""
    reserve_output: bool = False
    """Whether admission reserves room for the longest output, so that nothing is ever preempted (TGI)."""
    scheduling: Literal["fcfs", "priority"] = "fcfs"
    """Order of the waiting queue."""
    stream_interval: int = 1
    """Tokens per output after the first one."""
    api_key: str | None = None
    """Key that guarded paths require."""
    extra: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The dialect's own knobs, by name; see the options struct in the dialect's file."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """Served names, the main one first."""
        return (self.model, *self.aliases)

    def extra_as(self, kind: type[Extra]) -> Extra:
        """Decode `extra` into a dialect's options; raises `msgspec.ValidationError` on a bad value."""
        return msgspec.convert(dict(self.extra), kind, strict=False)
