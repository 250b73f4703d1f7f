"""The upstream client: pooling, strictness, and one receiver per request, on real sockets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.api.errors import Overloaded, UpstreamError, UpstreamProtocol, UpstreamReset
from router.flow.connection import Connection
from router.flow.upstream import Address, Keeping, Upstream
from router.flow.upstreams import Upstreams
from tests.support.bare_replicas import replica
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, Script, answer, chunk, scripted_peer


class Collected:
    """A receiver that keeps everything and says when it is over."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.over = asyncio.Event()
        self.error: UpstreamError | None = None

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        assert self.status == 0
        self.status, self.headers = status, headers

    def data(self, data: bytes) -> None:
        assert not self.over.is_set()
        self.body += data

    def complete(self) -> None:
        assert not self.over.is_set()
        self.over.set()

    def broken(self, error: UpstreamError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()


async def post(upstream: Upstream, connection: Connection | None = None) -> tuple[Collected, Connection]:
    connection = connection or upstream.idle_connection() or await upstream.connect()
    collected = Collected()
    connection.send(upstream.request("/v1/x", b"{}", streams=False), collected)
    await asyncio.wait_for(collected.over.wait(), 5)
    return collected, connection


def against(script: Script, test: Callable[[Upstream], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with scripted_peer(script) as peer:
            upstream = Upstream(peer.url, Keeping(**options))  # type: ignore[arg-type]
            try:
                await test(upstream)
            finally:
                upstream.close()

    asyncio.run(run())


def always(data: bytes) -> Script:
    async def script(connection: PeerConnection) -> None:
        while True:
            await connection.request()
            await connection.send(data)

    return script


@pytest.mark.parametrize(
    ("url", "authority", "port", "prefix"),
    [
        ("http://h:8000", "h:8000", 8000, ""),
        ("http://h", "h", 80, ""),
        ("https://h/base/", "h", 443, "/base"),
        ("http://[::1]:5", "[::1]:5", 5, ""),
    ],
)
def test_addresses(url: str, authority: str, port: int, prefix: str) -> None:
    """Where to connect and what to call it, from a replica's URL."""
    address = Address.from_url(url)
    assert (address.authority, address.port, address.prefix) == (authority, port, prefix)


def test_a_connection_is_used_again() -> None:
    """A hundred requests in a row need one connection."""

    async def test(upstream: Upstream) -> None:
        first = None
        for _ in range(100):
            collected, connection = await post(upstream)
            assert (collected.status, collected.body) == (200, b'{"a":1}')
            first = first or connection
            assert connection is first
        assert upstream.open_connections == 1

    against(always(answer(b'{"a":1}')), test)


def test_chunks_arrive_without_their_framing_however_they_are_split() -> None:
    """Transfer coding is removed, byte by byte or all at once."""
    whole = STREAM_HEAD + chunk(b"hello ") + chunk(b"world") + LAST_CHUNK

    async def bytewise(connection: PeerConnection) -> None:
        await connection.request()
        for byte in whole:
            await connection.send(bytes([byte]))
        await connection.request()
        await connection.send(whole)
        await connection.closed_by_peer()

    async def test(upstream: Upstream) -> None:
        for _ in range(2):
            collected, _connection = await post(upstream)
            assert collected.error is None
            assert collected.body == b"hello world"
        assert upstream.open_connections == 1

    against(bytewise, test)


@pytest.mark.parametrize(
    "data",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_broken_protocol_is_one_error_and_the_connection_is_gone(data: bytes) -> None:
    """Junk, double framing, upgrades, floods and giants are UpstreamProtocol, once."""

    async def test(upstream: Upstream) -> None:
        collected, _connection = await post(upstream)
        assert isinstance(collected.error, UpstreamProtocol)
        assert upstream.open_connections == 0
        assert upstream.idle_connection() is None

    against(always(data), test)


def test_an_interim_answer_is_skipped() -> None:
    """103 and 100 before the answer change nothing."""
    data = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer(b"ok")

    async def test(upstream: Upstream) -> None:
        for _ in range(2):
            collected, _connection = await post(upstream)
            assert (collected.status, collected.body, collected.error) == (200, b"ok", None)
            assert b"link" not in collected.headers

    against(always(data), test)


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\n", STREAM_HEAD, STREAM_HEAD + chunk(b"x"), STREAM_HEAD + b"5\r\nhe"]
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_lost_connection_is_a_reset_wherever_it_happens(sent: bytes, how: str) -> None:
    """Before the head, in it, before a chunk, between chunks, inside one."""

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(sent)
        await asyncio.sleep(0.02)
        if how == "reset":
            connection.reset()

    async def test(upstream: Upstream) -> None:
        collected, _connection = await post(upstream)
        assert isinstance(collected.error, UpstreamReset)
        assert upstream.open_connections == 0

    against(script, test)


def test_a_body_without_framing_ends_with_the_connection() -> None:
    """HTTP/1.0 style answers are read to their end, and the connection is not kept."""

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    async def test(upstream: Upstream) -> None:
        collected, _connection = await post(upstream)
        assert (collected.body, collected.error) == (b"hello", None)
        assert upstream.open_connections == 0

    against(script, test)


def test_bytes_after_an_answer_are_never_the_next_answer() -> None:
    """A desynchronised connection is dropped, counted, and its surplus read by nobody."""
    surplus = answer(b"first") + answer(b"stolen")

    async def test(upstream: Upstream) -> None:
        collected, connection = await post(upstream)
        assert not connection.usable
        assert collected.body in (b"first", b"")
        assert upstream.idle_connection() is None

    against(always(surplus), test)


def test_surplus_that_comes_later_drops_an_idle_connection() -> None:
    """Bytes that nobody asked for end an idle connection before anyone can use it."""

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(answer(b"first"))
        await asyncio.sleep(0.02)
        await connection.send(answer(b"stolen"))
        await connection.closed_by_peer()

    async def test(upstream: Upstream) -> None:
        await post(upstream)
        while upstream.open_connections:
            await asyncio.sleep(0.005)
        assert upstream.desynchronisations == 1

    against(script, test)


def test_connection_close_is_honoured() -> None:
    """What says that it closes is not kept."""
    data = answer(b"x", headers=b"connection: close\r\n")

    async def test(upstream: Upstream) -> None:
        await post(upstream)
        assert upstream.idle_connection() is None

    against(always(data), test)


def test_idle_connections_are_dropped_before_the_peer_would() -> None:
    """Past `idle_s` a connection is neither used nor kept."""

    async def test(upstream: Upstream) -> None:
        _collected, connection = await post(upstream)
        connection.idle_since -= 10
        upstream.expire()
        assert upstream.open_connections == 0
        _collected, connection = await post(upstream)
        connection.idle_since -= 10
        assert upstream.idle_connection() is None

    against(always(answer(b"x")), test, idle_s=4.0)


def test_refused_and_unanswered_connections() -> None:
    """Nobody listening is a reset at once; a full backlog is one after `connect_s`."""

    async def test() -> None:
        async with scripted_peer(always(b"")) as peer:
            url = peer.url
        with pytest.raises(UpstreamReset, match="refused"):
            await Upstream(url).connect()

    asyncio.run(test())


def test_the_request_head() -> None:
    """Host, credentials, length and type; the path behind the URL's own."""
    seen: list[tuple[bytes, bytes]] = []

    async def script(connection: PeerConnection) -> None:
        seen.append(await connection.request())
        await connection.send(answer(b"x"))

    async def run() -> None:
        async with scripted_peer(script) as peer:
            upstream = Upstream(peer.url + "/base", api_key="sk-replica")
            connection = await upstream.connect()
            collected = Collected()
            connection.send(
                upstream.request("/v1/x", b'{"a":1}', streams=True, headers=b"x-a: b\r\n"), collected
            )
            await asyncio.wait_for(collected.over.wait(), 5)
            upstream.close()
            host = peer.url.removeprefix("http://")
        head, body = seen[0]
        assert body == b'{"a":1}'
        assert head == (
            b"POST /base/v1/x HTTP/1.1\r\nhost: "
            + host.encode()
            + b"\r\nauthorization: Bearer sk-replica\r\n"
            b"content-type: application/json\r\naccept: text/event-stream\r\nx-a: b\r\ncontent-length: 7\r\n\r\n"
        )

    asyncio.run(run())


def test_abort_is_seen_by_the_peer() -> None:
    """Closing our end reaches the replica, which is how it learns that the client has gone."""
    gone = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(b"x"))
        await connection.closed_by_peer()
        gone.set()

    async def test(upstream: Upstream) -> None:
        connection = await upstream.connect()
        collected = Collected()
        connection.send(upstream.request("/", b"", streams=True), collected)
        while not collected.body:
            await asyncio.sleep(0.005)
        connection.abort()
        await asyncio.wait_for(gone.wait(), 5)
        assert collected.error is None
        assert upstream.open_connections == 0

    against(script, test)


def test_connections_are_bounded() -> None:
    """At the limit another one is refused as overload; when one is given back there is room."""

    async def test(upstream: Upstream) -> None:
        first, second = await upstream.connect(), await upstream.connect()
        with pytest.raises(Overloaded):
            await upstream.connect()
        first.abort()
        third = await upstream.connect()
        assert upstream.open_connections == 2
        second.abort()
        third.abort()

    against(always(answer(b"x")), test, max_connections=2)


def test_connections_to_a_replica_that_is_gone() -> None:
    """What is idle is closed, what is in use is left to its end; then nothing is kept of it."""

    async def run() -> None:
        async with scripted_peer(always(answer(b"x"))) as peer:
            upstreams = Upstreams(Keeping())
            gone = replica(peer.url)
            connection = await upstreams.of(gone).connect()
            upstreams.keep([])
            assert connection.usable
            collected, _ = await post(upstreams.of(gone), connection)
            assert collected.body == b"x"
            upstreams.keep([gone])
            assert upstreams.open_connections == 1
            upstreams.keep([])
            assert upstreams.open_connections == 0
            assert not connection.usable
            assert upstreams._by_replica == {}

    asyncio.run(run())


def test_how_connections_are_kept_may_change() -> None:
    """For those that are there, too."""

    async def run() -> None:
        async with scripted_peer(always(answer(b"x"))) as peer:
            upstreams = Upstreams(Keeping())
            upstream = upstreams.of(replica(peer.url))
            await post(upstream)
            upstreams.renew(Keeping(idle_s=0.0, max_connections=1))
            assert upstream.idle_connection() is None
            connection = await upstream.connect()
            with pytest.raises(Overloaded):
                await upstream.connect()
            connection.abort()

    asyncio.run(run())
