"""An answer's text is what the next turn has between its prompt before and its new message, in every dialect."""

import json
from typing import Any

import pytest

from router.api.answer_text import answer_text
from router.api.openai import RequestRules, read_request
from router.api.prompt_text import text_of
from router.api.request import Endpoint, InferenceRequest
from router.api.tgi import read_generate

HEADERS = {"content-type": "application/json"}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
ASKED = {"role": "user", "content": "hello"}
AGAIN = {"role": "user", "content": "and now?"}


def request(endpoint: Endpoint, **members: Any) -> InferenceRequest:
    body = json.dumps({"model": "m", **members}).encode()
    if endpoint in (Endpoint.GENERATE, Endpoint.GENERATE_ROOT):
        return read_generate(endpoint, "id", HEADERS, body, RequestRules(), "m")
    return read_request(endpoint, "id", HEADERS, body, RequestRules())


def chat_of(**message: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


def messages_turn(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    said = {"role": "assistant", "content": answer["content"]}
    return {"messages": [ASKED]}, {"messages": [ASKED, said, AGAIN]}


def chat_turn(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    said = answer["choices"][0]["message"]
    return {"messages": [ASKED]}, {"messages": [ASKED, said, AGAIN]}


def completion_turn(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"prompt": "once"}, {"prompt": "once" + answer["choices"][0]["text"] + " and more"}


def responses_turn(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"input": "hello"}, {"input": [ASKED, *answer["output"], AGAIN]}


def generate_turn(answer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    generated = (answer[0] if isinstance(answer, list) else answer)["generated_text"]
    return {"inputs": "once"}, {"inputs": "once" + generated.removeprefix("once") + " and more"}


ANSWERS = [
    (
        Endpoint.CHAT,
        chat_turn,
        chat_of(content="hi é\n", refusal=None, tool_calls=[], reasoning_content=None),
    ),
    (Endpoint.CHAT, chat_turn, chat_of(content=None, tool_calls=CALLS)),
    (Endpoint.CHAT, chat_turn, chat_of(content="so:", tool_calls=[{**CALLS[0], "index": 0}, *CALLS])),
    (Endpoint.COMPLETIONS, completion_turn, {"choices": [{"index": 0, "text": " upon a time"}]}),
    (Endpoint.MESSAGES, messages_turn, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}),
    (
        Endpoint.MESSAGES,
        messages_turn,
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
        },
    ),
    (
        Endpoint.RESPONSES,
        responses_turn,
        {
            "output": [
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
                },
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            ]
        },
    ),
    (Endpoint.GENERATE, generate_turn, {"generated_text": " upon a time"}),
    (Endpoint.GENERATE, generate_turn, {"generated_text": "once upon a time"}),
    (Endpoint.GENERATE_ROOT, generate_turn, [{"generated_text": "once upon a time"}]),
]


@pytest.mark.parametrize(("endpoint", "turn", "answer"), ANSWERS)
def test_the_next_turn_begins_with_prompt_and_answer(endpoint: Endpoint, turn: Any, answer: Any) -> None:
    """And where its own new message begins, that text ends."""
    first, second = (request(endpoint, **members) for members in turn(answer))
    before, after = text_of(first), text_of(second)
    said = answer_text(first, json.dumps(answer).encode())
    assert isinstance(before, str)
    assert isinstance(after, str)
    assert said
    assert after.startswith(before + said)
    assert after[len(before + said) :] in ("\x01user\x02and now?", " and more")


@pytest.mark.parametrize(
    ("endpoint", "members", "answer"),
    [
        (Endpoint.CHAT, {"messages": [ASKED]}, chat_of(content="hi", reasoning="hm")),
        (Endpoint.CHAT, {"messages": [ASKED]}, chat_of(content="hi", reasoning_content="hm")),
        (Endpoint.CHAT, {"messages": [ASKED], "continue_final_message": True}, chat_of(content="hi")),
        (Endpoint.CHAT, {"messages": [ASKED], "n": 2}, {"choices": chat_of(content="hi")["choices"] * 2}),
        (Endpoint.COMPLETIONS, {"prompt": "once", "echo": True}, {"choices": [{"text": "once upon"}]}),
        (Endpoint.COMPLETIONS, {"prompt": "once", "suffix": "end"}, {"choices": [{"text": " upon"}]}),
        (Endpoint.COMPLETIONS, {"prompt": ["a", "b"]}, {"choices": [{"text": "1"}, {"text": "2"}]}),
        (
            Endpoint.MESSAGES,
            {"messages": [ASKED]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]},
        ),
        (Endpoint.RESPONSES, {"input": "hello"}, {"output": [{"type": "reasoning", "summary": []}]}),
        (Endpoint.GENERATE_ROOT, {"inputs": "once"}, [{"generated_text": "a"}, {"generated_text": "b"}]),
        (Endpoint.EMBEDDINGS, {"input": "once"}, {"data": []}),
        (Endpoint.CHAT, {"messages": [ASKED]}, {"choices": "none"}),
    ],
)
def test_nothing_is_said_of_an_answer_that_no_turn_goes_on_from(
    endpoint: Endpoint, members: dict[str, Any], answer: Any
) -> None:
    assert answer_text(request(endpoint, **members), json.dumps(answer).encode()) is None


def test_an_answer_that_is_nested_too_deeply_has_no_text() -> None:
    deep = b'{"choices":[{"message":{"tool_calls":[' + b"[" * 5_000 + b"]" * 5_000 + b"]}}]}"
    assert answer_text(request(Endpoint.CHAT, messages=[ASKED]), deep) is None
