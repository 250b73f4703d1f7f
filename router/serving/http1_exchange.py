"""The answer of one request, as HTTP/1.1 bytes on its way to the client's connection."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from router.flow.exchange import Header
from router.serving.head import Head

_REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout",
}  # fmt: skip
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()}


class Wire(Protocol):
    """What an answer needs of the connection that it goes over."""

    @property
    def closes(self) -> bool:
        """Whether the connection ends after this answer."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """What takes bytes: the transport's own method, for an answer calls it once a token."""
        ...

    def finished(self) -> None: ...
    def abort(self) -> None: ...


class Http1Exchange:
    """One request on a connection, and its answer; see `router.flow.exchange.Exchange`."""

    __slots__ = (
        "_chunked",
        "_date_line",
        "_http_1_0",
        "_pending",
        "_wire",
        "_write",
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
        "wire_bytes",
    )

    def __init__(self, wire: Wire, head: Head, body: bytes, date_line: Callable[[], bytes]) -> None:
        self._wire = wire
        self._write = wire.write
        self._date_line = date_line
        self._pending = b""
        self._chunked = False
        self._http_1_0 = head.http_1_0
        self.method = head.method
        self.path = head.path
        self.headers = head.headers
        self.body = body
        self.received_at = monotonic()
        self.bytes_out = 0
        self.wire_bytes = 0
        """Like `bytes_out`, but head and framing included."""
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
        lines.append(b"connection: close\r\n\r\n" if self._wire.closes else b"\r\n")
        self._pending = b"".join(lines)

    def write(self, data: bytes) -> None:
        if self.disconnected or not data:
            return
        self.bytes_out += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self.wire_bytes += len(data)
        self._write(data)

    def finish(self) -> None:
        if self.disconnected:
            return
        rest = self._pending + b"0\r\n\r\n" if self._chunked else self._pending
        if rest:
            self.wire_bytes += len(rest)
            self._write(rest)
        self._wire.finished()

    def abort(self) -> None:
        if not self.disconnected:
            self._wire.abort()

    def lost(self) -> None:
        """The connection is gone."""
        self.disconnected = True
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()
