"""The direct front end and clients that are slow, hasty, or gone. On both event loops."""

import asyncio

import msgspec
import pytest

from router.serving import front
from tests.support.direct import Direct, direct
from tests.support.flow import LAST_PIECES, WHOLE, hang, piece
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, answer, chunk
from tests.support.raw_client import CHAT, STREAMED_CHAT, RawClient, get, post
from tests.support.scripted_server import until

BIG = WHOLE.replace(b"hello", b"x" * 6_000_000)
ENDLESS = STREAMED_CHAT.replace(b',"max_tokens":8', b"")


@pytest.fixture(autouse=True)
def often_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at every second; the tests need not wait for that."""
    monkeypatch.setattr(front, "_SWEEP_S", 0.05)


on_both_loops = pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])


async def whole(connection: PeerConnection) -> None:
    await connection.send(answer(WHOLE))


async def big(connection: PeerConnection) -> None:
    await connection.send(answer(BIG))


async def short_stream(connection: PeerConnection) -> None:
    await connection.send(STREAM_HEAD + chunk(piece()) + chunk(LAST_PIECES) + LAST_CHUNK)


async def endless_stream(connection: PeerConnection) -> None:
    await connection.send(STREAM_HEAD)
    while True:
        await connection.send(chunk(piece("x" * 8000)))


async def expect(client: RawClient, *numbers: int) -> None:
    """Answers of 200, with these request ids, in this order."""
    for number in numbers:
        given = await client.answer()
        assert (given.status, given.headers["x-request-id"]) == (200, f"r-{number}")


def numbered(number: int, body: bytes = CHAT, *, headers: bytes = b"") -> bytes:
    return post(body, headers=b"x-request-id: r-%d\r\n%b" % (number, headers))


# ---- slow to send ----


@on_both_loops
def test_a_body_may_take_longer_than_a_head(uv: bool) -> None:
    """Each has its own time; pieces of the body are not taken for the next head."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            data = post()
            await client.send(data[: -len(CHAT)])
            for at in range(len(data) - len(CHAT), len(data), 12):
                await asyncio.sleep(0.1)
                await client.send(data[at : at + 12])
            assert (await client.answer()).status == 200

    direct(test, play=whole, server="head_timeout_s = 0.2\nbody_timeout_s = 20", uv=uv)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_drips_has_no_more_time_than_one_that_stops(framing: str) -> None:
    """Every piece is progress, and none of it buys time."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            if framing == "length":
                await client.send(post()[: -len(CHAT)])
            else:
                await client.send(post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked"))
            answering = asyncio.ensure_future(client.answer())
            while not answering.done():
                with_framing = b"{" if framing == "length" else chunk(b"{")
                client.writer.write(with_framing)
                await asyncio.sleep(0.05)
            given = await answering
            assert (given.status, given.code) == (408, "body_timeout")

    direct(test, play=whole, server="head_timeout_s = 0.3\nbody_timeout_s = 0.3")


def test_a_second_head_has_no_more_time_than_the_first() -> None:
    """A part of it that came with the request before is not an idle connection."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post() + post()[:20])
            assert (await client.answer()).status == 200
            assert (await client.answer()).status == 408

    direct(test, play=whole, server="head_timeout_s = 0.3\nkeep_alive_s = 60")


def test_an_empty_line_after_a_request_is_forgiven() -> None:
    """Before the next request it means nothing, and as the last word of a client it is no request."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            for _ in range(3):
                await client.send(post() + b"\r\n")
                assert (await client.answer()).status == 200
            assert await client.closed() == b""

    direct(test, play=whole, server="head_timeout_s = 0.3\nkeep_alive_s = 0.3")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00", b"{}", b"\r\n{", b"get "])
def test_what_is_not_http_is_told_so_at_once(data: bytes) -> None:
    """A TLS hello on the plain port need not wait for a timeout."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(data)
            given = await client.answer()
            assert (given.status, given.code) == (400, "invalid_request")
            assert await client.closed() == b""

    direct(test, play=whole, server="head_timeout_s = 60")


# ---- sending too much ----


@on_both_loops
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_client_reads_why_even_if_it_sends_everything_first(framing: str, uv: bool) -> None:
    """The connection is not reset under a client that is still sending a body that is too large."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            body = b'{"x":"%b"}' % (b"y" * 20_000_000)
            if framing == "length":
                await client.send(post(body))
            else:
                await client.send(post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked"))
                await client.send(chunk(body) + LAST_CHUNK)
            given = await client.answer()
            assert (given.status, given.code) == (413, "body_too_large")
            assert await client.closed() == b""
        assert stage.posts == []

    direct(test, play=whole, uv=uv)


def test_a_client_that_goes_on_after_its_refusal_is_not_heard_for_ever() -> None:
    """It has as long as a body may take."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post().replace(b"content-length: ", b"content-length: 99999999"))
            assert (await client.answer()).status == 413
            await until(lambda: stage.connections == 0)

    direct(test, play=whole, server="body_timeout_s = 0.3")


# ---- pipelining ----


@on_both_loops
def test_answers_are_not_piled_up_for_a_client_that_does_not_read(uv: bool) -> None:
    """The next of its requests is served when it has taken the answer before."""

    async def test(stage: Direct) -> None:
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(b"".join(numbered(number) for number in range(6)))
            await until(lambda: stage.unsent > 0)
            served = len(stage.posts)
            await asyncio.sleep(0.3)
            assert len(stage.posts) == served
            assert stage.unsent < 1.1 * len(BIG)
            await expect(client, *range(6))

    direct(test, play=big, uv=uv)


