"""Requests for the ASGI app are held to the same budget as all others, one message after the other."""

import asyncio
import contextlib

import pytest

from router.serving import front
from tests.support.direct import Direct, direct
from tests.support.flow import WHOLE
from tests.support.peers import LAST_CHUNK, PeerConnection, answer, chunk
from tests.support.raw_client import CHAT, RawClient, get, post
from tests.support.scripted_server import until

LIVE = get(b"/livez")


@pytest.fixture(autouse=True)
def often_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at every second; the tests need not wait for that."""
    monkeypatch.setattr(front, "_SWEEP_S", 0.05)


async def whole(connection: PeerConnection) -> None:
    await connection.send(answer(WHOLE))


async def is_live(client: RawClient) -> bool:
    given = await client.answer()
    return (given.status, given.body) == (200, b"alive\n")


@pytest.mark.parametrize("uv", [False, True])
def test_requests_of_both_kinds_on_one_connection(uv: bool) -> None:
    """Kept alive through all of them, whatever comes first, bodies included."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            for request, status in [
                (post(), 200), (LIVE, 200), (post(), 200), (get(b"/v1/models"), 200), (post(path=b"/nowhere"), 404),
                (LIVE, 200), (post(b"{", path=b"/v1/models"), 405), (post(), 200),
            ]:  # fmt: skip
                await client.send(request)
                assert (await client.answer()).status == status

    direct(test, play=whole, uv=uv)


def test_they_may_come_byte_by_byte() -> None:
    """Head and body, and two of them."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            for byte in LIVE + post(path=b"/nowhere") + LIVE:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await is_live(client)
            assert (await client.answer()).status == 404
            assert await is_live(client)

    direct(test, play=whole)


def test_they_may_be_pipelined() -> None:
    """Answered in order, heads and bodies told apart; empty lines between them are forgiven."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE + post(LIVE, path=b"/nowhere") + b"\r\n" + LIVE + post() + LIVE)
            assert await is_live(client)
            assert (await client.answer()).status == 404
            assert await is_live(client)
            assert (await client.answer()).status == 200
            assert await is_live(client)

    direct(test, play=whole)


REFUSED = [
    (b"GET /livez HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 70_000, 431, "headers_too_large"),
    (b"GET /livez HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
    (b"GET /" + b"y" * 70_000, 431, "headers_too_large"),
    (b"GET /livez HTTP/1.1\nhost: h\n\n", 400, "invalid_request"),
    (b"GET /livez HTTP/1.1\r\n\r\n", 400, "invalid_request"),
    (b"GET /livez HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n", 400, "invalid_request"),
    (b"GET /livez HTTP/1.1\r\nhost: h\r\n x: folded\r\n\r\n", 400, "invalid_request"),
    (b"GET /livez HTTP/1.1\r\nhost : h\r\n\r\n", 400, "invalid_request"),
    (b"GET /livez HTTP/2.0\r\nhost: h\r\n\r\n", 400, "invalid_request"),
    (b"GET  /livez HTTP/1.1\r\nhost: h\r\n\r\n", 400, "invalid_request"),
    (b"GET /livez\r\n\r\n", 400, "invalid_request"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"),
    (b"CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n", 400, "invalid_request"),
    (b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n", 400, "invalid_request"),
    (b"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: 999999999\r\n\r\n", 413, "body_too_large"),
    (
        b"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_request",
    ),
]


@pytest.mark.parametrize(("data", "status", "code"), REFUSED)
def test_what_is_refused_elsewhere_is_refused_here(data: bytes, status: int, code: str) -> None:
    """One answer, and nothing that follows is read as a request."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            client.writer.write(data + LIVE)
            given = await client.answer()
            assert (given.status, given.code) == (status, code)
            assert await client.closed() == b""

    direct(test, play=whole)


@pytest.mark.parametrize("data", [row[0] for row in REFUSED])
def test_behind_another_request_it_ends_the_connection(data: bytes) -> None:
    """Without a word, which could land in the middle of an answer."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE)
            assert await is_live(client)
            client.writer.write(data + LIVE)
            with contextlib.suppress(ConnectionError):
                assert await client.closed() == b""
            await until(lambda: stage.connections == 0)

    direct(test, play=whole)


def test_a_first_head_that_does_not_come_is_told_so() -> None:
    """408, as where inference is asked for."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE[:9])
            assert (await client.answer()).status == 408
            assert await client.closed() == b""

    direct(test, play=whole, server="head_timeout_s = 0.2\nkeep_alive_s = 60")


def test_a_body_that_does_not_come_ends_the_connection() -> None:
    """Nobody reads it, but it has to be there before the next request."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post(path=b"/nowhere")[:-3])
            with contextlib.suppress(ConnectionError):
                assert await client.closed() == b""
            await until(lambda: stage.connections == 0)

    direct(test, play=whole, server="body_timeout_s = 0.2\nkeep_alive_s = 60")


def test_a_connection_whose_bodies_come_late_is_idle_after_them_too() -> None:
    """The server's clock would stop at bytes that come after its answer."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            request = post(path=b"/nowhere")
            for byte in request:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer()).status == 404
            assert await client.closed() == b""

    direct(test, play=whole, server="keep_alive_s = 1")


@pytest.mark.parametrize("size", [1, 1000])
def test_chunks_behind_an_ordinary_request(size: int) -> None:
    """An inference request as good as any other; where the next would begin is not known, so it is the last."""
    data = post(b"", headers=b"connection: keep-alive\r\n")
    data = data.replace(b"content-length: 0", b"transfer-encoding: chunked")
    data += chunk(CHAT[:9]) + chunk(CHAT[9:]) + LAST_CHUNK

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE)
            assert await is_live(client)
            for at in range(0, len(data), size):
                await client.send(data[at : at + size])
                await asyncio.sleep(0)
            given = await client.answer()
            assert (given.status, given.headers["connection"]) == (200, "close")
            assert await client.closed() == b""
        assert len(stage.posts) == 1

    direct(test, play=whole)


def test_a_client_that_waits_to_be_asked_for_its_body() -> None:
    """Asked once, behind an ordinary request too."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE)
            assert await is_live(client)
            data = post(headers=b"expect: 100-continue\r\n")
            await client.send(data[: -len(CHAT)])
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(CHAT)
            assert (await client.answer()).status == 200
            await client.send(LIVE)
            assert await is_live(client)

    direct(test, play=whole)


@pytest.mark.parametrize("behind", [b"", LIVE])
def test_a_later_head_has_no_more_time_than_the_first(behind: bytes) -> None:
    """However much is left of the time that an idle connection has."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE + LIVE[:9])
            assert await is_live(client)
            with contextlib.suppress(ConnectionError):
                assert await client.closed() == b""

    direct(test, play=whole, server="head_timeout_s = 0.2\nkeep_alive_s = 60")


def test_an_idle_connection_stays_for_its_time() -> None:
    """The time of a head does not run where none has begun."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE)
            assert await is_live(client)
            await asyncio.sleep(0.5)
            await client.send(LIVE)
            assert await is_live(client)
            assert await client.closed() == b""

    direct(test, play=whole, server="head_timeout_s = 0.2\nkeep_alive_s = 1")


def test_an_idle_connection_does_not_keep_the_router_from_ending() -> None:
    """Closed with the first signal."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(LIVE)
            assert await is_live(client)
            stage.running.process.stop()
            assert await client.closed() == b""
            await until(lambda: stage.connections == 0)

    direct(test, play=whole)
