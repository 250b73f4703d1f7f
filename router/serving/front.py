"""The front end that uvicorn hosts: makes a protocol for each connection, and looks after all of them."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from email.utils import formatdate
from time import monotonic, time
from typing import Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from router.api.errors import TurnoutError
from router.eager import Eager
from router.flow.exchange import Exchange
from router.flow.inference import ENDPOINTS, Inference
from router.serving.head import Budget
from router.serving.http1 import HttpConnection
from router.serving.ordinary import ClientConnection

log = logging.getLogger("turnout.serving")

_SWEEP_S = 1.0


class FrontEnd:
    """Given to uvicorn as `http=`: called once per connection.

    What is an inference POST is served by `inference` directly; the rest goes through uvicorn's own
    protocol to the ASGI app.
    """

    def __init__(self, inference: Inference, budget: Budget) -> None:
        self.loop = asyncio.get_running_loop()
        self.budget = budget
        self.inference_paths = frozenset(ENDPOINTS)
        self.draining = False
        self._inference = inference
        self._own: set[ClientConnection] = set()
        self._runs: set[Eager] = set()
        self._uvicorn: dict[str, Any] = {}
        self._state: ServerState | None = None
        self._date_second = 0
        self._date_line = b""
        self._sweeper: asyncio.TimerHandle | None = None

    def serve_by(self, inference: Inference, budget: Budget) -> None:
        """Requests from now on, and connections from now on."""
        self._inference = inference
        self.budget = budget

    # ---- uvicorn ----

    def __call__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpConnection:
        self._uvicorn = {
            "config": config,
            "server_state": server_state,
            "app_state": app_state,
            "_loop": _loop,
        }
        self._state = server_state
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        return HttpConnection(self)

    # ---- connections ----

    def opened(self, connection: ClientConnection) -> None:
        self._own.add(connection)
        if self._state is not None:
            # uvicorn closes and awaits what stands here when it shuts down.
            self._state.connections.add(connection)  # type: ignore[arg-type]

    def closed(self, connection: ClientConnection) -> None:
        self._own.discard(connection)
        if self._state is not None:
            self._state.connections.discard(connection)

    def ordinary(self) -> asyncio.Protocol:
        return HttpToolsProtocol(**self._uvicorn)

    def serve(self, exchange: Exchange) -> None:
        self._run(self._inference.serve(exchange))

    def refuse(self, exchange: Exchange, error: TurnoutError) -> None:
        self._inference.refuse(exchange, error)

    def check(self, headers: Mapping[str, str]) -> None:
        self._inference.check(headers)

    def date_line(self) -> bytes:
        second = int(time())
        if second != self._date_second:
            self._date_second = second
            self._date_line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._date_line

    @property
    def open_connections(self) -> int:
        return len(self._own)

    @property
    def open_requests(self) -> int:
        return len(self._runs)

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._own):
            connection.abort()

    # ---- inside ----

    def _run(self, serving: Coroutine[None, None, None]) -> None:
        run = Eager(serving, self._runs.discard)
        self._runs.add(run)
        run.start()

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        now = monotonic()
        for connection in list(self._own):
            try:
                connection.look(now)
            except Exception:
                log.exception("a client connection met a defect of the router")
                connection.abort()
