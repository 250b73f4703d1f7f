"""One client connection: httptools in, exchanges one after another, keep-alive and its idle limit."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl, unquote

import httptools

from loadtest.engine.dialect import Handler, Request
from loadtest.engine.exchange import Exchange
from loadtest.engine.faults import Fault, Kind
from loadtest.engine.http1 import CONTINUE, date_header, head
from loadtest.engine.outlet import Outlet
from loadtest.engine.request_log import ExchangeRecord

if TYPE_CHECKING:
    from loadtest.engine.server import RunningEngine

INVALID: Final = b"Invalid HTTP request received."
"""What uvicorn answers to a request that it cannot parse."""


Plan = tuple[Handler, Request, Sequence[Fault]]
"""Who answers a request, the request with its path's values, and what goes wrong on the way."""


class Connection(asyncio.Protocol):
    """Requests of one connection are answered in order; pipelined ones wait."""

    def __init__(self, host: "RunningEngine", port: str, life: int) -> None:
        self._host = host
        self._port = port
        self._number = host.number_connection()
        self._life = life
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, tuple[tuple[str, str], ...], bool]] = deque()
        self._exchange: Exchange | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()

    # ---- asyncio's side ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods but not the type
        self._outlet = Outlet(self._transport)
        self._host.connections.add(self)
        if self._life != self._host.life:
            self._outlet.reset()
            return
        hole = self._host.faults.port(Kind.BLACK_HOLE)
        if hole is not None:
            self._transport.pause_reading()
            self._host.faults.note(hole, None)

    def data_received(self, data: bytes) -> None:
        self._stop_idling()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            headers = (date_header(), ("content-type", "text/plain; charset=utf-8"), ("content-length", "30"))
            self._outlet.write(head(400, headers, keep_alive=False) + INVALID)
            self._outlet.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._stop_idling()
        self._outlet.dispose()
        self._host.connections.discard(self)
        self._waiting.clear()
        if self._exchange is not None:
            self._exchange.disconnected()
        self._host.settled()

    # ---- httptools' side ----

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._outlet.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(
            method=self._parser.get_method().decode(),
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self._headers},
            body=bytes(self._body),
        )
        self._waiting.append((request, tuple(self._headers), self._parser.should_keep_alive()))
        if self._exchange is None:
            self._next()

    # ---- one exchange after another ----

    def _next(self) -> None:
        request, raw_headers, keep_alive = self._waiting.popleft()
        handler, request, script = self._host.plan(self._port, request)
        record = ExchangeRecord(request, raw_headers, time.monotonic(), self._number)
        self._host.log.open(record)
        self._exchange = Exchange(self._host, self._outlet, record, keep_alive=keep_alive, done=self._done)
        self._exchange.begin(handler, script)

    def _done(self, reuse: bool) -> None:
        self._exchange = None
        self._host.settled()
        if not reuse:
            self._outlet.close()
        elif self._waiting:
            self._next()
        else:
            self._start_idling()

    def _start_idling(self) -> None:
        limit = self._host.dialect.traits.idle_timeout_s
        if limit is not None:
            self._idle_timer = asyncio.get_running_loop().call_later(limit, self._outlet.close)

    def _stop_idling(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered on it."""
        return self._exchange is None

    def close(self) -> None:
        """Close, sending what is unsent; an answer that is under way is cut."""
        if self._exchange is not None:
            self._exchange.cut()
        self._transport.close()

    def reset(self) -> None:
        """Reset, as the kernel does for a process that died."""
        if self._exchange is not None:
            self._exchange.cut()
        self._outlet.reset()
