"""The direct front end: HTTP/1.1 from the socket to an exchange, with no ASGI between.

A connection whose request is an inference POST is served here; any other is handed, whole and for
good, to the ordinary protocol that hosts the ASGI app (see `ordinary`). A message is framed by what its
head says and by nothing else, within budgets of bytes, fields and time.
"""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol, cast

from router.api.errors import BodyTimeout, TurnoutError
from router.flow.exchange import Exchange
from router.serving.head import CONTINUE, Budget, ChunkedBody, Head, head_size, read_head
from router.serving.http1_exchange import Http1Exchange
from router.serving.kernel import has_hung_up, untaken_bytes
from router.serving.ordinary import ClientConnection, OrdinaryConnection, require_ordinary

Serve = Callable[[Exchange], None]
"""Takes an exchange and sees to it that it is answered."""

_NO_HEAD = Head("POST", "/", {}, 0, chunked=False, keep_alive=False, expects_continue=False, http_1_0=False)

UNCHECKED_BYTES = 65_536
"""A body that is no larger is read before anybody asks whose it is."""

FIRST_REQUEST_S = 0.5
"""What a connection that was accepted last still has, once the listener is closed, to begin its request."""


class Host(Protocol):
    """What a connection needs of the server around it."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    inference_paths: frozenset[str]
    draining: bool

    def opened(self, connection: ClientConnection) -> None: ...
    def closed(self, connection: ClientConnection) -> None: ...
    def date_line(self) -> bytes: ...
    def serve(self, exchange: Exchange) -> None: ...
    def refuse(self, exchange: Exchange, error: TurnoutError) -> None: ...
    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `InvalidApiKey` for a head whose request would be refused for it."""
        ...

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
        self._writing_paused = False
        self._closing = False
        self._lingers = False
        self._answered_bytes = 0
        self._taken = 0
        # When the client has been too slow, monotonic seconds.
        self._deadline = float("inf")

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self._host.opened(self)
        self._deadline = monotonic() + self._budget.head_timeout_s

    def data_received(self, data: bytes) -> None:
        if self._lingers or (self._closing and self._exchange is not None):
            return  # nobody will read it
        if self._exchange is None and self._head is None and not self._buffer and not self._writing_paused:
            self._deadline = monotonic() + self._budget.head_timeout_s
        self._buffer += data
        if self._exchange is not None or self._writing_paused:
            self._hold_pipelined()
        else:
            self._read()

    def eof_received(self) -> bool:
        if self._exchange is not None:
            # A client that has stopped sending is taken for one that has left: on the wire they are equal.
            self.abort()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        self._host.closed(self)
        self._closing = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost()

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._await_reader()
        if self._exchange is not None and self._exchange.on_pause is not None:
            self._exchange.on_pause()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._exchange is None:
            self._go_on()
            return
        self._deadline = float("inf")
        if self._exchange.on_resume is not None:
            self._exchange.on_resume()

    # ---- the host ----

    def look(self, now: float) -> None:
        if self._reading_paused and has_hung_up(self._transport):
            self.abort()
        elif self._deadline <= now:
            self._expire()

    def _expire(self) -> None:
        """The deadline has passed: the client is too slow, or the connection idle."""
        if self._reads_on():
            self._await_reader()
        elif self._exchange is not None or self._closing or self._is_idle:
            self.abort()
        else:
            waits_for = "head" if self._head is None else "body"
            self._reject(BodyTimeout(f"the request's {waits_for} did not arrive in time"))

    @property
    def _is_idle(self) -> bool:
        return self._head is None and not self._buffer.strip(b"\r\n")

    def shutdown(self) -> None:
        """Answer what is being asked, and close. To a new connection the first request may be on its way."""
        self._closing = True
        if self._transport is None or self._exchange is not None or self._head is not None or self._buffer:
            return
        if self._answered_bytes:
            self._transport.close()
        else:
            self._deadline = min(self._deadline, monotonic() + FIRST_REQUEST_S)

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
        size = head_size(buffer, budget)
        if not size:
            return
        head = read_head(bytes(buffer[:size]), budget)
        if head.method != "POST" or head.path not in self._host.inference_paths:
            require_ordinary(head)
            self._hand_over()
            return
        del buffer[:size]
        self._head = head
        if head.length > UNCHECKED_BYTES or head.chunked or head.expects_continue:
            self._host.check(head.headers)
        self._chunks = ChunkedBody(budget) if head.chunked else None
        self._deadline = monotonic() + budget.body_timeout_s
        if head.expects_continue and self._transport is not None and not buffer:
            self._transport.write(CONTINUE)

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
        self._deadline = float("inf")
        self._begin(head, body)

    def _read_pipelined(self) -> None:
        if self._exchange is None and self._head is None and self._buffer and not self._closing:
            self._deadline = monotonic() + self._budget.head_timeout_s
            self._read()

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
        ordinary = OrdinaryConnection(self._host, self._budget, self._host.ordinary())
        transport.set_protocol(ordinary)
        ordinary.connection_made(transport)
        ordinary.data_received(bytes(self._buffer))
        self._buffer.clear()

    # ---- writing, for the exchange ----

    @property
    def closes(self) -> bool:
        return self._closing

    def finished(self) -> None:
        """The exchange is answered: the next request, or the end."""
        if self._exchange is not None:
            self._answered_bytes += self._exchange.wire_bytes
            self._exchange = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._lingers:
            self._linger(transport)
        elif self._closing or self._host.draining:
            self._closing = True
            self._await_reader()
            transport.close()
        elif not self._writing_paused:
            self._go_on()

    def _go_on(self) -> None:
        """The answer has gone out: the next request may come."""
        if self._transport is None or self._closing:
            return
        self._deadline = monotonic() + self._budget.keep_alive_s
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._buffer:
            self._host.loop.call_soon(self._read_pipelined)

    def _await_reader(self) -> None:
        """Give the client `write_stall_s` to take something of what it has been sent."""
        self._taken = self._written_bytes - untaken_bytes(self._transport)
        self._deadline = monotonic() + self._budget.write_stall_s

    def _reads_on(self) -> bool:
        """Whether a client that is being waited for has taken something since."""
        if not (self._writing_paused or self._closing):
            return False
        untaken = untaken_bytes(self._transport)
        return untaken > 0 and self._written_bytes - untaken > self._taken

    @property
    def _written_bytes(self) -> int:
        return self._answered_bytes + (0 if self._exchange is None else self._exchange.wire_bytes)

    def _reject(self, error: TurnoutError) -> None:
        """A message that cannot be framed, or is refused unread: one answer, and the connection ends."""
        self._closing = True
        self._lingers = not isinstance(error, BodyTimeout)
        self._buffer.clear()
        head = self._head or _NO_HEAD
        self._head = None
        self._exchange = Http1Exchange(self, head, b"", self._host.date_line)
        self._host.refuse(self._exchange, error)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Let a client that is still sending find the answer: to close now would reset it under way."""
        self._deadline = monotonic() + self._budget.body_timeout_s
        if transport.can_write_eof():
            transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
