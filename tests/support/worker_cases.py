"""Replicas, clients and configurations for tests of several workers."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

from tests.support.flow import LAST_PIECES, piece
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, Peer, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import STREAMED_CHAT, RawAnswer, RawClient, events_in, get, post, raw_client
from tests.support.routers import config_text
from tests.support.scripted_server import until
from tests.support.workers import Workers

SHARED_S = 0.3
"""By then whatever one worker tells is known to all, even if the first message was lost."""

MORE = "[health]\ninterval_s = 1\nup_after = 1"


def text(*replicas: str, count: int = 2, policy: str = "least_requests", server: str = "") -> str:
    return config_text(*replicas, policy=policy, server=f"workers = {count}\n{server}", more=MORE)


@contextlib.asynccontextmanager
async def clients(port: int, count: int) -> AsyncIterator[list[RawClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_client(port)) for _ in range(count)]


async def ask(client: RawClient, request: bytes) -> RawAnswer:
    await client.send(request)
    return await client.answer()


class Held:
    """Replicas that begin every stream and end it when they are told to."""

    def __init__(self) -> None:
        self.there: Counter[str] = Counter()
        self.go_on: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def replicas(self, names: str) -> AsyncIterator[dict[str, Peer]]:
        async with contextlib.AsyncExitStack() as stack:
            self.go_on = {name: asyncio.Event() for name in names}
            scripts = {name: partial(self._play, name) for name in names}
            yield {name: await stack.enter_async_context(scripted_peer(scripts[name])) for name in names}

    async def release(self, name: str) -> None:
        """End all that this replica has."""
        self.go_on[name].set()
        await until(lambda: not self.there[name])
        self.go_on[name].clear()

    async def _play(self, name: str, connection: PeerConnection) -> None:
        while True:
            head, _ = await connection.request()
            if head.startswith(b"GET "):
                await connection.send(answer(b""))
                continue
            self.there[name] += 1
            try:
                await connection.send(STREAM_HEAD + chunk(piece()))
                await self._going_on_or_left(name, connection)
                await connection.send(chunk(LAST_PIECES) + LAST_CHUNK)
            finally:
                self.there[name] -= 1
            return

    async def _going_on_or_left(self, name: str, connection: PeerConnection) -> None:
        leaving = asyncio.ensure_future(connection.reader.read(1))
        going_on = asyncio.ensure_future(self.go_on[name].wait())
        try:
            await asyncio.wait({leaving, going_on}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            going_on.cancel()


async def begin(client: RawClient) -> None:
    """A stream whose first piece is there."""
    await client.send(post(STREAMED_CHAT))
    await client.first_piece()


async def finish(client: RawClient) -> None:
    events = events_in(b"".join([piece async for piece in client.chunks()]))
    assert events[-1] == b"[DONE]"


def entries(peers: dict[str, Peer], more: str = "") -> list[str]:
    return [f'url = "{peer.url}", engine = "vllm", id = "{name}"{more}' for name, peer in peers.items()]


@contextlib.asynccontextmanager
async def of_each_worker(router: Workers, each: int, count: int = 2) -> AsyncIterator[list[list[RawClient]]]:
    """So many clients of each of `count` workers: the kernel spreads connections, so some more are opened."""
    owned: dict[int, list[RawClient]] = {}
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100 * each):
            if len(owned) == count and all(len(clients) >= each for clients in owned.values()):
                break
            client = await stack.enter_async_context(raw_client(router.port))
            assert (await ask(client, get(b"/livez"))).status == 200
            owned.setdefault(router.owner(client), []).append(client)
        assert len(owned) == count
        yield [owned[pid] for pid in sorted(owned)]
