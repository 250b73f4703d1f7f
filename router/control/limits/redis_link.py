"""One connection to Redis on which many commands are on their way at once; answers come in their order.

Written for the path of every request: redis-py takes ten times as long for a command.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import ConnectionPool, SSLConnection

from router.config.secret import SecretUrl
from router.control.limits.failures import Failure, Kind, failure_of
from router.control.limits.scripts import pack
from router.eager import Signal


class Pending(Protocol):
    """A command that is on its way."""

    sent_at: float
    """By the monotonic clock."""
    tick: int
    """How often somebody had looked after the link when it was sent."""

    def answer(self, reply: Any) -> None:
        """Called once: with what the server said, or a `Failure` for an error, also of the connection."""
        ...

    def expire(self, failure: Failure) -> bool:
        """Do not wait any longer, if somebody did."""
        ...


class Call(Signal):
    """One command that somebody waits for; then `reply` is there."""

    sent_at = 0.0
    tick = 0
    reply: Any = None

    def answer(self, reply: Any) -> None:
        """What comes after somebody has stopped waiting is nobody's."""
        if not self.done():
            self.reply = reply
            self.fire()

    def expire(self, failure: Failure) -> bool:
        waited = not self.done()
        self.answer(failure)
        return waited


class Link(asyncio.Protocol):
    """`heard` is called when answers came, `lost` once when the connection has ended."""

    def __init__(self, heard: Callable[[], None], lost: Callable[[Failure], None]) -> None:
        self.waiting: deque[Pending] = deque()
        self._heard = heard
        self._lost = lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._ended = False

    def send(self, command: bytes, pending: Pending) -> None:
        """Write one command; at once where none is on its way, else with others of this turn of the loop."""
        if self._transport is None or self._ended:
            pending.answer(Failure(Kind.AWAY, "the connection was closed"))
            return
        if not self.waiting:
            self._transport.write(command)
        else:
            if not self._unsent:
                asyncio.get_running_loop().call_soon(self._flush)
            self._unsent.append(command)
        self.waiting.append(pending)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._ended:
            self._transport.write(b"".join(unsent))

    def end(self, reason: str) -> None:
        """Cut the connection: whoever waits hears of it at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end(Failure(Kind.AWAY, reason))

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._heard()
        waiting = self.waiting
        try:
            while (reply := self._reader.gets()) is not False:
                if not waiting:
                    self.end("it answered what nobody asked")
                    return
                waiting.popleft().answer(failure_of(reply) if isinstance(reply, Exception) else reply)
        except hiredis.ProtocolError as error:
            self.end(f"it does not speak the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Failure(Kind.AWAY, str(exc) if exc else "it closed the connection"))

    def _end(self, failure: Failure) -> None:
        if self._ended:
            return
        self._ended = True
        self._lost(failure)
        while self.waiting:
            self.waiting.popleft().answer(failure)


class Endpoint:
    """Where a server is and how one logs in, as a URL says it in redis-py's way."""

    def __init__(self, url: SecretUrl, address: tuple[str, int] | None = None) -> None:
        """`address`: another server of the same cluster. Raises `ValueError` for a URL that is none."""
        connection = ConnectionPool.from_url(url.reveal()).make_connection()  # type: ignore[no-untyped-call]
        self.url = url
        self.host: str
        self.port: int
        self.host, self.port = address or (connection.host, connection.port)
        self.database = int(connection.db or 0)
        self._login = (connection.username, connection.password)
        self._tls: ssl.SSLContext | None = None
        if isinstance(connection, SSLConnection):
            self._tls = connection.ssl_context.get()

    def greeting(self) -> list[bytes]:
        """The commands that come first on a connection."""
        username, password = self._login
        commands = []
        if password is not None:
            login = (username, password) if username else (password,)
            commands.append(pack(("AUTH", *login)))
        if self.database:
            commands.append(pack(("SELECT", self.database)))
        return commands

    async def connect(self, link: Link) -> None:
        """Raises `OSError`."""
        name = self.host if self._tls is not None else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: link, self.host, self.port, ssl=self._tls, server_hostname=name)
