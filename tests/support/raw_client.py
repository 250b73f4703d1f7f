"""A client over a bare socket: sends any bytes, reads one answer at a time."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":8}'
STREAMED_CHAT = CHAT[:-1] + b',"stream":true}'
PATIENCE_S = 20.0
"""Nothing that is waited for takes so long, on the slowest machine."""


def post(
    body: bytes = CHAT,
    *,
    path: bytes = b"/v1/chat/completions",
    headers: bytes = b"",
    content_type: bytes = b"application/json",
) -> bytes:
    """An inference request. `headers` are whole lines."""
    head = b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n"
    return head % (path, content_type, headers, len(body)) + body


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % path


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the error that it holds."""
        code: str = msgspec.json.decode(self.body)["error"]["code"]
        return code

    @property
    def events(self) -> list[bytes]:
        """The data of its server-sent events; fails if they are not well-formed."""
        return events_in(self.body)


def events_in(body: bytes) -> list[bytes]:
    """The data of the server-sent events in `body`: unnamed ones of one line each, and nothing else."""
    assert body == b"" or body.endswith(b"\n\n")
    frames = body.split(b"\n\n")[:-1]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    return [frame.removeprefix(b"data: ") for frame in frames]


class RawClient:
    """One connection to a router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (lower-case names) of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = [line.split(": ", 1) for line in lines]
        return int(first.split(" ")[1]), {name.lower(): value for name, value in headers}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces of a chunked body; ends with its terminator."""
        while True:
            async with asyncio.timeout(PATIENCE_S):
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                piece = await self.reader.readexactly(size + 2)
            assert piece.endswith(b"\r\n")
            if not size:
                return
            yield piece[:-2]

    async def body(self, headers: dict[str, str]) -> bytes:
        """The body that `headers` announce. Raises `IncompleteReadError` for one that is cut."""
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([piece async for piece in self.chunks()])
        async with asyncio.timeout(PATIENCE_S):
            if "content-length" in headers:
                return await self.reader.readexactly(int(headers["content-length"]))
            return await self.reader.read()

    async def answer(self) -> RawAnswer:
        """The next whole answer."""
        status, headers = await self.head()
        return RawAnswer(status, headers, await self.body(headers))

    async def first_piece(self) -> bytes:
        """The first piece of a stream's body, after its head."""
        status, _headers = await self.head()
        assert status == 200
        return await anext(self.chunks())

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    def reset(self) -> None:
        """Leave with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def leave(self) -> None:
        """Leave with FIN, at once."""
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_client(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """A connection, closed at the end. `receive_buffer` bytes (about) are all that its kernel takes unread."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        client = RawClient(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 65536))
    except BaseException:
        sock.close()
        raise
    try:
        yield client
    finally:
        await client.close()
