"""Complete answers, not streams: chat, completions, and whatever else an engine answers in JSON.

The bytes stay as they came unless a name, an id or a finish reason must change.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.engine import Answer, Failure
from router.engines.failures import is_error, malformed, read_error_event, unfinished
from router.engines.openai_words import FINISH_REASONS, OBJECTS, minted_id, read_usage

_Members = dict[str, msgspec.Raw]
_ERROR_MEMBERS: Final[tuple[str, ...]] = ("error", "error_type", "object", "type", "message", "code", "param")
_BROKEN_RESPONSES: Final = frozenset({"failed", "cancelled"})


class _Choice(msgspec.Struct, frozen=True, gc=False):
    finish_reason: Literal["stop", "length", "tool_calls", "function_call", "content_filter"]


class _CachedTokens(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Ordinary(msgspec.Struct, frozen=True, gc=False):
    """An answer as nearly all are: sound, in OpenAI's words, with nothing to change but the model's name."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    model: str
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage
    error: None = None
    error_type: None = None


_ordinary = msgspec.json.Decoder(_Ordinary).decode


def read_openai_answer(
    request: InferenceRequest, body: bytes, *, kind: str, public_name: str, infers_tool_calls: bool = False
) -> Answer | Failure:
    """The answer in the client's words, or the failure that a 200 hides."""
    if not infers_tool_calls and request.endpoint in OBJECTS:
        answer = _read_ordinary(body, public_name)
        if answer is not None:
            return answer
    try:
        return _read(request, body, kind, public_name, infers_tool_calls=infers_tool_calls)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return malformed("an answer that is not a JSON object")


def _read_ordinary(body: bytes, public_name: str) -> Answer | None:
    """The shortcut, several times as fast as the way round; None where it does not apply."""
    try:
        answer = _ordinary(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if answer.model != public_name:
        said = b'"model":' + msgspec.json.encode(answer.model)
        # Unescaped quotes cannot stand in a JSON string: this is a member, and the only one so named.
        if body.count(said) != 1:
            return None
        body = body.replace(said, b'"model":' + msgspec.json.encode(public_name))
    usage = answer.usage
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    tokens = Usage(usage.prompt_tokens, usage.completion_tokens, cached)
    return Answer(body, tokens, answer.choices[-1].finish_reason)


def _read(
    request: InferenceRequest, body: bytes, kind: str, public_name: str, *, infers_tool_calls: bool
) -> Answer | Failure:
    members = msgspec.json.decode(body, type=_Members)
    errors = {name: _value(members, name) for name in _ERROR_MEMBERS if name in members}
    if is_error(errors):
        return read_error_event(kind, errors)
    finish = _finish(request, members, infers_tool_calls=infers_tool_calls)
    if isinstance(finish, Failure):
        return finish
    reason, changes = finish
    if "model" in members and _value(members, "model") != public_name:
        changes["model"] = public_name
    if changes:
        body = msgspec.json.encode({**members, **changes})
    return Answer(body, read_usage(_value(members, "usage")), reason)


def _value(members: _Members, name: str) -> Any:
    raw = members.get(name)
    return None if raw is None else msgspec.json.decode(raw)


def _word(members: _Members, name: str) -> str | None:
    value = _value(members, name)
    return value if isinstance(value, str) else None


def _finish(
    request: InferenceRequest, members: _Members, *, infers_tool_calls: bool
) -> tuple[str | None, dict[str, Any]] | Failure:
    """How the answer ended, and the members that must change for it."""
    if request.endpoint in OBJECTS:
        finish = _finish_of_choices(_value(members, "choices"), infers_tool_calls=infers_tool_calls)
        if isinstance(finish, tuple) and not _value(members, "id"):
            finish[1]["id"] = minted_id(request)
        return finish
    if request.endpoint is Endpoint.RESPONSES:
        status = _word(members, "status")
        return unfinished(status) if status in _BROKEN_RESPONSES else (status, {})
    return _word(members, "stop_reason"), {}


def _finish_of_choices(
    choices: Any, *, infers_tool_calls: bool
) -> tuple[str | None, dict[str, Any]] | Failure:
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(choice, dict) for choice in choices)
    ):
        return malformed("an answer without choices")
    changed = False
    for choice in choices:
        said = choice.get("finish_reason")
        reason = FINISH_REASONS.get(said) if isinstance(said, str) else None
        if reason is None:
            return unfinished(said if isinstance(said, str) and said else None)
        message = choice.get("message")
        if infers_tool_calls and reason == "stop" and isinstance(message, dict) and message.get("tool_calls"):
            reason = "tool_calls"
        if reason != said:
            choice["finish_reason"] = reason
            changed = True
    return choices[-1]["finish_reason"], {"choices": choices} if changed else {}
