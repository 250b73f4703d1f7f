"""Requests for the ASGI app: the server's own protocol, and a guard before it.

That protocol bounds neither heads nor how slowly they come, so what a client sends reaches it one whole,
sound head at a time, within the same budget as everything else.
"""

import asyncio
from time import monotonic
from typing import Protocol, cast

from router.api.errors import RequestError, TurnoutError
from router.serving.head import CONTINUE, Budget, ChunkedBody, Head, head_size, read_head


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
        self._head_size = 0
        self._size = 0
        self._chunks: ChunkedBody | None = None
        self._is_last = False
        self._deadline = float("inf")

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._registry.opened(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
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
        """Give `inner` the next whole message; False if there is none yet.

        Whole, because the server stops counting an idle connection's time at bytes that come after its
        answer, and never begins again.
        """
        if not self._head_size and not self._read_head():
            return False
        if self._chunks is not None:
            return self._pass_on_chunks(self._chunks)
        if len(self._buffer) < self._size:
            return False
        message = bytes(self._buffer[: self._size])
        del self._buffer[: self._size]
        self._give(message)
        return True

    def _read_head(self) -> bool:
        size = head_size(self._buffer, self._budget)
        if not size:
            self._deadline = min(self._deadline, monotonic() + self._budget.head_timeout_s)
            return False
        head = read_head(bytes(self._buffer[:size]), self._budget)
        require_ordinary(head)
        self._head_size = size
        self._size = size + head.length
        self._chunks = ChunkedBody(self._budget) if head.chunked else None
        self._deadline = monotonic() + self._budget.body_timeout_s
        if head.expects_continue and len(self._buffer) == size and self._transport is not None:
            self._transport.write(CONTINUE)
            self._ask_no_more(size)
        return True

    def _ask_no_more(self, size: int) -> None:
        """The client has been asked for its body; the server need not do it again."""
        lines = _without(bytes(self._buffer[: size - 4]), b"expect")
        head = b"\r\n".join([*lines, b"", b""])
        self._buffer[:size] = head
        self._head_size -= size - len(head)
        self._size -= size - len(head)

    def _pass_on_chunks(self, chunks: ChunkedBody) -> bool:
        """A message in chunks goes on with a length.

        It is the last one: where another would begin is not known.
        """
        coming = bytes(self._buffer[self._head_size :])
        del self._buffer[self._head_size :]
        if not chunks.feed(coming):
            return False
        body = chunks.body
        lines = [b"connection: close", b"content-length: %d" % len(body), b"", body]
        head = bytes(self._buffer[:-4])
        self._buffer.clear()
        self._is_last = True
        self._give(b"\r\n".join([*_without(head, b"connection", b"transfer-encoding"), *lines]))
        return False

    def _give(self, message: bytes) -> None:
        self._head_size = 0
        # From here on the server's own limit on idle connections holds.
        self._deadline = float("inf")
        self._inner.data_received(message)


def _without(head: bytes, *names: bytes) -> list[bytes]:
    """The lines of a head but for some headers."""
    ends = tuple(name + b":" for name in names)
    return [line for line in head.split(b"\r\n") if not line.lower().startswith(ends)]


def require_ordinary(head: Head) -> None:
    """Raises `RequestError` for targets that are no path."""
    if not head.path.startswith(("/", "http://", "https://")):
        raise RequestError("the request's target must be a path")
