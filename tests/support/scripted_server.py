"""A small HTTP/1.1 server on loopback that answers as it is told to, also badly."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", content_type: str = "text/plain") -> Reply:
    """A correct answer."""
    head = (
        f"HTTP/1.1 {status} Whatever\r\ncontent-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
    )

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return reply


def raw(content: bytes) -> Reply:
    """Any bytes, and then the connection ends."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        writer.close()

    return reply


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """No answer until the client gives up."""
    await reader.read()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head, and then a body that never ends, a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"#")
        await writer.drain()
        await asyncio.sleep(0.01)


class ScriptedServer:
    """`replies` by path may be changed at any time; a path that has none is answered with 404."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.seen: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.methods: list[str] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen: on a free port at first, on the same one after a `stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and cut the open ones."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                    method, path, _ = head[0].split(" ")
                    self.methods.append(method)
                    self.headers.append(dict(line.lower().split(": ", 1) for line in head[1:] if line))
                    self.seen[path] += 1
                    await self.replies.get(path, answer(404))(reader, writer)
                    await writer.drain()
        except asyncio.CancelledError:
            # The loop ends with a reply under way, as it should where one hangs.
            return
        finally:
            self._open.discard(writer)
            writer.close()


@contextlib.asynccontextmanager
async def serving(**replies: Any) -> AsyncIterator[ScriptedServer]:
    """A server that listens. Replies may be named by path without its first slash, for short tests."""
    server = ScriptedServer()
    server.replies = {f"/{name}": reply for name, reply in replies.items()}
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for what other tasks bring about."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
