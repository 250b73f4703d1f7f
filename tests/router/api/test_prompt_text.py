"""What two requests have in common is in their canonical texts exactly if an engine would share it."""

import json
from typing import Any

import pytest

from router.api.openai import RequestRules, read_request
from router.api.prompt_text import text_of
from router.api.request import Endpoint, InferenceRequest
from router.api.tgi import read_generate

HEADERS = {"content-type": "application/json"}


def request(endpoint: Endpoint = Endpoint.CHAT, **members: Any) -> InferenceRequest:
    body = json.dumps({"model": "m", **members}).encode()
    return read_request(endpoint, "id", HEADERS, body, RequestRules())


def chat(*messages: dict[str, Any], **more: Any) -> str:
    text = text_of(request(messages=list(messages), **more))
    assert isinstance(text, str)
    return text


SYSTEM = {"role": "system", "content": "be kind"}
FIRST = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi there"}
SECOND = {"role": "user", "content": "and now?"}


def test_a_later_turn_begins_with_the_earlier_one() -> None:
    before = chat(SYSTEM, FIRST)
    after = chat(SYSTEM, FIRST, ANSWER, SECOND)
    assert after.startswith(before)


def test_the_order_of_keys_and_the_layout_do_not_matter() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": 2}}}]
    turned = [{"function": {"parameters": {"b": 2, "a": 1}, "name": "f"}, "type": "function"}]
    assert chat(FIRST, tools=tools) == chat(FIRST, tools=turned)
    assert chat(FIRST) == chat({"content": "hello", "role": "user"}, temperature=0.5)
    spaced = b'{ "model" : "m", "messages" : [ { "content" : "hel\\u006co" , "role":"user" } ] }'
    read = read_request(Endpoint.CHAT, "id", HEADERS, spaced, RequestRules())
    assert text_of(read) == chat(FIRST)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            [{"role": "user", "content": "ab"}],
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        ),
        ([{"role": "user", "content": "a"}], [{"role": "system", "content": "a"}]),
        ([{"role": "user", "content": "a"}], [{"role": "user", "name": "x", "content": "a"}]),
        (
            [{"role": "tool", "tool_call_id": "1", "content": "a"}],
            [{"role": "tool", "tool_call_id": "2", "content": "a"}],
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}],
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "g"}}]}],
        ),
    ],
)
def test_what_an_engine_sees_differently_differs(one: list[Any], other: list[Any]) -> None:
    assert chat(*one) != chat(*other)


def test_text_in_parts_is_text_and_images_are_their_digests() -> None:
    parts = [{"type": "text", "text": "hello"}]
    assert chat({"role": "user", "content": parts}) == chat(FIRST)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "B" * 10_000}}
    one, two = (chat({"role": "user", "content": [*parts, each]}) for each in (image, other))
    assert one != two
    assert len(one) < 100


def test_tools_come_first() -> None:
    """Chat templates put them there: conversations with equal tools share them, whatever was said."""
    tools = [{"type": "function", "function": {"name": "f" * 500}}]
    one, other = chat(FIRST, tools=tools), chat(SECOND, tools=tools)
    assert one[:500] == other[:500]


def test_completions_of_text_and_of_token_ids() -> None:
    assert text_of(request(Endpoint.COMPLETIONS, prompt="once")) == "once"
    assert text_of(request(Endpoint.COMPLETIONS, prompt=["once", "twice"])) == "once"
    assert text_of(request(Endpoint.COMPLETIONS, prompt=[1, 2, 3])) == [1, 2, 3]
    assert text_of(request(Endpoint.COMPLETIONS, prompt=[[1, 2], [3]])) == [1, 2]


def test_messages_and_responses_are_conversations_too() -> None:
    anthropic = text_of(request(Endpoint.MESSAGES, system="be kind", messages=[FIRST], max_tokens=5))
    assert anthropic == chat(SYSTEM, FIRST)
    responses = text_of(request(Endpoint.RESPONSES, instructions="be kind", input="hello"))
    assert responses == chat(SYSTEM, FIRST)
    assert text_of(request(Endpoint.RESPONSES, input=[FIRST])) == chat(FIRST)


def test_tgi_inputs() -> None:
    read = read_generate(Endpoint.GENERATE, "id", HEADERS, b'{"inputs": "once"}', RequestRules(), "m")
    assert text_of(read) == "once"


def test_what_has_no_prompt_or_cannot_be_read_has_no_text() -> None:
    assert text_of(request(Endpoint.EMBEDDINGS, input="x")) is None
    assert text_of(request(messages=[{"role": 5}])) is None
    assert text_of(request(messages=["not a message"])) is None
