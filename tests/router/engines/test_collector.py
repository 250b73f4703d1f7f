"""A complete answer made of a stream."""

from typing import Any

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.collector import StreamCollector
from router.engines.openai_stream import StreamCollector as SameCollector
from tests.router.engines.making import NOW, delta_chunk, engine, fixture, frames, request

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS


def _collector(kind: str, asked: InferenceRequest, **target: Any) -> StreamCollector:
    return StreamCollector(asked, engine(kind, **target).open_stream(asked))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_triton_stream_becomes_a_chat_completion(size: int) -> None:
    """However its bytes arrive; usage is always stated, here as an estimate."""
    asked = request(CHAT, {"messages": [{"role": "user", "content": "Hi!"}]})
    collector = _collector("triton", asked, chat_template="x")
    data = fixture("triton/generate_stream_ensemble_delta.sse")
    for at in range(0, len(data), size):
        assert collector.feed(data[at : at + size]) == b""
    assert collector.end() == b""
    answer = collector.answer()
    assert msgspec.json.decode(answer.body) == {
        "id": "chatcmpl-req-7",
        "object": "chat.completion",
        "created": NOW,
        "model": "llama-8b",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "estimated": True},
    }
    assert (answer.usage, answer.finish_reason) == (None, "stop")
    assert (collector.started, collector.done, collector.failure, collector.pieces) == (True, True, None, 3)
    ChatCompletion.model_validate_json(answer.body)


def test_a_completion_with_two_choices() -> None:
    """Each with its own text and end."""
    asked = request(COMPLETIONS, {"prompt": "p"}, n=2)
    collector = _collector("vllm", asked)
    head = {"id": "cmpl-1", "object": "text_completion", "created": NOW, "model": "demo-8b"}
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.5]}
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    collector.feed(
        frames(
            {**head, "choices": [{"index": 1, "text": "a", "logprobs": logprobs, "finish_reason": None}]},
            {**head, "choices": [{"index": 0, "text": "x", "logprobs": None, "finish_reason": None}]},
            {**head, "choices": [{"index": 1, "text": "b", "logprobs": logprobs, "finish_reason": "stop"}]},
            {**head, "choices": [{"index": 0, "text": "y", "logprobs": None, "finish_reason": "length"}]},
            {**head, "choices": [], "usage": usage},
            b"[DONE]",
        )
    )
    answer = collector.answer()
    parsed = Completion.model_validate_json(answer.body)
    assert [(choice.text, choice.finish_reason) for choice in parsed.choices] == [
        ("xy", "length"),
        ("ab", "stop"),
    ]
    assert msgspec.json.decode(answer.body)["choices"][1]["logprobs"] == {
        "tokens": ["a", "a"], "token_logprobs": [-0.5, -0.5],
    }  # fmt: skip
    assert answer.usage == Usage(1, 4)


def test_tool_calls_and_reasoning_are_put_together() -> None:
    """Their pieces are joined by index."""

    def with_delta(**delta: Any) -> dict[str, Any]:
        chunk = delta_chunk("")
        chunk["choices"][0]["delta"] = delta
        return chunk

    def call(index: int, **more: Any) -> dict[str, Any]:
        return {"index": index, **more}

    asked = request(CHAT, {"messages": []})
    collector = _collector("vllm", asked)
    collector.feed(
        frames(
            with_delta(role="assistant", content=""),
            with_delta(reasoning="Let me "),
            with_delta(reasoning="see."),
            with_delta(
                tool_calls=[call(0, id="c0", type="function", function={"name": "f", "arguments": ""})]
            ),
            with_delta(tool_calls=[call(0, function={"arguments": '{"a"'})]),
            with_delta(content=None, tool_calls=[call(0, function={"arguments": ":1}"})]),
            with_delta(
                tool_calls=[call(1, id="c1", type="function", function={"name": "g", "arguments": "{}"})]
            ),
            delta_chunk("", finish="tool_calls"),
            b"[DONE]",
        )
    )
    message = msgspec.json.decode(collector.answer().body)["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "",
        "reasoning": "Let me see.",
        "tool_calls": [
            {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


@pytest.mark.parametrize(
    ("fixture_name", "code"),
    [("generate_stream_midstream_error.sse", "upstream_error")],
)
def test_a_stream_that_breaks_gives_no_answer(fixture_name: str, code: str) -> None:
    """The failure is the inner reader's."""
    collector = _collector("triton", request(CHAT, {"messages": []}), chat_template="x")
    collector.feed(fixture(f"triton/{fixture_name}"))
    collector.end()
    assert collector.failure is not None
    assert collector.failure.error.code == code
    assert not collector.done


def test_it_is_where_streams_are_read() -> None:
    """Importable beside the reader."""
    assert SameCollector is StreamCollector


def test_an_answer_without_a_word_is_an_empty_text() -> None:
    """Clients expect null only beside tool calls."""
    asked = request(CHAT, {"messages": [{"role": "user", "content": "Hi!"}]})
    collector = _collector("triton", asked, chat_template="x")
    collector.feed(frames({"model_name": "ensemble", "model_version": "1", "text_output": ""}))
    collector.end()
    assert msgspec.json.decode(collector.answer().body)["choices"][0]["message"]["content"] == ""
