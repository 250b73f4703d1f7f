"""A bare HTTP/1.1 client for simulated engines: it keeps every chunk, and says whether the body was whole."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.engine.server import RunningEngine, engine_options, serve_engine


@dataclass(slots=True)
class Reply:
    """One answer. `whole` is False if the connection ended before the body did."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The JSON of every `data:` event but `[DONE]`."""
        lines = [line for line in self.text.split("\n") if line.startswith("data:")]
        return [json.loads(line[5:]) for line in lines if "[DONE]" not in line]


@contextlib.asynccontextmanager
async def engine(dialect: str, *, speed: float = 200.0, **changes: object) -> AsyncIterator[RunningEngine]:
    """A running replica, much faster than the real thing. `extra` is the dialect's own options."""
    running = await serve_engine(engine_options(dialect, speed=speed, **changes))
    async with running:
        yield running


async def post(
    running: RunningEngine,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    port: str = "http",
) -> Reply:
    """POST JSON; bytes go out as they are."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return await call(
        running, "POST", path, content, {"content-type": "application/json", **(headers or {})}, port
    )


async def get(running: RunningEngine, path: str, port: str = "http") -> Reply:
    return await call(running, "GET", path, b"", {}, port)


async def call(
    running: RunningEngine,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    port: str = "http",
) -> Reply:
    """One request on a connection of its own, read to its end."""
    async with opened(running, method, path, body, headers, port) as (reply, reader, _):
        await read_body(reply, reader)
        return reply


@contextlib.asynccontextmanager
async def opened(
    running: RunningEngine,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    port: str = "http",
) -> AsyncIterator[tuple[Reply, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A request whose head was read; the connection is closed in the end."""
    reader, writer = await asyncio.open_connection(running.host, running.ports[port])
    try:
        lines = [f"{method} {path} HTTP/1.1", "host: engine", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        yield await read_head(reader), reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return Reply(int(status.split()[1]), {name.lower(): value for name, value in pairs})


async def read_body(reply: Reply, reader: asyncio.StreamReader) -> None:
    """Fill in the rest of the answer."""
    if reply.headers.get("transfer-encoding") != "chunked":
        with contextlib.suppress(asyncio.IncompleteReadError):
            reply.chunks.append(await reader.readexactly(int(reply.headers["content-length"])))
            reply.whole = True
        return
    while (chunk := await read_chunk(reader)) is not None:
        if not chunk:
            reply.whole = True
            return
        reply.chunks.append(chunk)


async def read_chunk(reader: asyncio.StreamReader) -> bytes | None:
    """The next chunk; empty at the end of the body, None if the connection ended first."""
    try:
        size = int((await reader.readuntil(b"\r\n")).strip(), 16)
        return (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def until(condition: Any, *, within_s: float = 5.0) -> None:
    """Wait until a callable is true; TimeoutError if it does not become so."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
