"""One HTTP exchange with a replica, kept byte for byte: header order, chunk sizes, how it ended."""

import json
import socket
from dataclasses import dataclass
from typing import Any

import h11

Headers = tuple[tuple[str, str], ...]

READ_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """`body` None sends none; anything but bytes goes as JSON."""

    method: str
    path: str
    body: Any = None
    headers: Headers = ()

    def content(self) -> bytes:
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return json.dumps(self.body, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """`chunks`: payload sizes of a chunked body, in order. `complete`: the body ended as its framing says."""

    status: int
    headers: Headers
    body: bytes
    chunks: tuple[int, ...]
    complete: bool

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def data(self) -> list[str]:
        """The `data:` payloads of an event stream, `[DONE]` included."""
        events = self.body.decode().split("\n\n")
        return [event.removeprefix("data: ") for event in events if event]

    def events(self) -> list[Any]:
        """The payloads as JSON, without `[DONE]`."""
        return [json.loads(payload) for payload in self.data() if payload != "[DONE]"]


def get(path: str, *headers: tuple[str, str]) -> Request:
    return Request("GET", path, None, headers)


def post(path: str, body: Any, *headers: tuple[str, str]) -> Request:
    return Request("POST", path, body, headers)


def connect(port: int, request: Request, timeout_s: float = 120.0) -> tuple[socket.socket, h11.Connection]:
    """Send the request over a connection of its own and leave the answer unread."""
    content = request.content()
    head = [("host", f"127.0.0.1:{port}"), *request.headers]
    if request.body is not None:
        named = {name.lower() for name, _ in request.headers}
        head += [] if "content-type" in named else [("content-type", "application/json")]
        head += [("content-length", str(len(content)))]
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    parts = [
        parser.send(h11.Request(method=request.method, target=request.path, headers=head)),
        parser.send(h11.Data(content)),
        parser.send(h11.EndOfMessage()),
    ]
    connection.sendall(b"".join(part for part in parts if part))
    return connection, parser


def ask(port: int, request: Request, timeout_s: float = 120.0) -> Answer:
    """The whole exchange. Raises `OSError` when no head arrives or nothing moves for `timeout_s`."""
    connection, parser = connect(port, request, timeout_s)
    with connection:
        return _read(connection, parser)


def _read(connection: socket.socket, parser: h11.Connection) -> Answer:
    head: h11.Response | None = None
    body, chunks, chunk = bytearray(), [], 0
    complete = False
    while not complete:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            break  # closed before the framing was complete
        if event is h11.NEED_DATA:
            parser.receive_data(connection.recv(READ_BYTES))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            chunk += len(event.data)
            if event.chunk_end:
                chunks.append(chunk)
                chunk = 0
        else:
            complete = isinstance(event, h11.EndOfMessage)
            if not complete:
                break
    if head is None:
        raise ConnectionResetError("closed before the answer's head")
    headers = tuple((name.decode(), value.decode()) for name, value in head.headers.raw_items())
    return Answer(head.status_code, headers, bytes(body), tuple(chunks), complete)
