"""`/v1/responses` and `/v1/messages`: events pass, the model's name, usage, errors and the end are seen."""

from itertools import pairwise

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from router.api.request import Endpoint, Usage
from router.engines.named_events import NamedEventStream
from router.engines.sse import MAX_FRAME_BYTES
from tests.router.engines.making import Seen, engine, fixture, read, request

STREAMS = {
    "messages_stream.sse": (Endpoint.MESSAGES, Usage(14, 4, 0), "max_tokens", 4),
    "responses_stream.sse": (Endpoint.RESPONSES, Usage(15, 4, 0), "incomplete", 2),
}
START = b'event: message_start\ndata: {"type":"message_start","message":{"model":"demo-8b"}}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def _reader(kind: str = "vllm") -> NamedEventStream:
    reader = engine(kind).open_stream(request(Endpoint.MESSAGES))
    assert isinstance(reader, NamedEventStream)
    return reader


def _read(data: bytes) -> Seen:
    return read(_reader(), [data])


@pytest.mark.parametrize("kind", ["vllm", "trtllm"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_real_stream_only_changes_the_models_name(kind: str, name: str) -> None:
    """What vLLM 0.32 sent, whole, byte by byte and cut at every third offset."""
    endpoint, usage, reason, pieces = STREAMS[name]
    data = fixture(f"vllm-recorded/{name}")
    bound = engine(kind)
    seen = read(bound.open_stream(request(endpoint)), [data])
    out = data.replace(b'"model":"tiny"', b'"model":"llama-8b"')
    assert seen == Seen(out, True, True, usage, reason, pieces, None)
    assert read(bound.open_stream(request(endpoint)), [bytes([byte]) for byte in data]) == seen
    for at in range(0, len(data), 3):
        assert read(bound.open_stream(request(endpoint)), [data[:at], data[at:]]) == seen


def test_the_openai_library_parses_the_responses_events() -> None:
    """Its own types."""
    seen = read(_reader(), [fixture("vllm-recorded/responses_stream.sse")])
    deltas = [frame for frame in seen.out.split(b"\n\n") if b"output_text.delta" in frame]
    for frame in deltas:
        TypeAdapter(ResponseStreamEvent).validate_json(frame.partition(b"data: ")[2])
    assert len(deltas) == 2


def test_quiet_events_are_not_even_copied() -> None:
    """Deltas, one or more in a piece."""
    reader = _reader()
    reader.feed(START + DELTA)
    for data in (DELTA, DELTA * 5):
        assert reader.feed(data) is data
    assert reader.pieces == 7


def test_nothing_goes_out_before_the_first_delta() -> None:
    """So that an error after the opening events can still be retried."""
    reader = _reader()
    assert reader.feed(START) == b""
    assert not reader.started
    assert reader.feed(DELTA) == START.replace(b"demo-8b", b"llama-8b") + DELTA
    assert reader.started


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (
            b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n',
            "upstream_error",
        ),
        (b'event: error\ndata: {"type":"error","code":"server_error","message":"x"}\n\n', "upstream_error"),
        (
            (
                b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed",'
                b'"error":{"code":"server_error","message":"x"}}}\n\n'
            ),
            "upstream_error",
        ),
        (b'data: {"error":{"message":"Model is overloaded"}}\n\n', "overloaded"),
        (b"event: content_block_delta\ndata: {\n\n", "upstream_protocol"),
        (b"", "upstream_reset"),
    ],
)
@pytest.mark.parametrize("opening", [b"", START, START + DELTA])
def test_a_broken_stream_is_a_failure(opening: bytes, event: bytes, code: str) -> None:
    """An error of either dialect, nonsense, an end before the end."""
    seen = _read(opening + event)
    assert seen.failure is not None
    assert (seen.failure[0], seen.failure[2]) == (code, True)
    assert seen.out == ((START + DELTA).replace(b"demo-8b", b"llama-8b") if DELTA in opening else b"")
    assert not seen.done


def test_an_error_as_text_is_text() -> None:
    """Words that could be an end or an error are looked at twice."""
    texts = (b"error", b"response.completed", b"message_stop", b"[DONE]", b'\\"usage\\"')
    deltas = b"".join([DELTA.replace(b"Hi", text) for text in texts])
    seen = _read(DELTA + deltas + STOP)
    assert seen.out == DELTA + deltas + STOP
    assert seen.done


def test_nothing_comes_after_the_end() -> None:
    """Not even the `[DONE]` that some versions send."""
    reader = _reader()
    assert reader.feed(DELTA + STOP + b"data: [DONE]\n\n") == DELTA + STOP
    assert reader.feed(DELTA) == b""
    assert reader.end() == b""
    assert (reader.done, reader.failure) == (True, None)


def test_comments_and_odd_lines_do_not_matter() -> None:
    """The same events in another framing."""
    odd = b": hi\n\n" + DELTA.replace(b"\n", b"\r\n") + b": hi\n\n" + STOP.replace(b": ", b":")
    assert _read(odd).out == DELTA + STOP
    for cut in (7, 60, len(odd) - 3):
        pieces = [odd[a:b] for a, b in pairwise([0, cut, len(odd)])]
        assert read(_reader(), pieces).out == DELTA + STOP


def test_other_fields_of_an_event_are_dropped() -> None:
    """`id:` would make browsers reconnect, and old OpenAI clients stumble over comments."""
    reader = _reader()
    reader.feed(DELTA)
    assert reader.feed(DELTA.replace(b"\ndata", b"\nid: 7\ndata")) == DELTA


def test_an_event_without_a_name_keeps_none() -> None:
    """Its type stands in its data."""
    data = b'data: {"type":"response.output_text.delta","delta":"x"}\n\n'
    assert _reader().feed(data) == data.replace(b"data", b"event: response.output_text.delta\ndata", 1)


def test_a_frame_over_a_mebibyte_is_a_failure() -> None:
    """Nothing that long is kept."""
    seen = _read(DELTA + b"data: " + b"x" * MAX_FRAME_BYTES)
    assert seen.failure is not None
    assert seen.failure[0] == "upstream_protocol"
