"""The head of a request, strictly: what it says of framing is said once, plainly, or not believed.

The grammar is llhttp's with every leniency off; on top of it stand the rules that keep two parsers
from disagreeing about where a message ends (RFC 9112, sections 6.1 to 6.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import httptools
import msgspec

from router.api.errors import BodyTooLarge, HeadersTooLarge, RequestError

_ONCE = frozenset({"content-length", "transfer-encoding", "host", "authorization", "content-type"})


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
    """A request's head. `headers` have lower-case names; `chunked` reads the body where it has no length."""

    method: bytes
    path: bytes
    headers: Mapping[str, str]
    length: int
    chunked: "ChunkedBody | None"
    keep_alive: bool
    expects_continue: bool
    http_1_0: bool


def read_head(data: bytes, budget: Budget) -> Head:
    """The head `data`, which ends with its empty line.

    Raises `RequestError` for what is malformed or framed ambiguously, `HeadersTooLarge` and
    `BodyTooLarge` for what passes the budget.
    """
    if data.partition(b"\r\n")[0].count(b" ") != 2:
        raise RequestError(
            "the request line must be a method, a target and a version, one space between them"
        )
    reader = _HeadReader(budget.max_headers)
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise RequestError("this server does not switch protocols") from None
    except httptools.HttpParserError as error:
        if isinstance(error.__context__, (RequestError, HeadersTooLarge)):
            raise error.__context__ from None
        raise RequestError("the request is not well-formed HTTP/1.1") from None
    headers = reader.headers
    if not reader.complete or parser.get_http_version() not in ("1.1", "1.0"):
        raise RequestError("the request is not well-formed HTTP/1.1")
    if "host" not in headers and parser.get_http_version() == "1.1":
        raise RequestError("the request lacks its Host header")
    length = _length(headers, budget)
    chunked = ChunkedBody(parser, reader, budget) if "transfer-encoding" in headers else None
    return Head(
        method=parser.get_method(),
        path=reader.url.partition(b"?")[0],
        headers=headers,
        length=length,
        chunked=chunked,
        keep_alive=parser.should_keep_alive(),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
        http_1_0=parser.get_http_version() == "1.0",
    )


def _length(headers: Mapping[str, str], budget: Budget) -> int:
    coding = headers.get("transfer-encoding")
    given = headers.get("content-length")
    if coding is not None:
        if given is not None or coding.lower() != "chunked":
            raise RequestError("the body's framing is ambiguous: send either a content-length or chunks")
        return 0
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise RequestError("content-length must be a plain number")
    if int(given) > budget.max_body_bytes:
        raise BodyTooLarge(f"the request body is larger than {budget.max_body_bytes} bytes")
    return int(given)


class _HeadReader:
    """Collects what the parser finds; also the body of a chunked message."""

    def __init__(self, max_headers: int) -> None:
        self._max_headers = max_headers
        self._fields = 0
        self.url = b""
        self.headers: dict[str, str] = {}
        self.complete = False
        self.message_complete = False
        self.parts: list[bytes] = []
        self.size = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return  # a trailer: dropped
        self._fields += 1
        if self._fields > self._max_headers:
            raise HeadersTooLarge(f"the request has more than {self._max_headers} header fields")
        key = name.decode("latin-1").lower()
        if key in _ONCE and key in self.headers:
            raise RequestError(f"the header {key} stands twice in the request")
        self.headers[key] = value.strip(b" \t").decode("latin-1")

    def on_headers_complete(self) -> None:
        self.complete = True

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.message_complete = True


class ChunkedBody:
    """The rest of a message whose body comes in chunks."""

    def __init__(self, parser: httptools.HttpRequestParser, reader: _HeadReader, budget: Budget) -> None:
        self._parser = parser
        self._reader = reader
        self._max_body_bytes = budget.max_body_bytes
        self._max_wire_bytes = 2 * budget.max_body_bytes + 65536
        self._wire_bytes = 0

    def feed(self, data: bytes) -> bool:
        """Whether the body is complete. Raises `RequestError` or `BodyTooLarge`."""
        self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._reader.message_complete:
                raise RequestError("the request body's chunks are malformed") from None
        if self._reader.size > self._max_body_bytes or self._wire_bytes > self._max_wire_bytes:
            raise BodyTooLarge(f"the request body is larger than {self._max_body_bytes} bytes")
        return self._reader.message_complete

    @property
    def body(self) -> bytes:
        return b"".join(self._reader.parts)
