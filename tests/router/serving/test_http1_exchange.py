"""The bytes of an answer, however the flow gives it."""

from router.serving.head import Budget, read_head
from router.serving.http1_exchange import Http1Exchange

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\nX-One: 1\r\n\r\n"
DATE = b"date: now\r\n"


class Wire:
    """A connection that keeps what it is told to write."""

    def __init__(self, *, closes: bool = False) -> None:
        self.closes = closes
        self.writes: list[bytes] = []
        self.finishes = 0
        self.aborts = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def finished(self) -> None:
        self.finishes += 1

    def abort(self) -> None:
        self.aborts += 1


def exchange(wire: Wire, head: bytes = HEAD) -> Http1Exchange:
    return Http1Exchange(wire, read_head(head, Budget()), b"body", lambda: DATE)


def test_what_the_flow_sees_of_the_request() -> None:
    """Method, path, headers and body."""
    made = exchange(Wire())
    assert (made.method, made.path, made.body) == ("POST", "/v1/completions", b"body")
    assert made.headers == {"host": "h", "x-one": "1"}
    assert (made.bytes_out, made.disconnected) == (0, False)


def test_a_whole_answer_is_one_write() -> None:
    """Head and body together: a packet less."""
    wire = Wire()
    made = exchange(wire)
    made.start(200, [(b"a", b"b")], 5)
    assert wire.writes == []
    made.write(b"hello")
    made.finish()
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\na: b\r\ncontent-length: 5\r\n\r\nhello"]
    assert (made.bytes_out, wire.finishes) == (5, 1)


def test_a_stream_is_a_chunk_per_piece() -> None:
    """The head goes with the first; an empty piece would be the end, and is nothing."""
    wire = Wire()
    made = exchange(wire)
    made.start(200, [], None)
    made.write(b"")
    assert wire.writes == []
    made.write(b"hello")
    made.write(b"x" * 17)
    made.finish()
    head = b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n"
    assert wire.writes == [head + b"5\r\nhello\r\n", b"11\r\n" + b"x" * 17 + b"\r\n", b"0\r\n\r\n"]
    assert (made.bytes_out, wire.finishes) == (22, 1)


def test_an_answer_without_a_body() -> None:
    """The head still goes out, and the end of an empty stream."""
    for length, end in (
        (0, b"content-length: 0\r\n\r\n"),
        (None, b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ):
        wire = Wire()
        made = exchange(wire)
        made.start(200, [], length)
        made.finish()
        assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\n" + end]


def test_http_1_0_gets_neither_chunks_nor_their_end() -> None:
    """Its body ends where the connection does."""
    wire = Wire(closes=True)
    made = exchange(wire, HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"))
    made.start(200, [], None)
    made.write(b"hello")
    made.finish()
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nhello"]


def test_a_status_without_a_name() -> None:
    """Still a status line."""
    wire = Wire()
    made = exchange(wire)
    made.start(299, [], 0)
    made.finish()
    assert wire.writes[0].startswith(b"HTTP/1.1 299 \r\n")


def test_a_client_that_has_gone_is_told_nothing() -> None:
    """The flow is, once; what it says afterwards goes nowhere."""
    wire, told = Wire(), []
    made = exchange(wire)
    made.start(200, [], None)
    made.on_disconnect = lambda: told.append("gone")
    made.lost()
    made.lost()
    made.write(b"hello")
    made.finish()
    made.abort()
    assert (wire.writes, wire.finishes, wire.aborts, told) == ([], 0, 0, ["gone"])
    assert (made.disconnected, made.bytes_out) == (True, 0)
