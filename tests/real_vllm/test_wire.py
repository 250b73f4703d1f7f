"""The recorder's own reading of HTTP, against bytes written by hand."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.real_vllm.wire import ask, get, post

HEAD = b"HTTP/1.1 200 OK\r\nB: 1\r\nA: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b'10\r\ndata: {"a": 1}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n'


@contextmanager
def server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """One connection, answered with these bytes whatever comes, then closed; gives what came."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], received
        thread.join()


def test_a_whole_stream() -> None:
    """Headers keep their order, chunks their sizes, and events are cut at blank lines."""
    with server(HEAD + EVENTS + b"0\r\n\r\n") as (port, _):
        answer = ask(port, get("/"))
    assert [name for name, _ in answer.headers] == ["B", "A", "Transfer-Encoding"]
    assert (answer.chunks, answer.complete) == ((16, 14), True)
    assert (answer.data(), answer.events()) == (['{"a": 1}', "[DONE]"], [{"a": 1}])


def test_a_cut_stream_is_not_complete() -> None:
    """What came before the cut is kept, and the cut is told."""
    with server(HEAD + EVENTS) as (port, _):
        answer = ask(port, get("/"))
    assert (answer.data()[-1], answer.complete) == ("[DONE]", False)


def test_no_head_is_a_reset() -> None:
    """A connection closed without an answer is an error of the transport."""
    with server(b"") as (port, _), pytest.raises(ConnectionResetError):
        ask(port, get("/"))


def test_the_type_can_be_overruled() -> None:
    """A body goes as JSON unless a header says otherwise; the header is never sent twice."""
    with server(HEAD + b"0\r\n\r\n") as (port, received):
        ask(port, post("/", b"x", ("content-type", "text/plain")))
    assert received[0].lower().count(b"content-type") == 1
    assert received[0].endswith(b"\r\n\r\nx")
