"""Whole answers: kept until they are known to be good, bounded, and given at once."""

import json

import pytest

from tests.support.flow import (
    WHOLE,
    Flow,
    StallingExchange,
    answers,
    hang,
    plays,
    reset,
    streams,
    through,
    whole,
)
from tests.support.peers import STREAM_HEAD, answer, chunk
from tests.support.raw_client import CHAT

SMALL = "[upstream]\nmax_answer_bytes = 65536"
BIG = WHOLE.replace(b"hello", b"hello" * 20_000)


def test_the_figures_of_a_whole_answer() -> None:
    """One event with what the engine said of its tokens; the client reads the public name."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, exchange.finished, exchange.length) == (200, 1, len(exchange.text))
        assert json.loads(exchange.text)["model"] == "m"
        assert (event.status, event.outcome, event.stream, event.finish_reason) == (200, "ok", False, "stop")
        assert event.usage is not None
        assert (event.usage.prompt_tokens, event.usage.completion_tokens) == (3, 2)
        assert (event.bytes_in, event.bytes_out) == (len(CHAT), len(exchange.text))
        assert event.time_to_first_token_s is None
        assert [(each.reason, each.ending) for each in event.attempts] == [("first", "completed")]
        assert 0 <= event.overhead_s < event.duration_s

    through(test, answers())


@pytest.mark.parametrize(
    "data",
    [
        answer(WHOLE)[:-1],
        answer(b""),
        answer(b"{"),
        answer(b"[]"),
        answer(b'{"choices":[]}'),
        answer(WHOLE.replace(b'"stop"', b'"abort"')),
        answer(b'{"error":{"message":"oh","code":500}}'),
        answer(WHOLE.replace(b"hello", b"\xa0")),
        answer(WHOLE, headers=b"content-type: application/json\r\ntransfer-encoding: chunked\r\n"),
    ],
)
def test_a_broken_answer_is_asked_for_elsewhere(data: bytes) -> None:
    """The client never sees a byte of it."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        event = await flow.serve(exchange)
        assert json.loads(exchange.text)["choices"][0]["message"]["content"] == "hello"
        assert [each.ending for each in event.attempts] == ["failed", "completed"]

    through(test, plays(data, then=reset), answers())


def test_an_answer_that_is_too_large() -> None:
    """Cut off at the limit; nobody else is asked for it."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (502, "upstream_protocol")
        assert "larger than 65536 bytes" in exchange.text
        assert flow.connections == [1, 0]

    through(test, answers(BIG), answers(), more=SMALL)


@pytest.mark.parametrize("uv", [False, True])
def test_an_answer_that_its_client_is_slow_to_take_leaves_a_usable_connection(uv: bool) -> None:
    """The replica has done its part: its connection serves the next request."""

    async def test(flow: Flow) -> None:
        for _ in range(3):
            exchange = StallingExchange(body=CHAT)
            await flow.serve(exchange)
            assert exchange.status == 200
        assert flow.connections == [1]

    through(test, answers(BIG), more="[timeouts]\ntotal_s = 3", uv=uv)


def triton_piece(text: str) -> bytes:
    return (
        b"data: "
        + json.dumps({"model_name": "t", "model_version": "1", "text_output": text}).encode()
        + b"\n\n"
    )


TRITON = 'triton", model_name = "t", triton_layout = "ensemble'


def test_a_whole_answer_made_of_a_stream() -> None:
    """For engines that should only be asked for streams: the pieces joined, as one answer."""

    async def test(flow: Flow) -> None:
        exchange = whole(b'{"model":"m","prompt":"p","max_tokens":4}')
        exchange.path = "/v1/completions"
        event = await flow.serve(exchange)
        assert exchange.status == 200, exchange.text
        assert json.loads(exchange.text)["choices"][0]["text"] == "one two"
        assert event.outcome == "ok"

    through(test, streams(triton_piece("one "), triton_piece("two")), engine=TRITON)


def test_a_stream_that_is_collected_is_bounded_too() -> None:
    """An engine that never ends is cut off at the limit."""

    async def test(flow: Flow) -> None:
        exchange = whole(b'{"model":"m","prompt":"p"}')
        exchange.path = "/v1/completions"
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (502, "upstream_protocol")

    endless = plays(STREAM_HEAD, *[chunk(triton_piece("x" * 1000))] * 100, then=hang)
    through(test, endless, more=SMALL, engine=TRITON)


def test_a_collected_stream_that_is_refused() -> None:
    """A status other than 200 is read as what it is."""

    async def test(flow: Flow) -> None:
        exchange = whole(b'{"model":"m","prompt":"p"}')
        exchange.path = "/v1/completions"
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (502, "upstream_error")

    refused = plays(answer(b'{"error":"in ensemble: failed"}', status=b"500 No"))
    through(test, refused, engine=TRITON)
