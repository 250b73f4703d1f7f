"""Streams: held back until the first good frame, ended once, and what a client's pace does to them."""

import asyncio
import json

import pytest

from router.api.errors import RouterDraining
from tests.support.exchanges import RecordedExchange
from tests.support.flow import (
    DONE,
    LAST_PIECES,
    Flow,
    StallingExchange,
    hang,
    piece,
    plays,
    reset,
    streamed,
    streams,
    through,
)
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, answer, chunk
from tests.support.raw_client import STREAMED_CHAT, events_in
from tests.support.scripted_server import until

SHORT = "[timeouts]\nbetween_tokens_s = 0.3\nfirst_token_s = 0.3"


def error_in(exchange: RecordedExchange) -> str:
    """The code of the error frame that a stream ends with; fails if it has two ends."""
    assert exchange.finished == 1
    *before, last = events_in(b"".join(exchange.writes))
    assert not any(b'"error"' in event or event == b"[DONE]" for event in before)
    code: str = json.loads(last)["error"]["code"]
    return code


def assert_complete(exchange: RecordedExchange) -> None:
    """A stream with one end, which is `[DONE]`."""
    assert exchange.finished == 1
    events = events_in(b"".join(exchange.writes))
    assert events.index(b"[DONE]") == len(events) - 1
    assert not any(b'"error"' in event for event in events)


def test_nothing_reaches_the_client_before_the_first_good_frame() -> None:
    """Head, comments and the opening role could still be followed by a failure."""
    go_on = asyncio.Event()
    role = piece("", role="assistant")

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(b": waiting\n\n") + chunk(role))
        await go_on.wait()
        await connection.send(chunk(piece("hello")) + chunk(LAST_PIECES) + LAST_CHUNK)

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: flow.connections == [1])
        await asyncio.sleep(0.05)
        assert exchange.status is None
        go_on.set()
        await serving
        assert exchange.status == 200
        assert b"assistant" in exchange.writes[0]
        assert b"hello" in exchange.writes[0]
        assert_complete(exchange)

    through(test, script)


def test_the_figures_of_a_stream() -> None:
    """One event: status, outcome, attempt, first token, a gap per read after it that may bring tokens, bytes."""
    go_on = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(piece()))
        await go_on.wait()
        go_on.clear()
        await connection.send(chunk(piece("", "stop")))
        await go_on.wait()
        await connection.send(chunk(DONE) + LAST_CHUNK)

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        for writes in (1, 2):
            await until(lambda writes=writes: len(exchange.writes) == writes)  # type: ignore[misc]
            go_on.set()
        await serving
        (event,) = flow.events
        assert (event.status, event.outcome, event.stream, event.finish_reason) == (200, "ok", True, "stop")
        assert [(each.reason, each.ending) for each in event.attempts] == [("first", "completed")]
        assert event.time_to_first_token_s is not None
        assert 0 < event.time_to_first_token_s <= event.duration_s
        assert (len(exchange.writes), sum(event.gaps)) == (3, 1)
        assert 0 < event.gap_sum_s < event.duration_s
        assert event.bytes_out == exchange.bytes_out == len(b"".join(exchange.writes))

    through(test, script)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (LAST_CHUNK, "upstream_reset"),
        (chunk(DONE) + LAST_CHUNK, "upstream_reset"),
        (chunk(piece("", "abort")) + LAST_CHUNK, "upstream_error"),
        (chunk(b'data: {"error":{"message":"oh","code":500}}\n\n') + LAST_CHUNK, "upstream_error"),
        (chunk(b"data: {]\n\n") + LAST_CHUNK, "upstream_protocol"),
        (chunk(piece("y").replace(b"y", b"\xa0")) + chunk(LAST_PIECES) + LAST_CHUNK, "upstream_protocol"),
        (b"zz\r\n", "upstream_protocol"),
    ],
)
def test_an_end_without_a_finish_is_an_error_frame(end: bytes, code: str) -> None:
    """However orderly the framing looks; and the one event names the error."""

    go_on = asyncio.Event()

    async def then(connection: PeerConnection) -> None:
        await go_on.wait()
        await connection.send(end)

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: bool(exchange.writes))
        go_on.set()
        await serving
        (event,) = flow.events
        assert error_in(exchange) == code
        assert (event.status, event.outcome) == (200, code)
        assert [each.ending for each in event.attempts] == ["failed"]
        assert exchange.on_disconnect is exchange.on_pause is exchange.on_resume is None

    through(test, plays(STREAM_HEAD, chunk(piece()), then=then))


