"""The OpenAI dialect's words, however an engine spells them: finish reasons, usage, stream options.

A finish reason that is in none of the tables is a broken answer: a new word may well mean "aborted".
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from router.api.request import Endpoint, InferenceRequest, Usage

FINISH_REASONS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "function_call",
    "content_filter": "content_filter",
    "stop_sequence": "stop",  # TGI: a stop string
    "eos_token": "stop",  # TGI: the end token
    "repetition": "stop",  # vLLM: it stopped a loop
}
UNFINISHED: Final = frozenset({"", "None"})
"""What TGI and Triton write where others have null, while a choice is not finished."""

OBJECTS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "chat.completion",
    Endpoint.COMPLETIONS: "text_completion",
}
CHUNK_OBJECTS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}

_BYTES_PER_TOKEN: Final = 4


def minted_id(request: InferenceRequest) -> str:
    """The id of an answer whose engine gives none; equal for every attempt of one request."""
    return f"{'chatcmpl' if request.endpoint is Endpoint.CHAT else 'cmpl'}-{request.id}"


def read_usage(usage: object) -> Usage | None:
    """Token counts, named as in chat completions or as in responses and messages."""
    if not isinstance(usage, dict):
        return None
    prompt = _first_int(usage, "prompt_tokens", "input_tokens", "total_tokens")
    if prompt is None:
        return None
    completion = _first_int(usage, "completion_tokens", "output_tokens") or 0
    return Usage(prompt, completion, _cached_tokens(usage))


def _cached_tokens(usage: dict[str, Any]) -> int | None:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = usage.get(name)
        if isinstance(details, dict):
            return _first_int(details, "cached_tokens")
    return _first_int(usage, "cache_read_input_tokens")


def _first_int(members: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, int):
            return value
    return None


def added(one: Usage, other: Usage) -> Usage:
    """The tokens of two answers; cached ones are known only if both are."""
    is_known = one.cached_tokens is not None and other.cached_tokens is not None
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        (one.cached_tokens or 0) + (other.cached_tokens or 0) if is_known else None,
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """`usage` as an OpenAI answer states it."""
    stated: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens is not None:
        stated["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return stated


def estimated_usage(request: InferenceRequest, pieces: int) -> dict[str, Any]:
    """Usage for clients of an engine that counts no tokens; the member `estimated` says what it is.

    Four bytes of the prompt as it was sent make a token, and each piece of text is one.
    """
    prompt = request.members.get("messages", request.members.get("prompt", b""))
    prompt_tokens = -(-len(prompt) // _BYTES_PER_TOKEN)
    return {**usage_object(Usage(prompt_tokens, pieces)), "estimated": True}


def stream_options(request: InferenceRequest) -> dict[str, Any]:
    """The client's `stream_options`; empty where there are none, or null."""
    raw = request.members.get("stream_options")
    options = msgspec.json.decode(raw) if raw is not None else None
    return options if isinstance(options, dict) else {}


def expected_choices(request: InferenceRequest) -> int:
    """How many choices must finish: `n` for each prompt of a completions batch."""
    if "batch_prompt" not in request.needs:
        return request.n
    prompts = msgspec.json.decode(request.members.get("prompt", b"[]"))
    return request.n * max(len(prompts), 1) if isinstance(prompts, list) else request.n
