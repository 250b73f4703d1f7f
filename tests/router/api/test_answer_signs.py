"""What the bytes of an answer tell of its quality: tool calls, circles, nothing at all."""

import json
from typing import Any

import pytest

from policies.release.observation import Bad
from router.api.answer_signs import goes_in_circles, signs_of

STORY = " ".join(f"chapter {number} is about {number * 7919 % 1000} ships" for number in range(60))
CIRCLE = "and then it said the same again, " * 40


def answer(
    content: str | None = "yes", *, arguments: str | None = None, finish: str = "stop", **more: Any
) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": content, **more}
    if arguments is not None:
        message["tool_calls"] = [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        ]
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).encode()


def stream(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    parts = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    parts.append({"choices": [], "usage": {"prompt_tokens": 1}})
    return b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n"


def called(arguments: str, index: int = 0) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


@pytest.mark.parametrize(
    ("body", "signs"),
    [
        (answer(), set()),
        (answer(STORY), set()),
        (answer(CIRCLE), {Bad.REPETITION}),
        (answer(""), {Bad.EMPTY}),
        (answer(None, reasoning_content="hm"), set()),
        (answer(None, arguments='{"a": 1}'), set()),
        (answer(None, arguments='{"a": 1'), {Bad.TOOL_JSON}),
        (answer(None, arguments='{"a": 1', finish="length"), set()),
        (b'{"choices": [{"index": 0, "text": "' + b"ab" * 300 + b'"}]}', {Bad.REPETITION}),
        (b'{"data": [{"embedding": [0.1]}]}', set()),
        (b"not json", set()),
        (b'{"choices": 1}', set()),
        (b"", set()),
    ],
)
def test_an_answer_that_came_whole(body: bytes, signs: set[Bad]) -> None:
    assert signs_of(body, stream=False) == signs


@pytest.mark.parametrize(
    ("body", "signs"),
    [
        (stream({"role": "assistant", "content": ""}, {"content": "ye"}, {"content": "s"}), set()),
        (stream({"role": "assistant", "content": ""}), {Bad.EMPTY}),
        (stream(*({"content": CIRCLE[at : at + 9]} for at in range(0, len(CIRCLE), 9))), {Bad.REPETITION}),
        (stream(called('{"a"'), called(": 1}"), called("{}", 1)), set()),
        (stream(called('{"a"'), called(": 1}"), called("{", 1)), {Bad.TOOL_JSON}),
        (stream(called('{"a"'), finish="length"), set()),
        (b"event: message_start\ndata: {}\n\n", set()),
    ],
)
def test_a_stream(body: bytes, signs: set[Bad]) -> None:
    assert signs_of(body, stream=True) == signs


@pytest.mark.parametrize("period", [1, 2, 17, 80])
def test_a_circle_of_any_period_is_seen(period: int) -> None:
    word = STORY[:period]
    assert goes_in_circles(STORY + word * (401 // period + 2))
    assert not goes_in_circles(STORY + word)
