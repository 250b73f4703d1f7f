"""The bytes of TGI's own dialect: `generate`, `generate_stream` and the tokenizer routes.

Pure formatting, as in `tgi_wire`.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

FinishReason = Literal["eos_token", "length", "stop_sequence"]


class Token(Struct, frozen=True):
    """One generated token in `generate` answers."""

    id: int
    text: str
    logprob: float
    special: bool = False


class StreamDetails(Struct, frozen=True):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamToken(Struct, frozen=True):
    """One event of `generate_stream`; `index` counts from 1."""

    index: int
    token: Token
    generated_text: str | None = None
    details: StreamDetails | None = None


class PrefillToken(Struct, frozen=True):
    id: int
    text: str
    logprob: float


class BestOf(Struct, frozen=True):
    """One of the texts that were not chosen."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: tuple[PrefillToken, ...]
    tokens: tuple[Token, ...]


class Details(Struct, frozen=True):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: tuple[PrefillToken, ...]
    tokens: tuple[Token, ...]
    best_of_sequences: tuple[BestOf, ...] | UnsetType = UNSET


class Generated(Struct, frozen=True):
    generated_text: str
    details: Details | UnsetType = UNSET


class SimpleToken(Struct, frozen=True):
    """One token of `/tokenize`; `start` and `stop` are byte offsets in the input."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokens(Struct, frozen=True):
    tokenize_response: tuple[SimpleToken, ...]
    templated_text: str
