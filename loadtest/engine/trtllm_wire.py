"""trtllm-serve's bytes: frames, answers, errors, the trailer after `[DONE]`.

Chat chunks leave out what is null; completions chunks and whole answers write every null.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

VERSIONS: Final[Mapping[str, str]] = MappingProxyType({"old": "1.1.0", "mid": "1.3.0rc2", "new": "1.4.0rc1"})
"""A plausible version for each snapshot."""
DONE = b"data: [DONE]\n\n"
EXPOSITION_TEXT = "text/plain; version=0.0.4; charset=utf-8"
NO_CHAT_TEMPLATE = (
    "chat_template cannot be supplied per request unless request-level chat templates are enabled "
    "at server startup."
)
EVENT_STREAM = "text/event-stream; charset=utf-8"
UNAVAILABLE = "LLM is unavailable. Please check the server logs for more details."


class CachedTokens(Struct, frozen=True):
    cached_tokens: int


class Usage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: CachedTokens


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    """Cached tokens are always reported."""
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens, total, completion_tokens, CachedTokens(cached_tokens))


class Function(Struct, frozen=True):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class DeltaToolCall(Struct, frozen=True, kw_only=True):
    id: str | UnsetType = UNSET
    type: str = "function"
    index: int
    function: Function


class Delta(Struct, frozen=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: tuple[DeltaToolCall, ...] | UnsetType = UNSET


class Logprob(Struct, frozen=True):
    """`top_logprobs` is missing in chunks and null in whole answers unless alternatives were asked for."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple["Logprob", ...] | UnsetType | None = UNSET


class Logprobs(Struct, frozen=True):
    """Of a chat answer."""

    content: tuple[Logprob, ...]


class TextLogprobs(Struct, frozen=True):
    """Of a completion: four lists of equal length. Offsets are characters."""

    text_offset: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    tokens: tuple[str, ...]
    top_logprobs: tuple[dict[str, float], ...]


class ChunkChoice(Struct, frozen=True):
    index: int
    delta: Delta
    logprobs: Logprobs | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    stop_reason: str | int | UnsetType = UNSET


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One event of a chat stream; `choices` is empty in the usage event."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | UnsetType = UNSET


class CalledFunction(Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(Struct, frozen=True):
    id: str
    type: str
    function: CalledFunction


class Message(Struct, frozen=True):
    role: str
    content: str | None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class ChatChoice(Struct, frozen=True):
    index: int
    message: Message
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    mm_embedding_handle: None = None
    disaggregated_params: None = None
    avg_decoded_tokens_per_iter: float | None = None


class ChatAnswer(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
    prompt_token_ids: None = None


class TextChunkChoice(Struct, frozen=True):
    index: int
    text: str
    token_ids: tuple[int, ...] | None = None
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    disaggregated_params: None = None
    avg_decoded_tokens_per_iter: float | None = None


class TextChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: tuple[TextChunkChoice, ...] = ()
    usage: Usage | None = None


class TextChoice(Struct, frozen=True):
    index: int
    text: str
    token_ids: tuple[int, ...] | None = None
    logprobs: TextLogprobs | None = None
    context_logits: None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    disaggregated_params: None = None
    avg_decoded_tokens_per_iter: float | None = None


class TextAnswer(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: Usage
    prompt_token_ids: None = None


class ModelCard(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "tensorrt_llm"


class Models(Struct, frozen=True):
    object: str
    data: tuple[ModelCard, ...]


def models(model_id: str, created: int) -> Models:
    """`GET /v1/models`."""
    return Models("list", (ModelCard(id=model_id, created=created),))


class Version(Struct, frozen=True):
    version: str


class Tokens(Struct, frozen=True):
    """The answer of `/_internal/tokenize`."""

    count: int
    tokens: tuple[int, ...]


class TokenizeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /_internal/tokenize`."""

    prompt: str
    model: str | None = None


class ServerInfo(Struct, frozen=True):
    """`GET /server_info`."""

    disaggregated_params: dict[str, Any]
    tokens_per_block: int
    kv_cache_hash_algo: str


class FlatError(Struct, frozen=True, kw_only=True):
    """What the handlers answer, a prompt that is too long included."""

    object: str = "error"
    message: str
    type: str = "BadRequestError"
    param: None = None
    code: int = 400


class StringError(Struct, frozen=True):
    """What validation answers, before the handler runs: `error` is a string."""

    error: str


class _PerfTrailer(Struct, frozen=True):
    server_timing: str = msgspec.field(name="Server-Timing")
    start_end: str = msgspec.field(name="X-TRTLLM-Start-End-Time")


def too_long(prompt_tokens: int, max_tokens: int, limit: int) -> str:
    """Prompt and answer do not fit into the model's context together."""
    return (
        f"The sum of prompt length ({prompt_tokens}), query length (0) and max_tokens ({max_tokens}) "
        f"should not exceed max_seq_len ({limit})"
    )


def no_schema(kind: str, key: str) -> str:
    return f"response_format.{key} is required for response_format.type == {kind!r}, but got None."


def frame(value: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def first_frame(value: Struct) -> bytes:
    """The role chunk: a space follows the JSON."""
    return b"data: " + msgspec.json.encode(value) + b" \n\n"


def error_frames(message: str) -> tuple[bytes, ...]:
    """How a completions stream breaks: `json.dumps` spacing, and two `[DONE]`."""
    error = {"message": message, "type": "server_error", "code": None, "param": None}
    return f"data: {json.dumps({'error': error})}\n\n".encode(), DONE, DONE


def server_timing(queue_s: float, first_token_s: float, total_s: float) -> str:
    """The `Server-Timing` value, in milliseconds."""
    named = (("server_queue", queue_s), ("server_ttft", first_token_s), ("server_e2e", total_s))
    return ", ".join(f"{name};dur={seconds * 1000:.6f}" for name, seconds in named)


def start_end_time(start_s: float, end_s: float) -> str:
    """The `X-TRTLLM-Start-End-Time` value, steady-clock seconds."""
    return f"server-start;ts={start_s:.9f}, server-end;ts={end_s:.9f}"


def perf_trailer(timing: str, start_end: str) -> bytes:
    """The named event that follows `[DONE]` when the request asked for metrics."""
    body = msgspec.json.encode(_PerfTrailer(timing, start_end))
    return b"event: trtllm.perf_metrics\ndata: " + body + b"\n\n"
