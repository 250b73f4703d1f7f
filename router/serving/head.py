"""The head of a request, strictly: what it says of framing is said once, plainly, or not believed.

The grammar is that of RFC 9112 without what it lets a lenient server forgive; on top of it stand the
rules that keep two parsers from disagreeing about where a message ends (sections 6.1 to 6.3).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httptools
import msgspec

from router.api.errors import BodyTooLarge, HeadersTooLarge, RequestError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ONCE = ("content-length", "transfer-encoding", "host", "authorization", "x-api-key", "content-type")
_FIELD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD = re.compile(rf"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n((?:{_FIELD})*)\r\n")
_FIELDS = re.compile(r"([^:]+):[ \t]*([^\r]*)\r\n")
_DIGITS = re.compile(r"[0-9]{1,18}")
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one connection may take: bytes, fields, and seconds."""

    max_head_bytes: int = 65536
    max_headers: int = 100
    max_body_bytes: int = 8 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    write_stall_s: float = 60.0


class Head(msgspec.Struct, frozen=True):
    """A request's head. `headers` have lower-case names; `chunked`: the body has no length, but chunks."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    http_1_0: bool


def head_size(buffer: bytearray, budget: Budget) -> int:
    """How long the head at the beginning of `buffer` is, its empty line included; 0 while it is not whole.

    Raises `HeadersTooLarge`, and `RequestError` for what cannot become a head.
    """
    # One empty line before a request is forgiven (RFC 9112, section 2.2).
    begin = 2 if buffer.startswith(b"\r\n") else 0
    end = buffer.find(b"\r\n\r\n", begin, budget.max_head_bytes)
    if end >= 0:
        return end + 4
    if len(buffer) >= budget.max_head_bytes:
        raise HeadersTooLarge(f"the request's head is larger than {budget.max_head_bytes} bytes")
    if b"\n\n" in buffer:
        raise RequestError("lines of an HTTP head must end with CR LF")
    if len(buffer) > begin and not 65 <= buffer[begin] <= 90:
        raise RequestError("the request is not HTTP")
    return 0


def read_head(data: bytes, budget: Budget) -> Head:
    """The head `data`, which ends with its empty line.

    Raises `RequestError` for what is malformed or framed ambiguously, `HeadersTooLarge` and
    `BodyTooLarge` for what passes the budget.
    """
    match = _HEAD.fullmatch(data.removeprefix(b"\r\n").decode("latin-1"))
    if match is None:
        raise RequestError("the request is not well-formed HTTP/1.1")
    method, target, minor, lines = match.groups()
    fields = _FIELDS.findall(lines)
    if len(fields) > budget.max_headers:
        raise HeadersTooLarge(f"the request has more than {budget.max_headers} header fields")
    headers = {name.lower(): value.rstrip(" \t") for name, value in fields}
    if len(headers) != len(fields):
        require_once([name.lower() for name, _ in fields])
    if "host" not in headers and minor == "1":
        raise RequestError("the request lacks its Host header")
    chunked = "transfer-encoding" in headers
    return Head(
        method,
        target.partition("?")[0],
        headers,
        _length(headers, budget, chunked=chunked),
        chunked,
        minor == "1" and "close" not in headers.get("connection", "").lower(),
        headers.get("expect", "").lower() == "100-continue",
        minor == "0",
    )


def require_once(names: Sequence[str]) -> None:
    """Of all fields, in lower case. Raises `RequestError` where it is unclear which of two is meant."""
    for name in _ONCE:
        if names.count(name) > 1:
            raise RequestError(f"the header {name} stands twice in the request")


def _length(headers: Mapping[str, str], budget: Budget, *, chunked: bool) -> int:
    given = headers.get("content-length")
    if chunked:
        if given is not None or headers["transfer-encoding"].lower() != "chunked":
            raise RequestError("the body's framing is ambiguous: send either a content-length or chunks")
        return 0
    if given is None:
        return 0
    if _DIGITS.fullmatch(given) is None:
        raise RequestError("content-length must be a plain number")
    if int(given) > budget.max_body_bytes:
        raise BodyTooLarge(f"the request body is larger than {budget.max_body_bytes} bytes")
    return int(given)


class ChunkedBody:
    """A body that comes in chunks. Their framing is llhttp's business, with every leniency off."""

    def __init__(self, budget: Budget) -> None:
        self._max_body_bytes = budget.max_body_bytes
        self._max_wire_bytes = 2 * budget.max_body_bytes + 65536
        self._wire_bytes = 0
        self._size = 0
        self._parts: list[bytes] = []
        self._complete = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def feed(self, data: bytes) -> bool:
        """Whether the body is complete. Raises `RequestError` or `BodyTooLarge`."""
        self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._complete:
                raise RequestError("the request body's chunks are malformed") from None
        if self._size > self._max_body_bytes or self._wire_bytes > self._max_wire_bytes:
            raise BodyTooLarge(f"the request body is larger than {self._max_body_bytes} bytes")
        return self._complete

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    # ---- httptools ----

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        self._complete = True
