"""Changing a few top-level members of a request's JSON; the bytes of all others stay as they came."""

from typing import Any

import msgspec

from router.api.request import Endpoint, InferenceRequest
from router.engines.openai_words import stream_options

STREAMED_ENDPOINTS = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES})


def render(members: dict[str, Any]) -> bytes:
    """A JSON object; `msgspec.Raw` values keep their bytes."""
    return msgspec.json.encode(members)


def model_changes(request: InferenceRequest, served_name: str) -> dict[str, Any]:
    """The model's name as the replica knows it, if the client wrote another one."""
    if msgspec.json.decode(request.members.get("model", b"null")) == served_name:
        return {}
    return {"model": served_name}


def usage_changes(request: InferenceRequest) -> dict[str, Any]:
    """Usage is always asked for; what the client asked for besides stays."""
    if not request.stream or request.endpoint not in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        return {}
    options = stream_options(request)
    if options.get("include_usage") is True:
        return {}
    return {"stream_options": {**options, "include_usage": True}}


def with_changes(request: InferenceRequest, changes: dict[str, Any]) -> bytes:
    """The client's body: untouched without changes, else rebuilt at the top level only."""
    return render({**request.members, **changes}) if changes else request.body


def streams(request: InferenceRequest) -> bool:
    """Whether an engine that answers as it was asked to will answer this with a stream."""
    if request.endpoint is Endpoint.GENERATE_STREAM:
        return True
    return request.stream and request.endpoint in STREAMED_ENDPOINTS
