"""TGI's bytes: frames, answers, errors, `/info`, model list and timing headers (router 3.3.6-dev0).

Pure formatting. Field order is the order of the Rust structs; nulls are written unless the struct skips them.
"""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from loadtest.engine.exposition_wire import rust_number

Headers = tuple[tuple[str, str], ...]

VERSION = "3.3.6-dev0"
FINGERPRINT = f"{VERSION}-native"
KEEP_ALIVE = b":\n\n"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENT_STREAM = "text/event-stream"


class Usage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


class Function(Struct, frozen=True):
    name: str | None
    arguments: str


class DeltaToolCall(Struct, frozen=True):
    index: int
    id: str
    type: str
    function: Function


class Delta(Struct, frozen=True):
    role: str = "assistant"
    content: str | UnsetType = UNSET
    tool_calls: tuple[DeltaToolCall, ...] | UnsetType = UNSET


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float


class Logprob(Struct, frozen=True):
    token: str
    logprob: float
    top_logprobs: tuple[TopLogprob, ...] = ()


class Logprobs(Struct, frozen=True):
    content: tuple[Logprob, ...]


class ChunkChoice(Struct, frozen=True):
    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: str | None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One event of a chat stream; `choices` is empty in the usage event."""

    object: str = "chat.completion.chunk"
    id: str = ""
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None


class CalledFunction(Struct, frozen=True):
    description: None
    name: str
    arguments: str


class ToolCall(Struct, frozen=True):
    id: str
    type: str
    function: CalledFunction


class Message(Struct, frozen=True):
    role: str = "assistant"
    content: str | UnsetType = UNSET
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: str


class ChatAnswer(Struct, frozen=True, kw_only=True):
    object: str = "chat.completion"
    id: str = ""
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: tuple[ChatChoice, ...]
    usage: Usage


class TextChoice(Struct, frozen=True):
    """`finish_reason` is the empty string until the end, never null."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: str = ""


class TextChunk(Struct, frozen=True, kw_only=True):
    object: str = "text_completion"
    id: str = ""
    created: int
    choices: tuple[TextChoice, ...]
    model: str
    system_fingerprint: str = FINGERPRINT


class TextAnswer(Struct, frozen=True, kw_only=True):
    """The whole completions answer, and also the last event of a stream: other key order, always usage."""

    object: str = "text_completion"
    id: str = ""
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: tuple[TextChoice, ...]
    usage: Usage


class Info(Struct, frozen=True, kw_only=True):
    """`GET /info`. It says nothing of the KV capacity."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str | UnsetType = UNSET
    model_pipeline_tag: str | None = "text-generation"
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 2
    max_client_batch_size: int = 4
    router: str = "text-generation-router"
    version: str = VERSION
    sha: str | None = None
    docker_label: str | None = None


class ModelEntry(Struct, frozen=True):
    id: str
    object: str
    created: int
    owned_by: str


class Models(Struct, frozen=True):
    object: str
    data: tuple[ModelEntry, ...]


def models(model_id: str) -> Models:
    """`GET /v1/models`: one entry, owned by its own name, created at 0."""
    return Models("list", (ModelEntry(model_id, "model", 0, model_id),))


class Error(Struct, frozen=True):
    """The body of a failure that has a status of its own, and of an error event of `generate_stream`."""

    error: str
    error_type: str


class _OpenAIError(Struct, frozen=True):
    message: str
    http_status_code: int = 422


class _OpenAIErrorEvent(Struct, frozen=True):
    error: _OpenAIError


def frame(value: Struct, *, space: bool = True) -> bytes:
    """One event. TGI before 2.1 writes no space after `data:`."""
    return (b"data: " if space else b"data:") + msgspec.json.encode(value) + b"\n\n"


def done(*, space: bool = True) -> bytes:
    return b"data: [DONE]\n\n" if space else b"data:[DONE]\n\n"


def openai_error_frame(message: str, *, space: bool = True) -> bytes:
    """An error inside a chat or completions stream: the status in it is 422 whatever the cause."""
    return frame(_OpenAIErrorEvent(_OpenAIError(message)), space=space)


def timing_headers(
    *,
    characters: int,
    total_s: float,
    validation_s: float,
    queue_s: float,
    inference_s: float,
    prompt_tokens: int,
    generated_tokens: int,
) -> Headers:
    """What only non-streaming answers carry: whole milliseconds, but `x-compute-time` in seconds."""
    return (
        ("x-compute-type", "gpu+optimized"),
        ("x-compute-time", rust_number(round(total_s, 9))),
        ("x-compute-characters", str(characters)),
        ("x-total-time", _ms(total_s)),
        ("x-validation-time", _ms(validation_s)),
        ("x-queue-time", _ms(queue_s)),
        ("x-inference-time", _ms(inference_s)),
        ("x-time-per-token", _ms(inference_s / max(1, generated_tokens))),
        ("x-prompt-tokens", str(prompt_tokens)),
        ("x-generated-tokens", str(generated_tokens)),
    )


def stream_headers(characters: int) -> Headers:
    return (
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-compute-type", "gpu+optimized"),
        ("x-compute-characters", str(characters)),
    )


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))
