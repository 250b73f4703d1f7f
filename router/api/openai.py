"""OpenAI's dialect: an exchange's bytes to an `InferenceRequest`.

Checks what routing relies on and names the field at fault; everything else is the engine's to judge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from router.api.errors import RequestError, UnsupportedMediaType
from router.api.members import Members, read_members
from router.api.request import Endpoint, InferenceRequest
from router.engines.engine import Need

T = TypeVar("T")

_JSON = "application/json"
MAX_NAME = 512
"""Longest model name or session id that is looked at, characters."""

_BASE_NEEDS: Mapping[Endpoint, frozenset[Need]] = {
    Endpoint.CHAT: frozenset({"chat"}),
    Endpoint.COMPLETIONS: frozenset({"completions"}),
    Endpoint.EMBEDDINGS: frozenset({"embeddings"}),
    Endpoint.RESPONSES: frozenset({"responses"}),
    Endpoint.MESSAGES: frozenset({"messages"}),
    Endpoint.TOKENIZE: frozenset({"tokenize"}),
    Endpoint.DETOKENIZE: frozenset({"detokenize"}),
    Endpoint.RERANK: frozenset({"rerank"}),
    Endpoint.RERANK_V1: frozenset({"rerank"}),
    Endpoint.SCORE: frozenset({"score"}),
}
_STREAMING = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES})
_REQUIRED = {Endpoint.CHAT: "messages", Endpoint.COMPLETIONS: "prompt", Endpoint.MESSAGES: "messages"}
_TOKEN_LIMITS = dict.fromkeys(("max_completion_tokens", "max_tokens", "max_output_tokens"))
_SESSION_MEMBERS = dict.fromkeys(("session_id", "conversation", "prompt_cache_key", "user"))


class _ResponseFormat(msgspec.Struct):
    type: str = "text"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Bounds on what a client may send."""

    max_depth: int = 64


def require_json(headers: Mapping[str, str]) -> None:
    """Raises `UnsupportedMediaType` unless the body is declared as plain JSON."""
    given = headers.get("content-type", "")
    media_type = given if given == _JSON else given.partition(";")[0].strip().lower()
    if media_type != _JSON:
        said = f"not {media_type!r}" if media_type else "but there is none"
        raise UnsupportedMediaType(f"send the header 'content-type: application/json', {said}")
    if headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("compressed request bodies are not accepted: send the JSON as it is")


def read_request(
    endpoint: Endpoint, call_id: str, headers: Mapping[str, str], body: bytes, rules: RequestRules
) -> InferenceRequest:
    """The request in the neutral form. Raises `RequestError` (400) or `UnsupportedMediaType` (415)."""
    require_json(headers)
    members = read_members(body, rules.max_depth)
    required = _REQUIRED.get(endpoint)
    if required is not None and required not in members:
        raise RequestError(f"the request lacks {required!r}", param=required)
    stream = read_stream_flag(members) if endpoint in _STREAMING else False
    return InferenceRequest(
        id=call_id,
        endpoint=endpoint,
        model=read_model(members),
        stream=stream,
        body=body,
        members=members,
        needs=_needs(endpoint, members),
        include_usage=stream and _wants_usage(members),
        n=read_count(members, "n") or 1,
        max_tokens=_max_tokens(members),
        session=read_session(headers, members),
    )


def read_model(members: Members) -> str:
    raw = members.get("model")
    if raw is None:
        raise RequestError(
            "the request lacks 'model': name one of those that GET /v1/models lists", param="model"
        )
    model = _decode(raw, "model", _STRING, "a string")
    if not 0 < len(model) <= MAX_NAME:
        raise RequestError(f"'model' must have 1 to {MAX_NAME} characters", param="model")
    return model


def read_stream_flag(members: Members) -> bool:
    raw = members.get("stream")
    if raw is None or raw in (_FALSE, _NULL):
        return False
    return _decode(raw, "stream", _BOOLEAN, "true or false")


def read_session(headers: Mapping[str, str], members: Members) -> str | None:
    """What keeps a conversation together: the header, else the APIs' own members for it."""
    session = headers.get("x-session-id")
    if session:
        return session[:MAX_NAME]
    if _SESSION_MEMBERS.keys().isdisjoint(members):
        return None
    for name in _SESSION_MEMBERS:
        raw = members.get(name)
        if raw is not None and bytes(raw)[:1] == b'"':
            return _decode(raw, name, _STRING, "a string")[:MAX_NAME] or None
    return None


def read_user(members: Members) -> str:
    """Whom the client names as its own user; empty where it names nobody."""
    raw = members.get("user")
    if raw is None or bytes(raw)[:1] != b'"':
        return ""
    return _decode(raw, "user", _STRING, "a string")[:MAX_NAME]


