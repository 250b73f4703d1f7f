"""An exchange without a connection: keeps what the flow tells it, and can leave or stall like a client."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from router.flow.exchange import Header


class RecordedExchange:
    """See `router.flow.exchange.Exchange`."""

    def __init__(
        self, path: str = "/v1/chat/completions", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.method = "POST"
        self.path = path
        self.headers: Mapping[str, str] = {"content-type": "application/json", **(headers or {})}
        self.body = body
        self.received_at = monotonic()
        self.disconnected = False
        self.bytes_out = 0
        self.on_disconnect: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self.status: int | None = None
        self.answer_headers: dict[str, str] = {}
        self.length: int | None = None
        self.writes: list[bytes] = []
        self.finished = 0
        self.aborted = 0

    def start(self, status: int, headers: Sequence[Header], length: int | None) -> None:
        assert self.status is None, "an answer begins once"
        self.status = status
        self.answer_headers = {name.decode(): value.decode() for name, value in headers}
        self.length = length

    def write(self, data: bytes) -> None:
        assert self.status is not None
        assert not self.finished
        if not self.disconnected:
            self.bytes_out += len(data)
            self.writes.append(data)

    def finish(self) -> None:
        self.finished += 1

    def abort(self) -> None:
        self.aborted += 1

    @property
    def text(self) -> str:
        return b"".join(self.writes).decode()

    def leave(self) -> None:
        """The client closes its connection."""
        self.disconnected = True
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()