@pytest.mark.parametrize("after", [reset, hang])
def test_what_happens_after_the_last_frame_is_not_the_clients_business(after: object) -> None:
    """`[DONE]` is out: a reset, or a body that never ends, changes nothing for it."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: exchange.finished == 1)
        assert exchange.on_disconnect is None
        await serving
        assert_complete(exchange)
        (event,) = flow.events
        assert (event.outcome, [each.ending for each in event.attempts]) == ("ok", ["completed"])

    through(test, plays(STREAM_HEAD, chunk(piece()) + chunk(LAST_PIECES), then=after))  # type: ignore[arg-type]


def test_a_replica_that_goes_on_after_the_last_frame_is_cut_off() -> None:
    """There may be no end of it, and nobody wants it."""

    async def babble(connection: PeerConnection) -> None:
        while True:
            await connection.send(chunk(piece()))
            await asyncio.sleep(0)

    async def test(flow: Flow) -> None:
        exchange = streamed()
        await flow.serve(exchange)
        assert_complete(exchange)
        assert flow.router.upstreams.open_connections == 0

    through(test, plays(STREAM_HEAD, chunk(piece()) + chunk(LAST_PIECES), then=babble))


def test_the_end_of_the_drain_after_the_last_frame_adds_nothing() -> None:
    """A complete answer stays complete, whatever is still read from the replica."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: exchange.finished == 1)
        flow.router.watch.fail_all(RouterDraining("over"))
        await serving
        assert_complete(exchange)
        assert flow.events[0].outcome == "ok"

    through(test, plays(STREAM_HEAD, chunk(piece()) + chunk(LAST_PIECES), then=hang))


