"""The load client: what it counts, whatever way the bytes are cut."""

import asyncio
import os
import random
from itertools import repeat
from typing import Any

import pytest
import uvloop

from loadtest.bench.client import Assignment, Connection, Tally, run
from loadtest.bench.frames import http_chunk, json_answer, now_us, stream_end, stream_start, token_template
from loadtest.bench.upstream import Upstream
from loadtest.bench.workloads import Workload

STREAM = stream_start() + b"".join(token_template() % (i + 1) for i in range(4)) + stream_end(b"")
EVENTS = 4 + 3


class RecordingTransport(asyncio.Transport):
    """Notes what is written and whether it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def fed(pieces: list[bytes], events_due: int) -> tuple[Tally, RecordingTransport]:
    """What a connection makes of these reads."""
    tally, transport = Tally(), RecordingTransport()

    async def feed() -> None:
        connection = Connection(repeat(b"request"), tally, events_due)
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)

    asyncio.run(feed())
    return tally, transport


def test_a_stream_is_counted_the_same_however_it_is_cut() -> None:
    """Two streams in a row, cut at every place and at random ones: same events, two requests, no error."""
    chance = random.Random(4)
    cuts = [[place] for place in range(1, len(STREAM))]
    cuts += [sorted(chance.sample(range(1, len(STREAM)), 40)) for _ in range(20)]
    cuts.append(list(range(1, len(STREAM))))
    for cut in cuts:
        pieces = [STREAM[a:b] for a, b in zip([0, *cut], [*cut, len(STREAM)], strict=True)]
        tally, transport = fed(pieces * 2, EVENTS)
        assert (tally.requests, tally.chunks, dict(tally.errors)) == (2, 2 * EVENTS, {})
        assert len(transport.written) == 3
        assert len(tally.first_events_us) == len(tally.latencies_us) == 2


def test_a_stream_cut_into_other_chunks_is_the_same_stream() -> None:
    """A router may merge chunks; events are counted, not chunks of HTTP."""
    head, _, body = STREAM.partition(b"\r\n\r\n")
    events = b"".join(piece for piece in body.split(b"\r\n") if piece.startswith(b"data: "))
    tally, _ = fed([head + b"\r\n\r\n" + http_chunk(events) + b"0\r\n\r\n"], EVENTS)
    assert (tally.requests, tally.chunks) == (1, EVENTS)


def test_a_json_answer_is_counted_when_its_last_byte_is_there() -> None:
    """Cut anywhere, the next request goes out once for each answer."""
    answer = json_answer()
    for place in range(1, len(answer), 7):
        tally, transport = fed([answer[:place], answer[place:]], 0)
        assert (tally.requests, dict(tally.errors), len(transport.written)) == (1, {}, 2)


@pytest.mark.parametrize(
    ("answer", "events_due", "kind"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", EVENTS, "status 503"),
        (STREAM, EVENTS + 1, "short answer"),
        (json_answer(), EVENTS, "stream not chunked"),
        (STREAM, 0, "answer without length"),
        (json_answer()[:-1] + b"x", 0, "short answer"),
        (json_answer() + b"more", 0, "short answer"),
    ],
)
def test_a_wrong_answer_is_an_error_and_not_a_request(answer: bytes, events_due: int, kind: str) -> None:
    """It is counted by its kind, and the connection is given up."""
    tally, transport = fed([answer], events_due)
    assert (tally.requests, dict(tally.errors), transport.aborted) == (0, {kind: 1}, True)


def test_a_lost_connection_is_an_error() -> None:
    """A router that closes in mid-answer does not pass for a quick one."""
    tally = Tally()

    async def lose() -> None:
        connection = Connection(repeat(b"request"), tally, EVENTS)
        connection.connection_made(RecordingTransport())
        connection.data_received(STREAM[:300])
        connection.connection_lost(None)
        await connection.lost

    asyncio.run(lose())
    assert (tally.requests, dict(tally.errors)) == (0, {"connection lost": 1})


def test_chunk_delay_is_the_age_of_the_send_time() -> None:
    """Both processes read one clock, so the difference is the way the chunk took."""
    tally = Tally()
    tally.sample(token_template() % (now_us() - 7000))
    assert len(tally.chunk_delays_us) == 1
    assert 7000 <= tally.chunk_delays_us[0] < 1_000_000


@pytest.mark.parametrize(("tokens", "interval_ms"), [(0, 0), (8, 0), (8, 2)])
def test_a_run_against_the_replicas_measures_them(tokens: int, interval_ms: int) -> None:
    """Requests, chunks and CPU time of a real run add up, and nothing goes wrong."""
    workload = Workload("T", "test", 4, "shared", 2000, tokens, interval_ms, warmup_s=0.1, window_s=0.3)

    async def both() -> Any:
        loop = asyncio.get_running_loop()
        upstream = Upstream(loop)
        server = await loop.create_server(upstream.connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        upstream.page(b"/pace?interval_ms=%d" % interval_ms)
        core = min(os.sched_getaffinity(0))
        try:
            return await run(Assignment(workload, [port], os.getpid(), os.getpid(), core, core, 0))
        finally:
            server.close()

    figures = uvloop.run(both())
    assert figures.errors == {}
    assert figures.requests > 0
    assert figures.latency.count == figures.requests
    assert figures.window_s >= 0.29
    if tokens:
        assert figures.chunks >= figures.requests
        assert figures.first_event.count > 0
    else:
        assert figures.chunks == 0
        assert figures.router_cpu_s > 0
