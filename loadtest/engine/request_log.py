"""What a replica really received and when, so that tests can assert it. Times are monotonic seconds."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from loadtest.engine.dialect import Request


@dataclass(slots=True)
class ExchangeRecord:
    """One request and its answer, filled in while it goes on."""

    request: Request
    raw_headers: tuple[tuple[str, str], ...]
    """All headers in their order, names as they came."""
    arrived_s: float
    connection: int
    """Number of the connection it came on, from 0."""
    status: int | None = None
    first_byte_s: float | None = None
    client_closed_s: float | None = None
    """When the client's close or reset arrived, if it came before the end."""
    noticed_s: float | None = None
    """When the engine acted on that, aborting what still ran."""
    ended_s: float | None = None
    """When nothing more was to be sent."""
    tokens: int = 0
    """Output tokens sent, or gathered for a whole answer."""
    faults: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """JSON-able, body and header values included."""
        times = {name: getattr(self, name) for name in _TIMES}
        return {
            "method": self.request.method,
            "path": self.request.path,
            "headers": dict(self.request.headers),
            "body": self.request.body.decode("utf-8", "replace"),
            "connection": self.connection,
            "status": self.status,
            "tokens": self.tokens,
            "faults": self.faults,
            **times,
        }


_TIMES = ("arrived_s", "first_byte_s", "client_closed_s", "noticed_s", "ended_s")


class RequestLog:
    """The last exchanges of one replica, oldest first."""

    def __init__(self, size: int = 2_000) -> None:
        self._records: deque[ExchangeRecord] = deque(maxlen=size)
        self.total = 0

    def open(self, record: ExchangeRecord) -> None:
        self._records.append(record)
        self.total += 1

    def __iter__(self) -> Iterator[ExchangeRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> ExchangeRecord:
        return self._records[index]

    def of(self, path: str) -> list[ExchangeRecord]:
        """Those with this path."""
        return [record for record in self._records if record.request.path == path]

    def clear(self) -> None:
        self._records.clear()
