"""What a caller asks of the engine and what the engine gives back, token by token."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One choice's generation parameters, in tokens."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    """Whether a matched stop string stays in the text."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """Alternatives per token to report; 0 reports the sampled token alone, None reports nothing."""
    priority: int = 0
    """Lower runs earlier, when the engine schedules by priority."""
    choice: int = 0
    """Index among the `n` choices of a request; sampled choices differ, greedy ones do not."""
    forced_ids: tuple[int, ...] | None = None
    """An output to give instead of the chain, as guided decoding does for tools and schemas."""
    lora: str | None = None
    cache_salt: str | None = None
    stream_interval: int | None = None
    """Tokens per output after the first one, if other than the engine's own."""
    use_prefix_cache: bool = True
    """False where an engine must see the logits of the whole prompt, such as for prompt logprobs."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The sampled token's natural-log probability, and the best alternatives, most likely first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One step of one generation. An end token, an incomplete character, a held-back stop leave no text."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or stop token id that ended it; None for the natural end and for the limit."""
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Everything one generation gave."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    stop_reason: str | int | None
    logprobs: tuple[TokenLogprob, ...] | None
