"""Request heads: strict framing, budgets, and one verdict for every ambiguity."""

import pytest

from router.api.errors import BodyTooLarge, HeadersTooLarge, RequestError
from router.serving.head import Budget, ChunkedBody, read_head

BUDGET = Budget(max_headers=20, max_body_bytes=1000)
START = b"POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
HOST = b"Host: h\r\n"


def head(*lines: bytes, start: bytes = START) -> bytes:
    return start + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_an_ordinary_head() -> None:
    """Method, path without query, lower-case names, length."""
    read = read_head(head(b"Host: h", b"Content-Length: 12", b"X-A:  b c "), BUDGET)
    assert (read.method, read.path, read.length) == ("POST", "/v1/chat/completions", 12)
    assert read.headers["x-a"] == "b c"
    assert read.keep_alive
    assert not read.http_1_0
    assert not read.chunked


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: +5",),
        (b"Content-Length: 5_0",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: -1",),
        (b"Content-Length:",),
        (b"Content-Length: 99999999999999999999",),
        (b"Content-Length: \xb2",),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"Transfer-Encoding : chunked",),
        (b"X: a", b" folded"),
        (b"X: a\x00b",),
        (b"X: a\rb",),
        (b"X y: a",),
        (b": a",),
        (b"X\x80: a",),
        (b"Host: h",),
        (b"Authorization: a", b"Authorization: b"),
        (b"x-api-key: a", b"X-Api-Key: a"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(lines: tuple[bytes, ...]) -> None:
    """400, before anything is sent upstream."""
    with pytest.raises(RequestError):
        read_head(head(HOST.strip(), *lines), BUDGET)


def test_an_offer_to_upgrade_is_ignored() -> None:
    """A server need not take it (RFC 9110, 7.8)."""
    read = read_head(head(b"Host: h", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"), BUDGET)
    assert read.keep_alive


def test_chunked_may_be_written_in_any_case() -> None:
    """`Chunked` is chunked."""
    assert read_head(head(b"Host: h", b"Transfer-Encoding: CHUNKED"), BUDGET).chunked


@pytest.mark.parametrize(
    "start",
    [
        b"POST / HTTP/2.0\r\n",
        b"POST / HTTP/0.9\r\n",
        b"POST /\r\n",
        b"POST  / HTTP/1.1\r\n",
        b"\x16\x03\x01\r\n",
    ],
)
def test_other_protocols_are_refused(start: bytes) -> None:
    """Only HTTP/1.1 and 1.0 get further."""
    with pytest.raises(RequestError):
        read_head(head(b"Host: h", start=start), BUDGET)


def test_host_is_required_of_1_1_only() -> None:
    """RFC 9112, 3.2."""
    with pytest.raises(RequestError, match="Host"):
        read_head(head(b"X: y"), BUDGET)
    old = read_head(head(b"X: y", start=b"POST / HTTP/1.0\r\n"), BUDGET)
    assert old.http_1_0
    assert not old.keep_alive


def test_budgets() -> None:
    """Too many fields are 431, a body announced too large 413."""
    with pytest.raises(HeadersTooLarge):
        read_head(head(HOST.strip(), *[b"X-%d: y" % i for i in range(20)]), BUDGET)
    with pytest.raises(BodyTooLarge):
        read_head(head(HOST.strip(), b"Content-Length: 1001"), BUDGET)
    assert read_head(head(HOST.strip(), b"Content-Length: 1000"), BUDGET).length == 1000


def chunked(data: bytes, size: int) -> bytes:
    """The body that `data` carries, fed in pieces of `size`."""
    body = ChunkedBody(BUDGET)
    done = [body.feed(data[i : i + size]) for i in range(0, len(data), size)]
    assert done[-1]
    assert not any(done[:-1])
    return body.body


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_however_they_arrive(size: int) -> None:
    """Extensions are ignored and trailers dropped, under every split."""
    data = b"5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX: trailer\r\n\r\n"
    assert chunked(data, size) == b"hello world"


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5_0\r\n",
        b" 5\r\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\nhello\r\n",
        b"11111111111111111\r\n",
        b"zz\r\n",
        b"5\r\nhello\n0\r\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    """Sizes are plain hexadecimal, line ends CR LF."""
    body = ChunkedBody(BUDGET)
    with pytest.raises(RequestError):
        body.feed(data)


def test_chunks_have_a_budget_too() -> None:
    """Of content, and of everything around it."""
    for piece in (b"64\r\n" + b"x" * 100 + b"\r\n", b"1;" + b"e" * 2000 + b"\r\nx\r\n"):
        body = ChunkedBody(BUDGET)
        with pytest.raises((BodyTooLarge, RequestError)):
            for _ in range(200):
                body.feed(piece)
