"""What the kernel tells of a connection, over real sockets."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from router.serving.kernel import has_hung_up, untaken_bytes
from tests.support.loops import run_strictly
from tests.support.scripted_server import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels tell less")

on_both_loops = pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])


def connected(
    test: Callable[[asyncio.Transport, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    uv: bool,
) -> None:
    """Run `test` with a server's transport that reads nothing, and its client."""

    async def run() -> None:
        accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

        class Deaf(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = cast("asyncio.Transport", transport)

            def data_received(self, _data: bytes) -> None:
                self.transport.pause_reading()
                accepted.set_result(self.transport)

        server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(b"hello")
        transport = await accepted
        try:
            await test(transport, reader, writer)
        finally:
            transport.abort()
            writer.close()
            server.close()
            await asyncio.sleep(0.01)

    run_strictly(run(), uv=uv)


@on_both_loops
@pytest.mark.parametrize("unread", [b"", b"said before"])
def test_a_hang_up_is_seen_without_reading(unread: bytes, uv: bool) -> None:
    """Also behind bytes that nobody has read."""

    async def test(transport: asyncio.Transport, _: object, writer: asyncio.StreamWriter) -> None:
        writer.write(unread)
        await writer.drain()
        assert not has_hung_up(transport)
        writer.close()
        await until(lambda: has_hung_up(transport))
        transport.abort()
        await asyncio.sleep(0.01)
        assert not has_hung_up(transport)
        assert untaken_bytes(transport) == 0

    connected(test, uv=uv)


@on_both_loops
def test_what_the_peer_has_not_taken(uv: bool) -> None:
    """Written bytes count until the peer's machine has them, wherever they wait."""

    async def test(transport: asyncio.Transport, reader: asyncio.StreamReader, _: object) -> None:
        transport.write(b"x" * 30_000_000)
        await until(lambda: len(reader._buffer) > 4096)  # type: ignore[attr-defined]
        before = untaken_bytes(transport)
        assert 0 < before < 30_000_000
        assert before > transport.get_write_buffer_size()
        await reader.readexactly(10_000_000)
        assert untaken_bytes(transport) < before - 5_000_000
        await reader.readexactly(20_000_000)
        await until(lambda: untaken_bytes(transport) == 0)

    connected(test, uv=uv)


def test_no_connection() -> None:
    """Nothing is known of it."""
    assert not has_hung_up(None)
    assert untaken_bytes(None) == 0
