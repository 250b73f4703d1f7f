"""A TCP proxy on loopback that slows, holds or cuts what goes through it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import cast


class ToxicProxy:
    """Set `delay_s` for what goes to the server from now on; `holding` loses everything.

    New connections go to the `target_port` of their moment.
    """

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.delay_s = 0.0
        self.holding = False
        self.accepted = 0
        self.port = 0
        self.target_port = target_port
        self._server: asyncio.Server | None = None
        self._ways: set[_Way] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def listen(self) -> None:
        """On the same port each time."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._front, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End every connection."""
        for way in list(self._ways):
            way.end()

    def refuse(self) -> None:
        """Cut, and take no new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def _front(self) -> "_Way":
        self.accepted += 1
        way, back = _Way(self), _Way(self)
        way.other, back.other = back, way
        self._ways |= {way, back}
        loop = asyncio.get_running_loop()
        way.connecting = loop.create_task(self._connect(back))
        return way

    async def _connect(self, back: "_Way") -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", self.target_port)
            return
        back.end()

    def forget(self, way: "_Way") -> None:
        self._ways.discard(way)


class _Way(asyncio.Protocol):
    """One end of one connection: what comes in here goes out at the other."""

    other: "_Way"
    connecting: asyncio.Task[None] | None = None

    def __init__(self, proxy: ToxicProxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._ended:
            self._transport.abort()
        for data in self._early:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._proxy.holding:
            return
        loop = asyncio.get_running_loop()
        if self.connecting is not None:
            # What comes later does not overtake what is still held.
            self._due_at = max(self._due_at, loop.time() + self._proxy.delay_s)
        if self._due_at > loop.time():
            loop.call_at(self._due_at, self.other.write, data)
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._ended:
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        self._proxy.forget(self)
        self.other.end()


@contextlib.asynccontextmanager
async def toxic_proxy(target_port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[ToxicProxy]:
    """With `tls` its clients speak TLS to it; the server does not."""
    proxy = ToxicProxy(target_port, tls)
    await proxy.listen()
    try:
        yield proxy
    finally:
        proxy.refuse()
        await asyncio.sleep(0)
