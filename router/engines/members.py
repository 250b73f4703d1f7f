"""Changing a few top-level members of a request's JSON; the bytes of all others stay as they came."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from router.api.request import Endpoint, InferenceRequest
from router.engines.openai_words import stream_options

STREAMED_ENDPOINTS: Final = frozenset(
    {Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.GENERATE_ROOT}
)
COMPLETION_MAX_TOKENS: Final = 16
"""What OpenAI's completions mean without `max_tokens`; engines that mean something else are told so."""


def value_of(request: InferenceRequest, name: str) -> Any:
    """A member's value, decoded; None where it is absent or null."""
    raw = request.members.get(name)
    return None if raw is None else msgspec.json.decode(raw)


def nulls(request: InferenceRequest) -> set[str]:
    """The members that are null, which OpenAI takes for absent and some engines refuse."""
    return {name for name, raw in request.members.items() if bytes(raw) == b"null"}


def model_changes(request: InferenceRequest, served_name: str) -> dict[str, Any]:
    """The model's name as the replica knows it, if the client wrote another one."""
    same = request.model == served_name and "model" in request.members
    return {} if same else {"model": served_name}


def usage_changes(request: InferenceRequest) -> dict[str, Any]:
    """Usage is always asked for; what the client asked for besides stays."""
    if not request.stream or request.endpoint not in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        return {}
    options = stream_options(request)
    if options.get("include_usage"):
        return {}
    return {"stream_options": {**options, "include_usage": True}}


def with_changes(
    request: InferenceRequest, changes: Mapping[str, Any], dropped: Collection[str] = ()
) -> bytes:
    """The client's body: untouched where nothing changes, else rebuilt at the top level only."""
    dropped = request.members.keys() & dropped
    if not (changes or dropped):
        return request.body
    kept = {name: raw for name, raw in request.members.items() if name not in dropped}
    return msgspec.json.encode({**kept, **changes})


def streams(request: InferenceRequest) -> bool:
    """Whether an engine that answers as it was asked to will answer this with a stream."""
    if request.endpoint is Endpoint.GENERATE_STREAM:
        return True
    return request.stream and request.endpoint in STREAMED_ENDPOINTS
