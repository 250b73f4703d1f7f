"""Pooled HTTP/1.1 to one replica: one request at a time per connection, abort = close.

Strict on what comes back: a capped head, no answer without a request, no bytes after an answer, no
protocol switch. Redirects are not followed, cookies not kept, encodings not asked for.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from router.api.errors import Overloaded, UpstreamError, UpstreamProtocol, UpstreamReset

log = logging.getLogger("turnout.flow")

_MAX_INTERIM_ANSWERS = 8
_MAX_HEADERS = 128
_FRAMING = (b"content-length", b"transfer-encoding")
READ_BYTES = 65536
"""The most that one read takes from a replica."""


class Receiver(Protocol):
    """Takes one answer, synchronously, as it arrives. After `complete` or `broken` comes nothing more."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers (lower-case names)."""
        ...

    def data(self, data: bytes) -> None:
        """Body bytes, free of transfer coding; whatever one read brought."""
        ...

    def complete(self) -> None:
        """The answer ended with correct framing."""
        ...

    def broken(self, error: UpstreamError) -> None:
        """The connection was lost, or the peer broke the protocol."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica listens, from its URL."""

    host: str
    port: int
    prefix: str
    tls: bool

    @classmethod
    def from_url(cls, url: str) -> "Address":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Connection(asyncio.BufferedProtocol):
    """One connection to a replica; `receiver` is set while an answer is awaited."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._loop = upstream.loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._head_bytes = 0
        self._repeated = 0
        self._interim = 0
        self._in_head = True
        # A body with neither length nor chunks ends where the connection does.
        self._until_close = False
        self._complete = False
        self._keep_alive = False
        self._paused = False
        self.reused = False
        self.silent = True
        """No byte of the present answer has arrived."""
        self.idle_since = 0.0

    # ---- for the flow ----

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Write one whole request; the answer goes to `receiver`."""
        self._receiver = receiver
        self._in_head = True
        self._until_close = False
        self._headers = {}  # the trailers of the answer before are nobody's
        self._head_bytes = self._repeated = 0
        self._interim = 0
        self.silent = True
        if self._transport is None or self._transport.is_closing():
            self._break(UpstreamReset("the connection to the replica was closed"))
            return
        self._transport.write(request)

    def pause(self) -> None:
        if self._transport is not None and not self._paused and self.usable:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._paused and self.usable:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once: engines take it as the sign to stop generating."""
        self._receiver = None
        self._upstream.forget(self)
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # ---- asyncio.BufferedProtocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        # One buffer serves all: it is filled and emptied within one callback. Its size bounds what one
        # read can bring after the client has stopped reading.
        return self._upstream.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._upstream.buffer[:nbytes]
        receiver = self._receiver
        if receiver is None:
            self._upstream.desynchronised(self)
            return
        self.silent = False
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(UpstreamProtocol("the replica switched protocols"))
            return
        except httptools.HttpParserError as error:
            if not self._complete:
                self._break(_told_by(error))
                return
            # The answer itself is sound, only what follows it is not.
            self._upstream.desynchronisations += 1
            self._keep_alive = False
        if self._in_head and self._head_bytes > self._upstream.max_head_bytes:
            self._break(UpstreamProtocol("the replica's response head is too large"))
            return
        if self._parts and self._receiver is receiver:
            parts = self._parts
            self._parts = []
            receiver.data(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._complete:
            self._answered(receiver)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.forget(self)
        receiver = self._receiver
        try:
            if receiver is not None and self._until_close and exc is None:
                receiver.complete()
                self._receiver = None
        finally:
            self._break(UpstreamReset("the replica closed the connection before its answer was complete"))

    # ---- httptools ----

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            self._repeated += 1
            if name in _FRAMING:
                raise UpstreamProtocol("the replica's answer has contradictory framing")
        if len(headers) + self._repeated >= _MAX_HEADERS:
            raise UpstreamProtocol("the replica's response head has too many fields")
        headers[name] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        if sum(map(len, headers.values())) > self._upstream.max_head_bytes:
            raise UpstreamProtocol("the replica's response head is too large")
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MAX_INTERIM_ANSWERS:
                raise UpstreamProtocol("the replica sent an unexpected interim answer")
            return
        self._in_head = False
        framings = (b"content-length" in headers) + (b"transfer-encoding" in headers)
        if framings > 1:
            raise UpstreamProtocol("the replica's answer has contradictory framing")
        self._until_close = not framings
        if self._receiver is not None:
            self._receiver.head(status, headers)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._in_head:
            return
        # Read here: after feed_data has returned the parser says no.
        self._keep_alive = self._parser.should_keep_alive()
        self._complete = True

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive = False
            raise UpstreamProtocol("the replica sent bytes after its answer")

    # ---- inside ----

    def _answered(self, receiver: Receiver) -> None:
        if self._receiver is not receiver:
            return
        self._complete = False
        self._in_head = True
        # If it raises, asyncio closes the connection, and the receiver still hears of that.
        receiver.complete()
        if self._receiver is not receiver:
            return
        self._receiver = None
        if self._keep_alive and self.usable:
            self.reused = True
            self.resume()
            self._upstream.release(self)
        else:
            self.abort()

    def _break(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        if self._transport is not None:
            self._transport.abort()
        self._upstream.forget(self)
        if receiver is not None:
            receiver.broken(error)


def _told_by(error: httptools.HttpParserError) -> UpstreamProtocol:
    """What a callback raised comes wrapped."""
    cause = error.__context__
    if isinstance(cause, UpstreamProtocol):
        return cause
    if cause is not None:
        log.error("an answer's head met a defect of the router", exc_info=cause)
    return UpstreamProtocol("the replica did not answer in HTTP")


class Upstream:
    """The connections to one replica: idle ones are kept, last used first, below the engine's own limit.

    vLLM and trtllm-serve close idle connections after 5 s; a request written at that moment is lost,
    so `idle_s` stays below it.
    """

    def __init__(
        self,
        url: str,
        *,
        idle_s: float = 4.0,
        connect_s: float = 1.0,
        max_head_bytes: int = 65536,
        max_connections: int = 1024,
        api_key: str | None = None,
        buffer: memoryview | None = None,
    ) -> None:
        self.address = Address.from_url(url)
        self.max_head_bytes = max_head_bytes
        self.loop = asyncio.get_running_loop()
        self.buffer = buffer or memoryview(bytearray(READ_BYTES))
        self.desynchronisations = 0
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._max_connections = max_connections
        self._connecting = 0
        self._tls = ssl.create_default_context() if self.address.tls else None
        self._credentials = (
            b"" if api_key is None else b"authorization: Bearer %b\r\n" % api_key.encode("latin-1")
        )
        self._heads: dict[str, bytes] = {}

    def idle_connection(self) -> Connection | None:
        """The freshest idle connection that is still good, without waiting."""
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < self._idle_s:
                return connection
            connection.abort()
        return None

    async def connect(self) -> Connection:
        """A new connection.

        Raises `UpstreamReset` or `UpstreamProtocol` if there is none within `connect_s`, `Overloaded` at
        `max_connections`.
        """
        if len(self._open) + self._connecting >= self._max_connections:
            raise Overloaded("every connection to the replica is in use", retry_after_s=1.0)
        self._connecting += 1
        try:
            connection = await self._dial()
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    async def _dial(self) -> Connection:
        address = self.address
        try:
            async with asyncio.timeout(self._connect_s):
                transport, connection = await self.loop.create_connection(
                    lambda: Connection(self), address.host, address.port, ssl=self._tls
                )
        except TimeoutError as error:
            raise UpstreamReset("the replica did not accept a connection in time") from error
        except ssl.SSLError as error:
            raise UpstreamProtocol("the replica failed the TLS handshake") from error
        except OSError as error:
            raise UpstreamReset("the replica refused the connection") from error
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, path: str, body: bytes, *, streams: bool, headers: bytes = b"") -> bytes:
        """A whole POST of JSON as bytes. `headers` are complete lines, each with its line end."""
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = (
                b"POST %b HTTP/1.1\r\nhost: %b\r\n%bcontent-type: application/json\r\n"
                % (
                    (self.address.prefix + path).encode("ascii"),
                    self.address.authority.encode("ascii"),
                    self._credentials,
                )
            )
        accept = b"text/event-stream" if streams else b"application/json"
        return b"%baccept: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (head, accept, headers, len(body), body)

    def release(self, connection: Connection) -> None:
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def desynchronised(self, connection: Connection) -> None:
        """Bytes arrived that nobody asked for: no later request may read them as its answer."""
        self.desynchronisations += 1
        connection.abort()

    def expire(self) -> None:
        """Close what has been idle too long."""
        now = monotonic()
        while self._idle and now - self._idle[0].idle_since >= self._idle_s:
            self._idle.pop(0).abort()

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    @property
    def open_connections(self) -> int:
        return len(self._open)