def test_the_end_of_the_drain_ends_a_stream_with_an_error_frame() -> None:
    """And nothing is held against the replica."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: bool(exchange.writes))
        flow.router.watch.fail_all(RouterDraining("over"))
        await serving
        assert error_in(exchange) == "router_draining"
        assert [each.ending for each in flow.events[0].attempts] == ["client_left"]

    through(test, plays(STREAM_HEAD, chunk(piece()), then=hang))


def test_silence_after_the_first_token() -> None:
    """One error frame after `between_tokens_s`; comments are silence too."""

    async def comments(connection: PeerConnection) -> None:
        while True:
            await connection.send(chunk(b": still there\n\n"))
            await asyncio.sleep(0.02)

    async def test(flow: Flow) -> None:
        exchange = streamed()
        event = await flow.serve(exchange)
        assert error_in(exchange) == "between_tokens_timeout"
        assert [each.ending for each in event.attempts] == ["timed_out"]

    through(test, plays(STREAM_HEAD, chunk(piece()), then=comments), more=SHORT)


def test_a_client_that_leaves_in_mid_stream() -> None:
    """The replica is told by closing, blamed for nothing, and the event keeps what was measured."""
    gone = asyncio.Event()

    async def until_closed(connection: PeerConnection) -> None:
        await connection.closed_by_peer()
        gone.set()

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await until(lambda: bool(exchange.writes))
        exchange.leave()
        await serving
        await asyncio.wait_for(gone.wait(), 5)
        (event,) = flow.events
        assert (event.status, event.outcome, exchange.finished) == (200, "client_left", 0)
        assert [each.ending for each in event.attempts] == ["client_left"]
        assert event.gaps
        assert event.time_to_first_token_s is not None

    through(test, plays(STREAM_HEAD, chunk(piece()), then=until_closed))


def test_a_slow_client_holds_up_the_replica_and_nothing_else() -> None:
    """Paused: nothing more is read, and no clock runs against the replica. Resumed: the rest arrives."""
    sent = 0
    frame = chunk(piece("x" * 8000))

    async def script(connection: PeerConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(STREAM_HEAD)
        for _ in range(2000):
            await connection.send(frame)
            sent += 1
        await connection.send(chunk(LAST_PIECES) + LAST_CHUNK)

    async def test(flow: Flow) -> None:
        exchange = streamed(STREAMED_CHAT.replace(b',"max_tokens":8', b""))
        serving = flow.begin(exchange)
        await until(lambda: bool(exchange.writes))
        assert exchange.on_pause is not None
        assert exchange.on_resume is not None
        exchange.on_pause()
        written = len(exchange.writes)
        await asyncio.sleep(0.8)  # more than between_tokens_s
        assert len(exchange.writes) <= written + 1
        assert sent < 2000
        exchange.on_resume()
        await serving
        assert_complete(exchange)
        (event,) = flow.events
        assert event.outcome == "ok"
        assert event.gap_sum_s < event.duration_s - 0.7  # the pause is no gap between tokens

    through(test, script, more=SHORT)


@pytest.mark.parametrize("uv", [False, True])
def test_a_stream_that_ends_while_its_client_is_slow_leaves_a_usable_connection(uv: bool) -> None:
    """The next request over it is answered: what was paused for one client is not kept so for another."""

    async def test(flow: Flow) -> None:
        for _ in range(3):
            exchange = StallingExchange(body=STREAMED_CHAT)
            await flow.serve(exchange)
            assert_complete(exchange)
        assert flow.connections == [1]

    # All in one piece: with the first write the client's buffer is full and the answer complete.
    everything = STREAM_HEAD + chunk(piece() + LAST_PIECES) + LAST_CHUNK
    through(test, plays(everything), more=SHORT, uv=uv)


def test_a_trailer_is_read_even_while_the_client_is_slow() -> None:
    """The connection can be used again although its client still has much to read."""
    go_on = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        for _ in range(2):
            await connection.request()
            await connection.send(STREAM_HEAD + chunk(piece() + LAST_PIECES))
            await go_on.wait()
            await connection.send(LAST_CHUNK)

    async def test(flow: Flow) -> None:
        for _ in range(2):
            exchange = StallingExchange(body=STREAMED_CHAT)
            serving = flow.begin(exchange)
            await until(lambda exchange=exchange: exchange.finished == 1)  # type: ignore[misc]
            go_on.set()
            await serving
        assert flow.connections == [1]

    through(test, script)


@pytest.mark.parametrize(
    "data",
    [
        answer(b"{}"),
        STREAM_HEAD.replace(b"event-stream", b"plain") + chunk(piece()) + LAST_CHUNK,
        STREAM_HEAD + LAST_CHUNK,
        STREAM_HEAD + chunk(b": nothing but a comment\n\n") + LAST_CHUNK,
        STREAM_HEAD + chunk(DONE) + LAST_CHUNK,
        STREAM_HEAD + chunk(piece().replace(b'"x"', b'"\xff"')) + chunk(LAST_PIECES) + LAST_CHUNK,
    ],
)
def test_what_is_no_stream_is_asked_for_elsewhere(data: bytes) -> None:
    """Another type, an empty body, an end without a beginning: the client sees none of it."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        event = await flow.serve(exchange)
        assert_complete(exchange)
        assert [each.ending for each in event.attempts] == ["failed", "completed"]
        assert exchange.answer_headers["x-turnout-attempts"] == "2"

    through(test, plays(data), streams(piece(), LAST_PIECES))
