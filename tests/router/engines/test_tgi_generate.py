"""TGI's own stream for TGI's own clients: untouched, but its errors and its end are seen."""

import pytest

from router.api.request import Endpoint
from router.engines.sse import MAX_FRAME_BYTES
from router.engines.tgi_generate import GenerateStream
from tests.router.engines.making import Seen, engine, fixture, read, request

TOKEN = (
    b'data: {"index":1,"token":{"id":9906,"text":"Hi","logprob":-0.25,"special":false},'
    b'"generated_text":null,"details":null}\n\n'
)
LAST = TOKEN.replace(b'"generated_text":null', b'"generated_text":"Hi"')


def _reader() -> GenerateStream:
    reader = engine("tgi").open_stream(request(Endpoint.GENERATE_STREAM, {"inputs": "p"}))
    assert isinstance(reader, GenerateStream)
    return reader


def _read(data: bytes) -> Seen:
    return read(_reader(), [data])


def test_tokens_are_not_even_copied() -> None:
    """One or more in a piece."""
    reader = _reader()
    for data in (TOKEN, TOKEN * 4):
        assert reader.feed(data) is data
    assert (reader.started, reader.pieces) == (True, 5)


def test_the_whole_stream_passes() -> None:
    """Every byte of the recording."""
    data = fixture("tgi/generate_stream.sse")
    assert _read(data).out == data


def test_without_details_usage_is_unknown() -> None:
    """The last event tells the text alone."""
    seen = _read(TOKEN + LAST)
    assert (seen.done, seen.usage, seen.finish_reason) == (True, None, None)


@pytest.mark.parametrize(
    ("data", "code", "out"),
    [
        (TOKEN, "upstream_reset", TOKEN),
        (b"", "upstream_reset", b""),
        (TOKEN + b'data: {"error":"x","error_type":"generation"}\n\n', "upstream_error", TOKEN),
        (b'data: {"error":"Model is overloaded","error_type":"overloaded"}\n\n' + TOKEN, "overloaded", b""),
        (TOKEN + b"data: nonsense\n\n" + TOKEN, "upstream_protocol", TOKEN),
        (TOKEN + b"data: " + b"x" * MAX_FRAME_BYTES, "upstream_protocol", TOKEN),
    ],
)
def test_a_broken_stream_is_a_failure(data: bytes, code: str, out: bytes) -> None:
    """An end before the text, an error, nonsense; what came before it passes."""
    seen = _read(data)
    assert seen.failure is not None
    assert (seen.failure[0], seen.out, seen.done) == (code, out, False)


def test_comments_are_dropped_and_nothing_follows_the_last_event() -> None:
    """Keep-alives, and whatever comes too late."""
    seen = _read(b":\n\n" + TOKEN + b":\n\n" + LAST + TOKEN)
    assert (seen.out, seen.done) == (TOKEN + LAST, True)