_TRUE, _FALSE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"false"), msgspec.Raw(b"null")


_STRING = msgspec.json.Decoder(str)
_BOOLEAN = msgspec.json.Decoder(bool)
_INTEGER = msgspec.json.Decoder(int)
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STREAM_OPTIONS = msgspec.json.Decoder(_StreamOptions)
_RESPONSE_FORMAT = msgspec.json.Decoder(_ResponseFormat)


def _decode(raw: msgspec.Raw, name: str, decoder: msgspec.json.Decoder[T], wanted: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError:
        raise RequestError(f"'{name}' must be {wanted}", param=name) from None


def read_count(members: Members, name: str) -> int | None:
    """A positive integer, or None where it is absent or null."""
    raw = members.get(name)
    if raw is None or raw == _NULL:
        return None
    value = _decode(raw, name, _INTEGER, "a positive integer")
    if not 0 < value < 2**31:
        raise RequestError(f"'{name}' must be a positive integer", param=name)
    return value


def _max_tokens(members: Members) -> int | None:
    if _TOKEN_LIMITS.keys().isdisjoint(members):
        return None
    values = [read_count(members, name) for name in _TOKEN_LIMITS if name in members]
    return max((value for value in values if value is not None), default=None)


def _wants_usage(members: Members) -> bool:
    raw = members.get("stream_options")
    if raw is None or raw == _NULL:
        return False
    return bool(_decode(raw, "stream_options", _STREAM_OPTIONS, "an object of booleans").include_usage)


# ---- features that only some engines have: one row each ----


def _more_than_one(members: Members, name: str) -> frozenset[Need]:
    return (
        frozenset({"n" if name == "n" else "best_of"}) if (read_count(members, name) or 1) > 1 else _NOTHING
    )


def _token_logprobs(members: Members, name: str) -> frozenset[Need]:
    return _NOTHING if members[name] in (_FALSE, _NULL) else frozenset({"logprobs"})


def _tool_choice(members: Members, name: str) -> frozenset[Need]:
    return frozenset({"tool_choice_required"}) if bytes(members[name]) == b'"required"' else _NOTHING


def _response_format(members: Members, name: str) -> frozenset[Need]:
    if members[name] == _NULL:
        return _NOTHING
    kind = _decode(members[name], name, _RESPONSE_FORMAT, "an object with a 'type'").type
    known: Mapping[str, frozenset[Need]] = {
        "json_object": frozenset({"json_object"}),
        "json_schema": frozenset({"json_schema"}),
    }
    return known.get(kind, _NOTHING)


def _prompt(members: Members, name: str) -> frozenset[Need]:
    raw = members[name]
    if bytes(raw)[:1] == b'"':
        return _NOTHING
    prompts = _decode(raw, name, _ARRAY, "a string, an array of strings, or token ids")
    if not prompts:
        raise RequestError(f"'{name}' must not be empty", param=name)
    first = bytes(prompts[0])[:1]
    needs: set[Need] = set()
    if first != b'"':
        needs.add("token_prompt")
    if len(prompts) > 1 and first in b'"[':
        needs.add("batch_prompt")
    return frozenset(needs)


def _messages(members: Members, name: str) -> frozenset[Need]:
    begin = bytes(memoryview(members[name])[:64])
    if begin[:1] != b"[":
        raise RequestError(f"'{name}' must be an array", param=name)
    if begin[1:].lstrip()[:1] == b"]":
        raise RequestError(f"'{name}' must not be empty", param=name)
    return _NOTHING


def _if_given(need: Need) -> Callable[[Members, str], frozenset[Need]]:
    wanted = frozenset({need})

    def needs(members: Members, name: str) -> frozenset[Need]:
        return _NOTHING if bytes(members[name]) in (b"null", b"false", b"[]", b"{}", b'""') else wanted

    return needs


_NOTHING: frozenset[Need] = frozenset()
_FEATURES: Mapping[str, Callable[[Members, str], frozenset[Need]]] = {
    "messages": _messages,
    "prompt": _prompt,
    "n": _more_than_one,
    "best_of": _more_than_one,
    "logprobs": _token_logprobs,
    "prompt_logprobs": _if_given("prompt_logprobs"),
    "echo": _if_given("echo"),
    "suffix": _if_given("suffix"),
    "logit_bias": _if_given("logit_bias"),
    "tools": _if_given("tools"),
    "tool_choice": _tool_choice,
    "response_format": _response_format,
}
_GENERATION = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS})


def _needs(endpoint: Endpoint, members: Members) -> frozenset[str]:
    needs: frozenset[str] = _BASE_NEEDS[endpoint]
    if endpoint in _GENERATION:
        for name in members:
            feature = _FEATURES.get(name)
            if feature is not None:
                needs |= feature(members, name)
    return needs
