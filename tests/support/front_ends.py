"""One configuration behind every front end: `turnout serve`'s own on both loops, uvicorn, and granian."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn

from loadtest.engine.server import RunningEngine, free_port
from router.asgi import AsgiApp
from router.compose import Router
from router.config.decode import decode
from router.serving.server import base_url
from tests.support.loops import StrictLoop
from tests.support.peers import Peer, PeerConnection, answer, scripted_peer
from tests.support.raw_client import RawClient, raw_client
from tests.support.routers import config_text, running_router
from tests.support.scripted_server import until
from tests.support.simulated import replica_entry, simulated_engines

Kind = Literal["serve", "serve-uvloop", "uvicorn", "granian"]
KINDS: tuple[Kind, ...] = ("serve", "serve-uvloop", "uvicorn", "granian")

Play = Callable[[PeerConnection], Awaitable[None]]
"""Answers one inference request that has been read from the connection."""

_MODEL = """
[models.{name}]
stable = "v1"
policy = "round_robin"
[models.{name}.versions.v1]
served_name = "served"
replicas = [ {{ {replica} }} ]
"""
LIMITS = """
[health]
interval_s = 60
[scrape]
interval_s = 60
[timeouts]
connect_s = 1
first_token_s = 0.5
between_tokens_s = 0.5
total_s = 30
[retries]
continue_streams = false
"""
QUICK = """
max_body_bytes = 65536
head_timeout_s = 0.3
body_timeout_s = 0.3
write_stall_s = 1
"""


@dataclass(slots=True)
class Stage:
    """Engines, a scripted replica, and a router in front of them.

    Model `m` has two simulated vLLM replicas, `solo` one, and `peer` the scripted one, which does what
    `play` says. `router` is None where it lives in another process; `log` is then what that one wrote.
    """

    kind: Kind
    engines: list[RunningEngine]
    peer: Peer
    url: str = ""
    router: Router | None = None
    play: Play | None = None
    log: Path | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def solo(self) -> RunningEngine:
        return self.engines[2]

    def connect(self, **options: int) -> contextlib.AbstractAsyncContextManager[RawClient]:
        return raw_client(self.port, **options)

    async def quiet(self) -> None:
        """Wait until no request is left anywhere, and see that nothing was said of a defect."""
        for engine in self.engines:
            engine.faults.clear()
        self.play = None
        await until(lambda: all(connection.idle for e in self.engines for connection in e.connections))
        if self.router is not None:
            await until(lambda: nothing_open(self.router))
        if self.log is not None:
            said = self.log.read_text()
            self.log.write_text("")
            assert "Traceback" not in said, said


def nothing_open(router: Router | None) -> bool:
    """Whether a router has no request, attempt or lease left."""
    assert router is not None
    return not (
        len(router.watch)
        or router.front_end.open_requests
        or any(replica.in_flight or replica.waiting for replica in router.fleet.replicas)
    )


class Theatre:
    """A stage and its loop, for all tests of one front end."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self._kind = kind
        self._directory = directory
        self._loop = StrictLoop(uv=kind == "serve-uvloop")
        self._stack = contextlib.AsyncExitStack()
        self._stage: Stage | None = None

    def __enter__(self) -> "Theatre":
        self._loop.__enter__()
        self._stage = self._loop.run(self._stack.enter_async_context(stage(self._kind, self._directory)))
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._loop.run(self._stack.aclose())
        finally:
            self._loop.__exit__(*error)

    def run(self, test: Callable[[Stage], Awaitable[None]], *, may_say: str = "nothing") -> None:
        """Run one test; nothing of it may be left, and nobody may complain, but of what `may_say` is in."""
        self._loop.run(self._run(test), may_say=may_say)

    async def _run(self, test: Callable[[Stage], Awaitable[None]]) -> None:
        assert self._stage is not None
        await test(self._stage)
        await self._stage.quiet()


@contextlib.asynccontextmanager
async def stage(kind: Kind, directory: Path) -> AsyncIterator[Stage]:
    """Everything running; `directory` is for a child's configuration and log."""
    async with contextlib.AsyncExitStack() as stack:
        engines = await stack.enter_async_context(simulated_engines("vllm", "vllm", "vllm"))
        made: list[Stage] = []

        async def script(connection: PeerConnection) -> None:
            while True:
                head, _body = await connection.request()
                play = made[0].play if made else None
                if head.startswith(b"POST ") and play is not None:
                    await play(connection)
                else:
                    await connection.send(answer(b""))

        peer = await stack.enter_async_context(scripted_peer(script))
        made.append(Stage(kind, engines, peer))
        await stack.enter_async_context(_SERVING[kind](made[0], _config(engines, peer), directory))
        yield made[0]


@contextlib.asynccontextmanager
async def fronted(kind: Kind, config: str, directory: Path) -> AsyncIterator[Stage]:
    """A front end with a configuration of the test's own, and no engines but its own."""
    made = Stage(kind, [], Peer(0))
    async with _SERVING[kind](made, config, directory):
        yield made


def _config(engines: list[RunningEngine], peer: Peer) -> str:
    pair = config_text(*map(replica_entry, engines[:2]), server=QUICK, more=LIMITS)
    solo = _MODEL.format(name="solo", replica=replica_entry(engines[2]))
    return pair + solo + _MODEL.format(name="peer", replica=f'url = "{peer.url}", engine = "vllm"')


@contextlib.asynccontextmanager
async def _own(stage: Stage, config: str, _directory: Path) -> AsyncIterator[None]:
    async with running_router(config) as running:
        stage.url, stage.router = running.url, running.router
        yield


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@contextlib.asynccontextmanager
async def _uvicorn(stage: Stage, config: str, _directory: Path) -> AsyncIterator[None]:
    app = AsgiApp(decode(config, "test.toml"))
    server = _Server(
        uvicorn.Config(
            app, port=0, http="httptools", ws="none", lifespan="on", log_config=None, access_log=False
        )
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    stage.url, stage.router = base_url(server), app._router
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 10)


@contextlib.asynccontextmanager
async def _granian(stage: Stage, config: str, directory: Path) -> AsyncIterator[None]:
    port = free_port()
    stage.url = f"http://127.0.0.1:{port}"
    path, stage.log = directory / "turnout.toml", directory / "granian.log"
    path.write_text(config)
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--no-ws"]
    command += ["--host", "127.0.0.1", "--port", str(port), "router.asgi:app"]
    with stage.log.open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env={**os.environ, "TURNOUT_CONFIG": str(path)}
        )
    try:
        await _until_it_listens(port, child)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await asyncio.wait_for(child.wait(), 20)


async def _until_it_listens(port: int, child: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while child.returncode is None:
            with contextlib.suppress(OSError):
                async with raw_client(port):
                    return
            await asyncio.sleep(0.05)
    raise AssertionError("granian has ended, see its log")


_SERVING = {"serve": _own, "serve-uvloop": _own, "uvicorn": _uvicorn, "granian": _granian}
