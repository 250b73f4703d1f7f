"""The flow without a front end: exchanges go in by hand, scripted replicas answer over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from router.compose import Router
from router.config.decode import decode
from router.eager import Eager
from router.observe.events import Finished
from tests.support.exchanges import RecordedExchange
from tests.support.loops import run_strictly
from tests.support.peers import (
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    PeerConnection,
    Script,
    answer,
    chunk,
    scripted_peer,
)
from tests.support.raw_client import CHAT, STREAMED_CHAT
from tests.support.routers import config_text
from tests.support.scripted_server import until

DONE = b"data: [DONE]\n\n"
WHOLE = b'{"id":"1","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}'


def piece(content: str = "x", finish: str | None = None, **delta: object) -> bytes:
    """One frame of a chat stream, as vLLM sends it."""
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    members = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    return b"data: " + json.dumps({**members, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


LAST_PIECES = piece("", "stop") + DONE


def plays(*parts: bytes, then: Callable[[PeerConnection], Awaitable[None]] | None = None) -> Script:
    """A replica that answers every request with these bytes; `then` instead of the next request."""

    async def script(connection: PeerConnection) -> None:
        while True:
            await connection.request()
            for part in parts:
                await connection.send(part)
            if then is not None:
                await then(connection)
                return

    return script


async def hang(connection: PeerConnection) -> None:
    """Say nothing more until the other side has closed."""
    await connection.closed_by_peer()


async def reset(connection: PeerConnection) -> None:
    """End the connection with RST, once what was sent has been taken."""
    await asyncio.sleep(0.05)
    connection.reset()


def streams(*frames: bytes) -> Script:
    """A replica whose every answer is these frames, a chunk each, and a proper end."""
    return plays(STREAM_HEAD, *map(chunk, frames), LAST_CHUNK)


def answers(body: bytes = WHOLE) -> Script:
    """A replica whose every answer is this body."""
    return plays(answer(body))


@dataclass(slots=True)
class Flow:
    """A router whose front end is the test."""

    router: Router
    peers: list[Peer]
    events: list[Finished] = field(default_factory=list)

    def begin(self, exchange: RecordedExchange) -> asyncio.Future[None]:
        """Serve as the direct front end does; done when that has ended."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        Eager(self.router.inference.serve(exchange), lambda _: ended.set_result(None)).start()
        return ended

    def begin_task(self, exchange: RecordedExchange) -> asyncio.Task[None]:
        """Serve as the ASGI front end does."""
        return asyncio.create_task(self.router.inference.serve(exchange))

    async def serve(self, exchange: RecordedExchange) -> Finished:
        """Serve to the end; there is one event about it."""
        before = len(self.events)
        async with asyncio.timeout(20):
            await self.begin(exchange)
        (event,) = self.events[before:]
        return event

    @property
    def connections(self) -> list[int]:
        """How often each replica was connected to."""
        return [peer.connections for peer in self.peers]

    async def at_rest(self) -> None:
        """Nothing is leased, watched or in use."""
        await until(lambda: not self._open())

    def _open(self) -> bool:
        leased = any(replica.in_flight or replica.waiting for replica in self.router.fleet.replicas)
        return leased or bool(len(self.router.watch))


@contextlib.asynccontextmanager
async def flowing(
    *scripts: Script, more: str = "", engine: str = "vllm", policy: str = "round_robin"
) -> AsyncIterator[Flow]:
    """A flow over one scripted replica per script, chosen in turn, the first one first."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(scripted_peer(script)) for script in scripts]
        listed = [f'url = "{peer.url}", engine = "{engine}"' for peer in peers]
        flow = Flow(Router(decode(config_text(*listed, policy=policy, more=more), "test.toml")), peers)
        flow.router.inference._observer = flow.events.append
        try:
            yield flow
            await flow.at_rest()
        finally:
            await flow.router.close()


def through(
    test: Callable[[Flow], Awaitable[None]],
    *scripts: Script,
    more: str = "",
    engine: str = "vllm",
    policy: str = "round_robin",
    uv: bool = False,
) -> None:
    """Run `test` over replicas with these scripts; nothing may be left behind or complain."""

    async def run() -> None:
        async with flowing(*scripts, more=more, engine=engine, policy=policy) as flow:
            await test(flow)

    run_strictly(run(), uv=uv)


def streamed(body: bytes = STREAMED_CHAT) -> RecordedExchange:
    """A client that wants a stream."""
    return RecordedExchange(body=body)


def whole(body: bytes = CHAT) -> RecordedExchange:
    """A client that wants its answer whole."""
    return RecordedExchange(body=body)


class StallingExchange(RecordedExchange):
    """Says after every piece that it is too much, as a connection does whose client does not read."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.on_pause is not None:
            self.on_pause()
