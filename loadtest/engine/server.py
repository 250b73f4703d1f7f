"""A running replica: engine, dialect, listeners, faults and log. Many can live in one process."""

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from loadtest.engine.connection import Connection, Plan
from loadtest.engine.control import control_routes
from loadtest.engine.core import EngineCore, EngineOptions
from loadtest.engine.dialect import Dialect, Handler, Reply, Request, Routes, dialect_class
from loadtest.engine.faults import Fault, FaultBook, Kind
from loadtest.engine.http1 import Router, phrase
from loadtest.engine.request_log import RequestLog

MAIN = "http"
"""Name of the main listener; a dialect may have further ones."""


class RunningEngine:
    """Made by `serve_engine`. An async context manager that closes itself."""

    def __init__(self, options: EngineOptions, host: str, ports: Mapping[str, int]) -> None:
        self.options = options
        self.faults = FaultBook(options.seed)
        self.faults.on_change = self._apply_port_faults
        self.log = RequestLog()
        self.connections: set[Connection] = set()
        self.host = host
        self.ports = dict(ports)
        """Port by listener name; known for good once listening began."""
        self._servers: dict[str, asyncio.Server] = {}
        self._relisten: asyncio.TimerHandle | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbered = 0
        self.life = 0
        """How often it has died: who was accepted in another life is not served in this one."""
        self._settled = asyncio.Event()
        self._boot()

    def _boot(self) -> None:
        """What a new process begins with: an empty engine and its dialect."""
        self.booted_at = time.monotonic()
        self.core = EngineCore(self.options)
        self.dialect: Dialect = dialect_class(self.options.dialect)(self.core, self.options)
        self._routers = {name: Router(routes) for name, routes in self._listeners().items()}
        self._control = Router(control_routes(self))

    def _listeners(self) -> dict[str, Routes]:
        return {MAIN: self.dialect.routes, **self.dialect.traits.extra_ports}

    @property
    def port(self) -> int:
        """The main listener's port."""
        return self.ports[MAIN]

    @property
    def url(self) -> str:
        """Base URL of the main listener, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return bool(self._servers)

    # ---- life ----

    async def listen(self) -> None:
        """Accept connections, on the same ports as before if there was a before."""
        if self._relisten is not None:
            self._relisten.cancel()
            self._relisten = None
        for publisher in self.dialect.traits.publishers:
            publisher.open()
        for name in self._listeners():
            if name in self._servers:
                continue
            loop = asyncio.get_running_loop()
            server = await loop.create_server(
                partial(Connection, self, name, self.life),
                self.host,
                self.ports.get(name, 0),
                reuse_address=True,
                backlog=1024,
            )
            self.ports[name] = server.sockets[0].getsockname()[1]
            self._servers[name] = server

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open go on."""
        servers, self._servers = self._servers, {}
        for server in servers.values():
            server.close()

    def die(self) -> None:
        """As if the process were killed: nobody listens, every connection is reset."""
        self.life += 1
        self.stop_listening()
        for connection in list(self.connections):
            connection.reset()
        self._close_publishers()
        self.core.close()

    def _close_publishers(self) -> None:
        for publisher in self.dialect.traits.publishers:
            publisher.close()

    async def restart(self, options: EngineOptions | None = None) -> None:
        """As if a new process took the place of a killed one: cold cache, counters at zero, same ports.

        `options`: of another kind, perhaps: another model, another version.
        """
        await self._finish_accepting()
        self.die()
        self.options = options or self.options
        self._boot()
        self._apply_engine_faults()
        await self.listen()

    async def _finish_accepting(self) -> None:
        """Whoever is being accepted now is to be reset, too: asyncio would forget it, open."""
        loop = asyncio.get_running_loop()
        for server in self._servers.values():
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)

    def restart_soon(self, options: EngineOptions) -> None:
        """The same, in a moment: the answer to whoever ordered it gets away first."""
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._restarting = loop.create_task(self.restart(options))

        loop.call_later(0.02, begin)

    async def shutdown(self, drain_s: float = 0.0) -> None:
        """Stop as on SIGTERM: let requests finish for `drain_s` seconds, abort the rest, close."""
        self.core.draining = drain_s > 0
        if not (self.core.draining and self.dialect.traits.drains_listening):
            self.stop_listening()
        await self._until_quiet(drain_s)
        self.stop_listening()
        self.core.abort_all()
        await self._until_quiet(1.0)
        await self.close()

    async def _until_quiet(self, limit_s: float) -> None:
        """Wait until nothing is being answered, but not longer."""
        end = time.monotonic() + limit_s
        while any(not connection.idle for connection in self.connections) and time.monotonic() < end:
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), max(0.0, end - time.monotonic()))

    async def close(self) -> None:
        """Close listeners and connections at once."""
        if self._relisten is not None:
            self._relisten.cancel()
        self.stop_listening()
        self._close_publishers()
        self.core.close()
        for connection in list(self.connections):
            connection.close()
        while self.connections:
            self._settled.clear()
            await self._settled.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- what connections ask ----

    def settled(self) -> None:
        """A connection has ended, or has nothing more to answer for now."""
        self._settled.set()

    def number_connection(self) -> int:
        """The next connection's number, from 0."""
        self._numbered += 1
        return self._numbered - 1

    def plan(self, port: str, request: Request) -> Plan:
        """Who answers a request on a listener, the request with its path's values, and what goes wrong."""
        found = self._control.find(request.method, request.path)
        if not isinstance(found, int):
            return found[0], request, ()
        try:
            script = self.faults.for_request(request)
        except ValueError as error:
            return self._refusing(400, str(error)), request, ()
        return self._plan_health(request) or self._plan_route(port, request, script)

    def _plan_health(self, request: Request) -> Plan | None:
        """What happens to health paths while they are made to fail."""
        if request.path not in self.dialect.traits.health_paths:
            return None
        hang = self.faults.port(Kind.HEALTH_HANG)
        if hang is not None:
            return self._unhealthy, request, (replace(hang, kind=Kind.HANG, value=None),)
        down = self.faults.port(Kind.HEALTH_DOWN)
        if down is None:
            return None
        self.faults.note(down, request.path)
        return self._unhealthy, request, ()

    def _plan_route(self, port: str, request: Request, script: Sequence[Fault]) -> Plan:
        limit = self.dialect.traits.max_body_bytes
        if limit is not None and len(request.body) > limit:
            return self._refusing(413, "length limit exceeded"), request, script
        found = self._routers[port].find(request.method, request.path)
        if isinstance(found, int):
            return self._refusing(found, phrase(found)), request, script
        handler, params = found
        return partial(self._authorized, handler), replace(request, params=params), script

    async def _authorized(self, handler: Handler, request: Request) -> Reply:
        return self.dialect.authorize(request) or await handler(request)

    def _refusing(self, status: int, message: str) -> Handler:
        async def refuse(_: Request) -> Reply:
            return self.dialect.error(status, message)

        return refuse

    async def _unhealthy(self, _: Request) -> Reply:
        return self.dialect.unhealthy()

    # ---- faults of the whole port ----

    def _apply_port_faults(self) -> None:
        self._apply_engine_faults()
        self._apply_refusal(self.faults.port(Kind.REFUSE))

    def _apply_engine_faults(self) -> None:
        slow, stall = self.faults.port(Kind.SLOW), self.faults.port(Kind.STALL)
        self.core.slowdown = slow.value or 1.0 if slow is not None else 1.0
        if stall is not None:
            self.core.stall()
        elif self.core.stalled:
            self.core.resume()
        if self.faults.port(Kind.DEAD) is not None:
            self.core.kill()
        elif not self.core.alive:
            self.core.revive()

    def _apply_refusal(self, refuse: Fault | None) -> None:
        if refuse is None:
            if not self.listening:
                self._listen_soon()
            return
        self.faults.note(refuse, None)
        self.stop_listening()
        for connection in [connection for connection in self.connections if connection.idle]:
            connection.close()
        if refuse.value is not None:
            loop = asyncio.get_running_loop()
            self._relisten = loop.call_later(refuse.value, self._listen_soon)

    def _listen_soon(self) -> None:
        self._relisten = None
        self._listening = asyncio.get_running_loop().create_task(self.listen())


def free_port() -> int:
    """A port nobody listens on now, for servers that must be told theirs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def serve_engine(
    options: EngineOptions,
    host: str = "127.0.0.1",
    port: int = 0,
    extra_ports: Mapping[str, int] | None = None,
) -> RunningEngine:
    """Start a replica in this event loop. Port 0 takes a free one, and so do listeners not named."""
    running = RunningEngine(options, host, {MAIN: port, **(extra_ports or {})})
    await running.listen()
    return running


def engine_options(dialect: str, **changes: object) -> EngineOptions:
    """A real engine's options out of the box, with changes; raises KeyError for an unknown dialect."""
    return replace(dialect_class(dialect).defaults, **changes)  # type: ignore[arg-type]
