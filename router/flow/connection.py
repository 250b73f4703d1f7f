"""One HTTP/1.1 connection to a replica: one request at a time, abort = close.

Strict on what comes back: a capped head, no answer without a request, no bytes after an answer, no
protocol switch. Redirects are not followed, cookies not kept, encodings not asked for.
"""

import asyncio
import logging
from typing import Protocol, cast

import httptools

from router.api.errors import UpstreamError, UpstreamProtocol, UpstreamReset

log = logging.getLogger("turnout.flow")

_MAX_INTERIM_ANSWERS = 8
_MAX_HEADERS = 128
_FRAMING = (b"content-length", b"transfer-encoding")


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


class Keeper(Protocol):
    """Who keeps a replica's connections; `router.flow.upstream.Upstream` is one."""

    buffer: memoryview
    """What a read is put into; nobody holds on to it."""
    desynchronisations: int

    @property
    def max_head_bytes(self) -> int: ...

    def release(self, connection: "Connection") -> None:
        """It is free for another request."""
        ...

    def forget(self, connection: "Connection") -> None:
        """It is gone."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One connection to a replica; `receiver` is set while an answer is awaited."""

    def __init__(self, upstream: Keeper) -> None:
        self._upstream = upstream
        self._buffer = upstream.buffer
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        # What httptools calls with a piece of the body: one a token, so no Python stands in between.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
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
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer[:nbytes]
        receiver = self._receiver
        if receiver is None:
            # Nobody asked for this: no later request may read it as its answer.
            self._upstream.desynchronisations += 1
            self.abort()
            return
        self.silent = False
        if self._in_head:
            self._head_bytes += nbytes
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
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if self._receiver is receiver:
                receiver.data(body)
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
