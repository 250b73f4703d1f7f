"""The direct front end: HTTP/1.1 from the socket to an exchange, with no ASGI between.

A connection whose request is an inference POST is served here; any other is handed, whole and for
good, to the ordinary protocol that hosts the ASGI app. A message is framed by what its head says
and by nothing else, within budgets of bytes, fields and time.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

from router.api.errors import BodyTimeout, HeadersTooLarge, RequestError, TurnoutError
from router.flow.exchange import Exchange
from router.serving.head import Budget, ChunkedBody, Head, read_head
from router.serving.http1_exchange import Http1Exchange

Serve = Callable[[Exchange], None]
"""Takes an exchange and sees to it that it is answered."""

_NO_HEAD = Head("POST", "/", {}, 0, chunked=False, keep_alive=False, expects_continue=False, http_1_0=False)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Host(Protocol):
    """What a connection needs of the server around it."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    inference_paths: frozenset[bytes]
    draining: bool

    def opened(self, connection: "HttpConnection") -> None: ...
    def closed(self, connection: "HttpConnection") -> None: ...
    def date_line(self) -> bytes: ...
    def serve(self, exchange: Exchange) -> None: ...
    def refuse(self, exchange: Exchange, error: TurnoutError) -> None: ...
    def ordinary(self) -> asyncio.Protocol:
        """A protocol that hosts the ASGI app."""
        ...


class HttpConnection(asyncio.Protocol):
    """One client connection. One request at a time; what a client pipelines waits unread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._budget = host.budget
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._exchange: Http1Exchange | None = None
        self._reading_paused = False
        self._closing = False
        self.deadline = float("inf")
        """When the client has been too slow, monotonic seconds."""

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._host.opened(self)
        self.deadline = monotonic() + self._budget.head_timeout_s

    def data_received(self, data: bytes) -> None:
        if not self._buffer and self._exchange is None:
            self.deadline = monotonic() + self._budget.head_timeout_s
        self._buffer += data
        if self._exchange is not None:
            self._hold_pipelined()
        else:
            self._read()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        self._host.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost()

    def pause_writing(self) -> None:
        self.deadline = monotonic() + self._budget.write_stall_s
        if self._exchange is not None and self._exchange.on_pause is not None:
            self._exchange.on_pause()

    def resume_writing(self) -> None:
        if self._exchange is None:
            self.deadline = monotonic() + self._budget.keep_alive_s
            return
        self.deadline = float("inf")
        if self._exchange.on_resume is not None:
            self._exchange.on_resume()

    # ---- the host ----

    def expire(self) -> None:
        """The deadline has passed: the client is too slow, or the connection idle."""
        if self._exchange is not None or (self._head is None and not self._buffer):
            self.abort()
        else:
            waits_for = "head" if self._head is None else "body"
            self._reject(BodyTimeout(f"the request's {waits_for} did not arrive in time"))

    def shutdown(self) -> None:
        """Answer what is being answered, and close."""
        self._closing = True
        if self._exchange is None and self._transport is not None:
            self._transport.close()

    # ---- reading ----

    def _read(self) -> None:
        try:
            if self._head is None:
                self._read_head()
            if self._head is not None:
                self._read_body(self._head)
        except TurnoutError as error:
            self._reject(error)

    def _read_head(self) -> None:
        buffer, budget = self._buffer, self._budget
        end = buffer.find(b"\r\n\r\n", 0, budget.max_head_bytes)
        if end < 0 and len(buffer) < budget.max_head_bytes and b"\n\n" not in buffer:
            return
        target = bytes(buffer[: buffer.find(b"\r\n")])
        if not target.startswith(b"POST ") or target[5:].partition(b" ")[0] not in self._host.inference_paths:
            self._hand_over()
            return
        if end < 0:
            if len(buffer) >= budget.max_head_bytes:
                raise HeadersTooLarge(f"the request's head is larger than {budget.max_head_bytes} bytes")
            raise RequestError("lines of an HTTP head must end with CR LF")
        head = read_head(bytes(buffer[: end + 4]), budget)
        del buffer[: end + 4]
        self._head = head
        self._chunks = ChunkedBody(budget) if head.chunked else None
        self.deadline = monotonic() + budget.body_timeout_s
        if head.expects_continue and self._transport is not None and not buffer:
            self._transport.write(_CONTINUE)

    def _read_body(self, head: Head) -> None:
        buffer = self._buffer
        if self._chunks is None:
            if len(buffer) < head.length:
                return
            body = bytes(buffer) if len(buffer) == head.length else bytes(buffer[: head.length])
            del buffer[: head.length]
        else:
            done = self._chunks.feed(bytes(buffer))
            buffer.clear()
            if not done:
                return
            body = self._chunks.body
            self._closing = True  # where the next message begins is not known
        self._head = None
        self.deadline = float("inf")
        self._begin(head, body)

    def _begin(self, head: Head, body: bytes) -> None:
        if not head.keep_alive or head.http_1_0 or self._host.draining:
            self._closing = True
        exchange = self._exchange = Http1Exchange(self, head, body, self._host.date_line)
        self._host.serve(exchange)

    def _hold_pipelined(self) -> None:
        if len(self._buffer) > self._budget.max_head_bytes and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _hand_over(self) -> None:
        transport = self._transport
        assert transport is not None
        self._host.closed(self)
        self.deadline = float("inf")
        ordinary = self._host.ordinary()
        transport.set_protocol(ordinary)
        ordinary.connection_made(transport)
        ordinary.data_received(bytes(self._buffer))
        self._buffer.clear()

    # ---- writing, for the exchange ----

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    @property
    def closes(self) -> bool:
        return self._closing

    def finished(self) -> None:
        """The exchange is answered: the next request, or the end."""
        self._exchange = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._closing or self._host.draining:
            transport.close()
            return
        self.deadline = monotonic() + self._budget.keep_alive_s
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()
        if self._buffer:
            self._host.loop.call_soon(self._read_pipelined)

    def _read_pipelined(self) -> None:
        if self._exchange is None and self._buffer:
            self._read()

    def _reject(self, error: TurnoutError) -> None:
        """A message that cannot be framed, or is refused unread: one answer, and the connection ends."""
        self._closing = True
        self._buffer.clear()
        self.deadline = float("inf")
        head = self._head or _NO_HEAD
        self._head = None
        self._exchange = Http1Exchange(self, head, b"", self._host.date_line)
        self._host.refuse(self._exchange, error)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
