"""The life of one router process: both listeners up, signals, settling, draining, down.

SIGTERM or SIGINT: not ready but still serving for `settle_s`, then no new connections and up to
`drain_timeout_s` for what is open, then the rest is ended with a retryable error. A second signal
ends it at once.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette

from router.compose import Router
from router.config.model import AdminConfig, Config
from router.serving.listeners import url_of

log = logging.getLogger("turnout.server")

_LAST_WORDS_S = 1.0
"""For error frames to reach their clients."""
_ADMIN_GRACE_S = 1
"""For answers of the admin listener that are under way when all else is over."""


class NotListening(Exception):
    """A listener could not be started."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one owner of signals."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises `NotListening` in place of uvicorn's `SystemExit`, which would tear down the event loop."""
        try:
            await super().serve(sockets)
        except SystemExit as error:
            raise NotListening("the address cannot be listened on; uvicorn's log says why") from error

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, but first take in who waits there: closing resets those connections.

        Only sockets that others share are handed in; without others the port itself goes.
        """
        adopting = [
            asyncio.create_task(self._adopt(each)) for sock in sockets or () for each in _waiting(sock)
        ]
        await super().shutdown(sockets)
        await asyncio.gather(*adopting, return_exceptions=True)

    async def _adopt(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Process:
    """Runs one composed router until it is told to stop.

    A worker is given its `sockets`, bound and not listening yet; the admin listener is then elsewhere.
    `signals` tell it to stop.
    """

    def __init__(
        self,
        router: Router,
        config: Config,
        sockets: Sequence[socket.socket] | None = None,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        self._router = router
        self._sockets = None if sockets is None else list(sockets)
        server = config.server
        self._public = _server(
            router.public_app,
            server.host,
            server.port,
            http=router.front_end,
            keep_alive_s=server.keep_alive_s,
        )
        self._admin = admin_server(router.admin_app, config.admin) if sockets is None else None
        self._stop = asyncio.Event()
        self._told_by = signals
        self._signals = 0

    async def run(self, on_ready: Callable[[str, str], None] | None = None) -> int:
        """Serve until a signal. Returns the exit code. `on_ready` gets the two base URLs, a worker's one.

        Raises `SystemExit` if an address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        for number in self._told_by:
            loop.add_signal_handler(number, self.stop)
        if self._admin is not None:
            # A worker's configuration is its overview's.
            loop.add_signal_handler(signal.SIGHUP, self._router.reloader.hasten)
        await self._router.start()
        serving = [asyncio.create_task(self._public.serve(self._sockets))]
        if self._admin is not None:
            serving.append(asyncio.create_task(self._admin.serve()))
        try:
            await until_started(self._servers, serving)
            if on_ready is not None:
                on_ready(base_url(self._public), "" if self._admin is None else base_url(self._admin))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self._drain(serving[0])
        finally:
            for server in self._servers:
                server.should_exit = True
            self._public.force_exit = True
            # From Python 3.12 on a listener is not closed before all its connections are.
            self._router.front_end.close()
            await asyncio.gather(*serving, return_exceptions=True)
            await self._router.close()
        return 0 if self._signals < 2 else 130

    def stop(self) -> None:
        """What a signal does: the first time drain, the second time end at once."""
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._public.force_exit = True

    @property
    def _servers(self) -> list[_Server]:
        return [self._public] if self._admin is None else [self._public, self._admin]

    async def _drain(self, serving: asyncio.Task[None]) -> None:
        server = self._router.config.server
        self._router.front_end.draining = True
        log.info("draining: not ready for %g s, then up to %g s for open requests", server.settle_s,
                 server.drain_timeout_s)  # fmt: skip
        await self._unless_hurried(asyncio.sleep(server.settle_s))
        self._public.should_exit = True
        await self._unless_hurried(asyncio.wait({serving}, timeout=server.drain_timeout_s))
        if not serving.done():
            self._router.end_open_requests()
            await asyncio.wait({serving}, timeout=_LAST_WORDS_S)

    async def _unless_hurried(self, waiting: Any) -> None:
        """Wait, but for a second signal."""
        task = asyncio.ensure_future(waiting)
        while not task.done() and self._signals < 2:
            await asyncio.wait({task}, timeout=0.05)
        task.cancel()


async def until_started(servers: Sequence[uvicorn.Server], serving: Sequence[asyncio.Task[None]]) -> None:
    """Raises `SystemExit` if one of them ends before."""
    while not all(server.started for server in servers):
        if any(task.done() for task in serving):
            raise SystemExit(1)
        await asyncio.sleep(0.01)


def admin_server(app: Starlette, config: AdminConfig) -> _Server:
    return _server(app, config.host, config.port, grace_s=_ADMIN_GRACE_S)


def _server(
    app: Starlette,
    host: str,
    port: int,
    *,
    http: Any = "httptools",
    keep_alive_s: float = 75.0,
    grace_s: int | None = None,
) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(keep_alive_s) or 1,
            timeout_graceful_shutdown=grace_s,
            backlog=4096,
        )
    )


def base_url(server: uvicorn.Server) -> str:
    """Where a started server listens."""
    return url_of(server.servers[0].sockets[0])


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that nobody has accepted yet."""
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            yield connection
