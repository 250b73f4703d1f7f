"""TGI's bytes against the golden files: same ids, times, words and numbers give the same bytes."""

from itertools import accumulate, repeat
from math import inf
from pathlib import Path

import msgspec
import pytest

from loadtest.engine import tgi_native_wire as native
from loadtest.engine import tgi_wire as wire
from loadtest.engine.exposition_wire import RUST, Family, Histogram, Labels, Summary, Value, exposition

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "tgi"
CREATED = 1787000000


def chat(content: str, finish_reason: str | None = None) -> wire.ChatChunk:
    choice = wire.ChunkChoice(0, wire.Delta(content=content), None, finish_reason)
    return wire.ChatChunk(created=CREATED, model="demo-8b", choices=(choice,))


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def test_chat_stream() -> None:
    """One chunk per token, each with its role; usage in a chunk of its own; `[DONE]`."""
    chunks = (
        chat("Hello"),
        chat(" there"),
        chat("", "stop"),
        wire.ChatChunk(created=CREATED, model="demo-8b", usage=wire.usage(11, 3)),
    )
    assert b"".join(map(wire.frame, chunks)) + wire.done() == fixture("chat_stream_include_usage.sse")


def test_keep_alive_comments() -> None:
    """A comment and a blank line, wherever the stream is silent."""
    stream = (
        wire.KEEP_ALIVE
        + wire.frame(chat("Hello"))
        + wire.KEEP_ALIVE
        + wire.frame(chat(" there"))
        + wire.frame(chat("", "stop"))
        + wire.done()
    )
    assert stream == fixture("chat_stream_keepalive.sse")


def test_framing_before_2_1() -> None:
    """No space after `data:`, and the raw finish word."""
    stream = (
        wire.frame(chat("Hello"), space=False)
        + wire.frame(chat("", "eos_token"), space=False)
        + wire.done(space=False)
    )
    assert stream == fixture("chat_stream_pre2.1_no_space.sse")


@pytest.mark.parametrize(
    ("name", "before", "message"),
    [
        ("chat_stream_overloaded_http200.sse", b"", "Model is overloaded"),
        (
            "chat_stream_context_too_long_http200.sse",
            b"",
            (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."
                " Given: 4000 `inputs` tokens and 512 `max_new_tokens`"
            ),
        ),
        (
            "chat_stream_midstream_error.sse",
            wire.frame(chat("Hello")),
            "Request failed during generation: Server error: CUDA out of memory",
        ),
    ],
)
def test_errors_inside_a_stream(name: str, before: bytes, message: str) -> None:
    """Whatever went wrong, the status in the event is 422, and `[DONE]` follows."""
    assert before + wire.openai_error_frame(message) + wire.done() == fixture(name)


def test_completions_stream() -> None:
    """The last event has another key order and always carries usage."""
    chunks: list[msgspec.Struct] = [
        wire.TextChunk(created=CREATED, choices=(wire.TextChoice(0, text),), model="demo-8b")
        for text in ("Hello", " there")
    ]
    last = wire.TextChoice(0, "", finish_reason="eos_token")
    chunks.append(wire.TextAnswer(created=CREATED, model="demo-8b", choices=(last,), usage=wire.usage(11, 3)))
    assert b"".join(map(wire.frame, chunks)) + wire.done() == fixture("completions_stream.sse")


def test_generate_stream() -> None:
    """Native events, counted from 1, and no `[DONE]`."""
    details = native.StreamDetails("eos_token", 3, None, 11)
    end = native.Token(128009, "<|eot_id|>", -0.25, special=True)
    events = (
        native.StreamToken(1, native.Token(9906, "Hello", -0.25)),
        native.StreamToken(2, native.Token(1070, " there", -0.25)),
        native.StreamToken(3, end, "Hello there", details),
    )
    assert b"".join(map(wire.frame, events)) == fixture("generate_stream.sse")


def test_generate_stream_error() -> None:
    """Natively the error is flat and nothing follows it."""
    event = wire.frame(wire.Error("Model is overloaded", "overloaded"))
    assert event == fixture("generate_stream_overloaded_http200.sse")


