"""Requests for the ASGI app: the server's own protocol, and a guard before it.

That protocol bounds neither heads nor how slowly they come, so what a client sends reaches it one whole,
sound head at a time, within the same budget as everything else.
"""

import asyncio
from time import monotonic
from typing import Protocol, cast

from router.api.errors import RequestError, TurnoutError
from router.serving.head import Budget, Head, head_size, read_head


class ClientConnection(Protocol):
    """A client connection, as the one who looks after all of them sees it."""

    def look(self, now: float) -> None:
        """Act on what is overdue; called every second or so, `now` in monotonic seconds."""
        ...

    def shutdown(self) -> None:
        """Answer what is being answered, and close."""
        ...

    def abort(self) -> None: ...


class Registry(Protocol):
    """Where connections are looked after."""

    def opened(self, connection: ClientConnection) -> None: ...
    def closed(self, connection: ClientConnection) -> None: ...


class OrdinaryConnection(asyncio.Protocol):
    """A connection whose requests `inner` answers; `inner` owns its transport's writing side."""

    def __init__(self, registry: Registry, budget: Budget, inner: asyncio.Protocol) -> None:
        self._registry = registry
        self._budget = budget
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._body_left = 0
        self._deadline = float("inf")

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._registry.opened(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._buffer and self._pass_on():
                pass
        except TurnoutError:
            # No word: it could land in the middle of an answer that is still being written.
            self.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.closed(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    # ---- the registry ----

    def look(self, now: float) -> None:
        if self._deadline <= now:
            self.abort()

    def shutdown(self) -> None:
        """Nothing: the server tells `inner` itself."""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ---- inside ----

    def _pass_on(self) -> bool:
        """Give `inner` the next whole piece; False if there is none yet."""
        if self._body_left:
            size = min(self._body_left, len(self._buffer))
            self._body_left -= size
        else:
            size = head_size(self._buffer, self._budget)
            if not size:
                self._deadline = min(self._deadline, monotonic() + self._budget.head_timeout_s)
                return False
            head = read_head(bytes(self._buffer[:size]), self._budget)
            require_ordinary(head)
            self._body_left = head.length
            self._deadline = monotonic() + self._budget.body_timeout_s
        if not self._body_left:
            # From here on the server's own limit on idle connections holds.
            self._deadline = float("inf")
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._inner.data_received(piece)
        return True


def require_ordinary(head: Head) -> None:
    """Raises `RequestError` for what only inference requests may be, and for targets that are no path."""
    if head.chunked:
        raise RequestError("a request to this path must have a content-length, or no body")
    if not head.path.startswith(("/", "http://", "https://")):
        raise RequestError("the request's target must be a path")
