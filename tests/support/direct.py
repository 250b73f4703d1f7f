"""The direct front end of a whole router, in front of one scripted replica."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tests.support.front_ends import nothing_open
from tests.support.loops import run_strictly
from tests.support.peers import Peer, PeerConnection, Script, answer, scripted_peer
from tests.support.raw_client import RawClient, raw_client
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.scripted_server import until


@dataclass(frozen=True, slots=True)
class Direct:
    running: RunningRouter
    peer: Peer
    posts: list[bytes]
    """Bodies of the inference requests that the replica has read."""

    def connect(self, **options: int) -> AbstractAsyncContextManager[RawClient]:
        return raw_client(self.running.port, **options)

    @property
    def connections(self) -> int:
        """Client connections that the router has open."""
        return self.running.router.front_end.open_connections

    @property
    def unsent(self) -> int:
        """Bytes that this process holds for clients that have not taken them."""
        transports = [each._transport for each in self.running.router.front_end._own]  # type: ignore[attr-defined]
        return sum(transport.get_write_buffer_size() for transport in transports)


def direct(
    test: Callable[[Direct], Awaitable[None]],
    *,
    play: Script,
    server: str = "",
    more: str = "",
    uv: bool = False,
) -> None:
    """Run `test`; `play` answers one inference request that has been read. Nothing may be left or complain."""

    async def run() -> None:
        posts: list[bytes] = []

        async def script(connection: PeerConnection) -> None:
            while True:
                head, body = await connection.request()
                if head.startswith(b"POST "):
                    posts.append(body)
                    await play(connection)
                else:
                    await connection.send(answer(b""))

        async with scripted_peer(script) as peer:
            health = "[health]\ninterval_s = 60\n"
            text = config_text(f'url = "{peer.url}", engine = "vllm"', server=server, more=health + more)
            async with running_router(text) as running:
                await test(Direct(running, peer, posts))
                await until(lambda: nothing_open(running.router))

    run_strictly(run(), uv=uv)