def test_tool_calls() -> None:
    """A streamed call repeats role, id and type; only the first delta names the function."""
    call = wire.DeltaToolCall(0, "0", "function", wire.Function("f", "{"))
    assert msgspec.json.encode(wire.Delta(tool_calls=(call,))) == (
        b'{"role":"assistant","tool_calls":[{"index":0,"id":"0","type":"function",'
        b'"function":{"name":"f","arguments":"{"}}]}'
    )


def test_whole_answers() -> None:
    """`object` comes first and the id is empty, as in the stream."""
    choice = wire.ChatChoice(0, wire.Message(content="Hello there"), None, "stop")
    answer = wire.ChatAnswer(created=CREATED, model="demo-8b", choices=(choice,), usage=wire.usage(11, 3))
    assert msgspec.json.encode(answer) == (
        b'{"object":"chat.completion","id":"","created":1787000000,"model":"demo-8b",'
        b'"system_fingerprint":"3.3.6-dev0-native","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"Hello there"},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
    )
    assert msgspec.json.encode(native.Generated("Hello")) == b'{"generated_text":"Hello"}'


def test_timing_headers() -> None:
    """Milliseconds are whole numbers, `x-compute-time` is in seconds."""
    headers = wire.timing_headers(
        characters=3,
        total_s=0.25,
        validation_s=0.001,
        queue_s=0.0125,
        inference_s=0.2,
        prompt_tokens=11,
        generated_tokens=4,
    )
    assert dict(headers) == {
        "x-compute-type": "gpu+optimized",
        "x-compute-time": "0.25",
        "x-compute-characters": "3",
        "x-total-time": "250",
        "x-validation-time": "1",
        "x-queue-time": "12",
        "x-inference-time": "200",
        "x-time-per-token": "50",
        "x-prompt-tokens": "11",
        "x-generated-tokens": "4",
    }


def test_metrics() -> None:
    """No `_total`, whole numbers without a point, a blank line between families."""
    bounds = tuple(accumulate(repeat(1.5, 35), lambda bound, factor: bound * factor, initial=0.0001))[1:]
    queue = Histogram(
        (*((bound, 800 if bound < 1 else 851) for bound in bounds), (inf, 851)), total=73.5, count=851
    )
    quantiles = tuple((at, 0.0) for at in (0, 0.5, 0.9, 0.95, 0.99, 0.999, 1))

    def plain(name: str, kind: str, about: str | None, *values: tuple[Labels, Value]) -> Family:
        return Family(name, kind, about, values)

    def lone(name: str, kind: str, about: str, value: Value) -> Family:
        return plain(name, kind, about, ((), value))

    families = (
        lone("tgi_queue_size", "gauge", "Current queue size", 4),
        lone("tgi_batch_current_size", "gauge", "Current batch size", 16),
        lone("tgi_batch_current_max_tokens", "gauge", "Maximum tokens for the current batch", 28160),
        lone("tgi_request_count", "counter", "Total number of requests", 1702),
        lone("tgi_request_success", "counter", "Number of successful requests", 851),
        plain(
            "tgi_request_failure",
            "counter",
            None,
            ((("err", "overloaded"),), 12),
            ((("err", "validation"),), 3),
        ),
        plain(
            "tgi_batch_inference_count",
            "counter",
            "Inference calls per method (prefill or decode)",
            ((("method", "prefill"),), 640),
            ((("method", "decode"),), 20111),
        ),
        lone("tgi_request_queue_duration", "histogram", "Request queue duration", queue),
        lone(
            "tgi_request_generated_tokens",
            "histogram",
            "Generated tokens per request",
            Histogram(((40.96, 300), (inf, 851)), 204800, 851),
        ),
        lone(
            "tgi_request_input_length",
            "histogram",
            "Input token length per request",
            Histogram(((40.95, 20), (inf, 851)), 901120, 851),
        ),
        lone(
            "tgi_request_skipped_tokens",
            "summary",
            "Speculated tokens per request",
            Summary(quantiles, 0, 851),
        ),
    )
    assert exposition(families, RUST) == fixture("metrics.prom")
