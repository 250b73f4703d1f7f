"""The direct front end: HTTP/1.1 from the socket to an exchange, with no ASGI between.

A connection whose request is an inference POST is served here; any other is handed, whole and for
good, to the ordinary protocol that hosts the ASGI app. A message is framed by what its head says
and by nothing else, within budgets of bytes, fields and time.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol, cast

from router.api.errors import BodyTimeout, HeadersTooLarge, RequestError, TurnoutError
from router.flow.exchange import Exchange, Header
from router.serving.head import Budget, ChunkedBody, Head, read_head

Serve = Callable[[Exchange], None]
"""Takes an exchange and sees to it that it is answered."""

_REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout",
}  # fmt: skip
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()}
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
        exchange = self._exchange = Http1Exchange(self, self._host, head, body)
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
        self._exchange = Http1Exchange(self, self._host, head, b"")
        self._host.refuse(self._exchange, error)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Http1Exchange:
    """One request on a connection, and its answer; see `router.flow.exchange.Exchange`."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_date_line",
        "_http_1_0",
        "_pending",
        "body",
        "bytes_out",
        "disconnected",
        "headers",
        "method",
        "on_disconnect",
        "on_pause",
        "on_resume",
        "path",
        "received_at",
    )

    def __init__(self, connection: HttpConnection, host: Host, head: Head, body: bytes) -> None:
        self._connection = connection
        self._date_line = host.date_line
        self._pending = b""
        self._chunked = False
        self._http_1_0 = head.http_1_0
        self.method = head.method
        self.path = head.path
        self.headers = head.headers
        self.body = body
        self.received_at = monotonic()
        self.bytes_out = 0
        self.disconnected = False
        self.on_disconnect: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    def start(self, status: int, headers: Sequence[Header], length: int | None) -> None:
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._date_line()]
        lines += [b"%b: %b\r\n" % header for header in headers]
        if length is None:
            # An HTTP/1.0 client knows no chunks: its body ends where the connection does.
            self._chunked = not self._http_1_0
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        else:
            lines.append(b"content-length: %d\r\n" % length)
        lines.append(b"connection: close\r\n\r\n" if self._connection.closes else b"\r\n")
        self._pending = b"".join(lines)

    def write(self, data: bytes) -> None:
        if self.disconnected or not data:
            return
        self.bytes_out += len(data)
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._pending, len(data), data)
        elif self._pending:
            data = self._pending + data
        self._pending = b""
        self._connection.write(data)

    def finish(self) -> None:
        if self.disconnected:
            return
        rest = self._pending + b"0\r\n\r\n" if self._chunked else self._pending
        if rest:
            self._connection.write(rest)
        self._connection.finished()

    def abort(self) -> None:
        if not self.disconnected:
            self._connection.abort()

    def lost(self) -> None:
        """The connection is gone."""
        self.disconnected = True
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()
