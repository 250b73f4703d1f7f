"""Requests in OpenAI's dialect: what routing reads is checked, and errors name the field."""

from typing import Any

import msgspec
import pytest

from router.api.errors import RequestError, UnsupportedMediaType
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest

JSON = {"content-type": "application/json"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}


def read(endpoint: Endpoint, headers: dict[str, str] | None = None, **members: Any) -> InferenceRequest:
    body = msgspec.json.encode(members)
    return read_request(endpoint, "id-1", {**JSON, **(headers or {})}, body, RequestRules())


def test_a_plain_chat_needs_chat_only() -> None:
    """The neutral form of the commonest request."""
    request = read(Endpoint.CHAT, **CHAT)
    assert (request.model, request.stream, request.n, request.max_tokens) == ("m", False, 1, None)
    assert request.needs == {"chat"}
    assert not request.include_usage


@pytest.mark.parametrize(
    ("member", "need"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice_required"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ],
)
def test_chat_features_are_needs(member: dict[str, Any], need: str) -> None:
    """Each feature that some engine lacks is seen."""
    assert read(Endpoint.CHAT, **(CHAT | member)).needs == {"chat", need}


@pytest.mark.parametrize(
    ("member", "needs"),
    [
        ({"prompt": [1, 2, 3]}, {"token_prompt"}),
        ({"prompt": ["a"]}, set()),
        ({"prompt": ["a", "b"]}, {"batch_prompt"}),
        ({"prompt": [[1], [2]]}, {"batch_prompt", "token_prompt"}),
        ({"best_of": 3}, {"best_of"}),
        ({"echo": True}, {"echo"}),
        ({"suffix": "x"}, {"suffix"}),
        ({"logprobs": 0}, {"logprobs"}),
    ],
)
def test_completion_features_are_needs(member: dict[str, Any], needs: set[str]) -> None:
    """Prompts of every shape, and the old API's own features."""
    assert read(Endpoint.COMPLETIONS, **(COMPLETION | member)).needs == {"completions"} | needs


@pytest.mark.parametrize(
    "member",
    [
        {"n": 1}, {"n": None}, {"logprobs": False}, {"logprobs": None}, {"logit_bias": None}, {"logit_bias": {}},
        {"tools": []}, {"tool_choice": "auto"}, {"response_format": {"type": "text"}}, {"response_format": None},
        {"stream": False}, {"stream": None}, {"stream_options": None}, {"max_tokens": None},
    ],
)  # fmt: skip
def test_values_that_ask_for_nothing_need_nothing(member: dict[str, Any]) -> None:
    """Defaults written out do not narrow the choice of engines."""
    request = read(Endpoint.CHAT, **(CHAT | member))
    assert request.needs == {"chat"}
    assert not request.stream


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ({"stream": 1}, "stream"), ({"stream": "true"}, "stream"), ({"n": 0}, "n"), ({"n": "2"}, "n"),
        ({"n": -1}, "n"), ({"n": 10**12}, "n"), ({"n": 1.5}, "n"), ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"model": ""}, "model"), ({"model": 5}, "model"), ({"model": None}, "model"), ({"model": "x" * 600}, "model"),
        ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": None}, "messages"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"response_format": "json"}, "response_format"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_the_field_it_stands_in(member: dict[str, Any], field: str) -> None:
    """400 invalid_request with `param`."""
    with pytest.raises(RequestError, match=f"'{field}'") as caught:
        read(Endpoint.CHAT, **(CHAT | member))
    assert caught.value.param == field
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("endpoint", "missing"),
    [(Endpoint.CHAT, "messages"), (Endpoint.COMPLETIONS, "prompt"), (Endpoint.CHAT, "model")],
)
def test_what_is_missing_is_named(endpoint: Endpoint, missing: str) -> None:
    """A request without its model, messages or prompt says which."""
    members = {**CHAT, **COMPLETION}
    del members[missing]
    with pytest.raises(RequestError, match=f"'{missing}'") as caught:
        read(endpoint, **members)
    assert caught.value.param == missing


def test_streaming_and_its_usage() -> None:
    """Usage is the client's wish only if it says so."""
    assert read(Endpoint.CHAT, **CHAT, stream=True).stream
    assert not read(Endpoint.CHAT, **CHAT, stream=True).include_usage
    asked = read(Endpoint.CHAT, **CHAT, stream=True, stream_options={"include_usage": True})
    assert asked.include_usage


def test_the_larger_of_two_limits_counts() -> None:
    """`max_tokens` beside `max_completion_tokens`: nobody reserves the smaller and uses the larger."""
    assert read(Endpoint.CHAT, **CHAT, max_tokens=5, max_completion_tokens=50).max_tokens == 50


@pytest.mark.parametrize(
    ("headers", "members", "session"),
    [
        ({"x-session-id": "s"}, {"user": "u"}, "s"),
        ({}, {"session_id": "b", "user": "u"}, "b"),
        ({}, {"user": "u"}, "u"),
        ({}, {"prompt_cache_key": "k"}, "k"),
        ({}, {}, None),
        ({}, {"user": None}, None),
        ({}, {"user": ""}, None),
    ],
)
def test_what_keeps_a_conversation_together(
    headers: dict[str, str], members: dict[str, Any], session: str | None
) -> None:
    """The header first, then the APIs' own members."""
    assert read(Endpoint.CHAT, headers, **CHAT, **members).session == session


@pytest.mark.parametrize(
    "headers",
    [{"content-type": ""}, {"content-type": "text/plain"}, {"content-encoding": "gzip"}],
)
def test_only_plain_json_is_taken(headers: dict[str, str]) -> None:
    """Anything else is 415 and says what to send."""
    with pytest.raises(UnsupportedMediaType):
        read(Endpoint.CHAT, headers, **CHAT)


def test_a_charset_is_no_other_media_type() -> None:
    """`application/json; charset=utf-8` is JSON."""
    assert read(Endpoint.CHAT, {"content-type": "Application/JSON; charset=utf-8"}, **CHAT).model == "m"