@on_both_loops
def test_a_large_pipeline_is_served_in_turn(uv: bool) -> None:
    """More than is read ahead: the rest waits in the kernel."""
    padded = CHAT[:-1] + b',"metadata":{"x":"%b"}}' % (b"y" * 30_000)

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            sending = asyncio.ensure_future(client.send(b"".join(numbered(i, padded) for i in range(16))))
            await expect(client, *range(16))
            await sending

    direct(test, play=whole, uv=uv)


@on_both_loops
@pytest.mark.parametrize("pipelined", [0, 1, 200_000])
def test_a_client_that_leaves_takes_its_pipeline_along(pipelined: int, uv: bool) -> None:
    """The request that is being answered ends, those behind it never begin, also where nothing is read."""
    gone = asyncio.Event()

    async def play(connection: PeerConnection) -> None:
        await connection.closed_by_peer()
        gone.set()

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            behind = b"" if not pipelined else post(CHAT[:-1] + b" " * pipelined + b"}")
            client.writer.write(post() + behind)
            await until(lambda: len(stage.posts) == 1)
            await asyncio.sleep(0.1)
            client.leave()
        await asyncio.wait_for(gone.wait(), 10)
        await until(lambda: stage.connections == 0)
        assert len(stage.posts) == 1

    direct(test, play=play, uv=uv)


@on_both_loops
def test_a_client_that_leaves_as_its_answer_ends_takes_its_pipeline_along(uv: bool) -> None:
    """In the very moment between two requests too: whatever is served, nobody is left behind."""

    async def test(stage: Direct) -> None:
        for _ in range(20):
            async with stage.connect() as client:
                client.writer.write(post(STREAMED_CHAT) * 3)
                await client.first_piece()
                client.reset()
        await until(lambda: stage.connections == 0)

    direct(test, play=short_stream, uv=uv)


def test_nothing_is_served_after_connection_close() -> None:
    """What follows it is not read; the answer comes, and then the end."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post(headers=b"connection: close\r\n") + post())
            given = await client.answer()
            assert (given.status, given.headers["connection"]) == (200, "close")
            assert await client.closed() == b""
        assert len(stage.posts) == 1

    direct(test, play=whole)


# ---- slow to read ----


@on_both_loops
def test_a_large_answer_may_take_longer_than_a_stall(uv: bool) -> None:
    """A client that takes a little all the time is not cut off, however long it takes."""

    async def test(stage: Direct) -> None:
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post())
            _status, headers = await client.head()
            length = int(headers["content-length"])
            taken = 0
            for _ in range(12):  # several times as long as it may stall
                taken += len(await client.reader.read(8192))
                await asyncio.sleep(0.15)
            taken += len(await client.reader.readexactly(length - taken))
            assert taken == length

    direct(test, play=big, server="write_stall_s = 0.5", uv=uv)


@on_both_loops
@pytest.mark.parametrize("headers", [b"", b"connection: close\r\n"])
def test_an_answer_that_nobody_takes_is_not_kept_for_ever(headers: bytes, uv: bool) -> None:
    """Complete as it is, its connection ends after `write_stall_s`."""

    async def test(stage: Direct) -> None:
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post(headers=headers))
            await client.head()
            await until(lambda: stage.unsent > 0)
            await until(lambda: stage.connections == 0)

    direct(test, play=big, server="write_stall_s = 0.5\nkeep_alive_s = 60", uv=uv)


@on_both_loops
def test_a_stream_that_nobody_takes_ends(uv: bool) -> None:
    """Its replica waits, and is let go after `write_stall_s`; little is held meanwhile."""

    async def test(stage: Direct) -> None:
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post(ENDLESS))
            await client.first_piece()
            await until(lambda: stage.unsent > 65_536)
            assert stage.unsent < 262_144
            await until(lambda: stage.connections == 0)

    direct(test, play=endless_stream, server="write_stall_s = 0.5", uv=uv)


# ---- leaving ----


@on_both_loops
@pytest.mark.parametrize("how", ["leave", "reset", "half_close"])
@pytest.mark.parametrize("headers", [b"", b"connection: close\r\n"])
def test_leaving_is_noticed(how: str, headers: bytes, uv: bool) -> None:
    """By FIN, by RST, and by a client that only says that it will send nothing more."""
    gone = asyncio.Event()

    async def play(connection: PeerConnection) -> None:
        await connection.closed_by_peer()
        gone.set()

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post(headers=headers))
            await until(lambda: len(stage.posts) == 1)
            client.writer.write_eof() if how == "half_close" else getattr(client, how)()
            await asyncio.wait_for(gone.wait(), 10)
            await until(lambda: stage.connections == 0)

    direct(test, play=play, uv=uv)


def test_an_http_1_0_client_that_wants_to_stay_is_closed_all_the_same() -> None:
    """One request a connection, and the answer says so."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post(headers=b"connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
            given = await client.answer()
            assert (given.status, given.headers["connection"]) == (200, "close")
            assert msgspec.json.decode(given.body)["model"] == "m"
            assert await client.closed() == b""

    direct(test, play=whole)


def test_a_client_that_hangs_does_not_keep_others_waiting() -> None:
    """A hundred half-sent requests, and one that is whole."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            writers = []
            for number in range(100):
                _reader, writer = await asyncio.open_connection("127.0.0.1", stage.running.port)
                writer.write((post() if number % 2 else get(b"/livez"))[:-1])
                writers.append(writer)
            await client.send(post())
            assert (await client.answer()).status == 200
            for writer in writers:
                writer.close()
                await writer.wait_closed()

    direct(test, play=whole)


def test_a_replica_that_hangs_is_no_reason_to_cut_off_its_client() -> None:
    """The stall counts only where something waits to be taken."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post())
            given = await client.answer()
            assert (given.status, given.code) == (504, "total_timeout")

    direct(test, play=hang, server="write_stall_s = 0.1", more="[timeouts]\ntotal_s = 0.8")
