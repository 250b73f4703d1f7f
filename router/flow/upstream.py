"""The connections to one replica, pooled: made when needed, kept while they are good, bounded."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from router.api.errors import Overloaded, UpstreamProtocol, UpstreamReset
from router.flow.connection import Connection

READ_BYTES = 65536
"""The most that one read takes from a replica: it bounds what comes after a client has stopped reading."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica listens, from its URL."""

    host: str
    port: int
    prefix: str
    tls: bool

    @classmethod
    def from_url(cls, url: str) -> "Address":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How connections are made and kept: the configuration's [upstream], and `connect_s`."""

    idle_s: float = 4.0
    connect_s: float = 1.0
    max_head_bytes: int = 65536
    max_connections: int = 1024


class Upstream:
    """The connections to one replica: idle ones are kept, last used first, below the engine's own limit.

    vLLM and trtllm-serve close idle connections after 5 s; a request written at that moment is lost,
    so `idle_s` stays below it.
    """

    def __init__(
        self,
        url: str,
        keeping: Keeping | None = None,
        *,
        api_key: str | None = None,
        buffer: memoryview | None = None,
    ) -> None:
        self.address = Address.from_url(url)
        self.keeping = keeping or Keeping()
        self.loop = asyncio.get_running_loop()
        self.buffer = buffer or memoryview(bytearray(READ_BYTES))
        self.desynchronisations = 0
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._tls = ssl.create_default_context() if self.address.tls else None
        self._credentials = (
            b"" if api_key is None else b"authorization: Bearer %b\r\n" % api_key.encode("latin-1")
        )
        self._heads: dict[str, bytes] = {}

    def idle_connection(self) -> Connection | None:
        """The freshest idle connection that is still good, without waiting."""
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < self.keeping.idle_s:
                return connection
            connection.abort()
        return None

    async def connect(self) -> Connection:
        """A new connection.

        Raises `UpstreamReset` or `UpstreamProtocol` if there is none within `connect_s`, `Overloaded` at
        `max_connections`.
        """
        if len(self._open) + self._connecting >= self.keeping.max_connections:
            raise Overloaded("every connection to the replica is in use", retry_after_s=1.0)
        self._connecting += 1
        try:
            connection = await self._dial()
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    async def _dial(self) -> Connection:
        address = self.address
        try:
            async with asyncio.timeout(self.keeping.connect_s):
                transport, connection = await self.loop.create_connection(
                    lambda: Connection(self), address.host, address.port, ssl=self._tls
                )
        except TimeoutError as error:
            raise UpstreamReset("the replica did not accept a connection in time") from error
        except ssl.SSLError as error:
            raise UpstreamProtocol("the replica failed the TLS handshake") from error
        except OSError as error:
            raise UpstreamReset("the replica refused the connection") from error
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, path: str, body: bytes, *, streams: bool, headers: bytes = b"") -> bytes:
        """A whole POST of JSON as bytes. `headers` are complete lines, each with its line end."""
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = (
                b"POST %b HTTP/1.1\r\nhost: %b\r\n%bcontent-type: application/json\r\n"
                % (
                    (self.address.prefix + path).encode("ascii"),
                    self.address.authority.encode("ascii"),
                    self._credentials,
                )
            )
        accept = b"text/event-stream" if streams else b"application/json"
        return b"%baccept: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (head, accept, headers, len(body), body)

    def release(self, connection: Connection) -> None:
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def expire(self, idle_s: float | None = None) -> None:
        """Close what has been idle too long: for `idle_s`, or as long as is usual."""
        now, most_s = monotonic(), self.keeping.idle_s if idle_s is None else idle_s
        while self._idle and now - self._idle[0].idle_since >= most_s:
            self._idle.pop(0).abort()

    @property
    def busy(self) -> bool:
        """There are connections, or will be."""
        return bool(self._open) or self._connecting > 0

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    @property
    def max_head_bytes(self) -> int:
        return self.keeping.max_head_bytes

    @property
    def open_connections(self) -> int:
        return len(self._open)
