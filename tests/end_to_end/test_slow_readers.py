"""Clients that stop reading an endless stream: little is held for each, others notice nothing, and it ends."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import monotonic

import pytest

from tests.support.flow import WHOLE, piece
from tests.support.front_ends import nothing_open
from tests.support.loops import run_strictly
from tests.support.peers import STREAM_HEAD, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import CHAT, STREAMED_CHAT, RawClient, post, raw_client
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.scripted_server import until

ENDLESS = STREAMED_CHAT.replace(b',"max_tokens":8', b"")
CALM = "[health]\ninterval_s = 60\n[scrape]\ninterval_s = 60\n[timeouts]\nconnect_s = 20"
"""Source and clients share a loop that is kept busy: what is measured is not how soon they answer."""
PER_STREAM = 256 * 1024
KERNELS = 16 * 1024 * 1024
"""More than the socket buffers of both hops of a stream take, bytes."""


class Source:
    """A replica that answers whole requests at once, and streams with frames as fast as they are taken."""

    def __init__(self, frame_bytes: int) -> None:
        self.sent: dict[PeerConnection, int] = {}
        self.ended = 0
        frame = chunk(piece("x" * frame_bytes))
        self._frames = frame * max(1, 16_000 // len(frame))

    async def play(self, connection: PeerConnection) -> None:
        """One endless stream."""
        self.sent[connection] = 0
        try:
            await connection.send(STREAM_HEAD)
            while True:
                await connection.send(self._frames)
                self.sent[connection] += len(self._frames)
        finally:
            self.ended += 1

    async def script(self, connection: PeerConnection) -> None:
        while True:
            _head, body = await connection.request()
            if b'"stream":true' in body:
                await self.play(connection)
            else:
                await connection.send(answer(WHOLE))

    async def stands(self) -> None:
        """Nothing more is taken."""
        before: dict[PeerConnection, int] = {}
        while before != self.sent:
            before = dict(self.sent)
            await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def stalled_clients(port: int, count: int) -> AsyncIterator[Sequence[RawClient]]:
    """Clients that have read the beginning of their stream and read no more."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            # One after the other: the scripted replica's backlog is short.
            client = await stack.enter_async_context(raw_client(port, receive_buffer=8192))
            await client.send(post(ENDLESS))
            await client.first_piece()
            clients.append(client)
        yield clients


async def answer_time(port: int) -> float:
    """How long another client waits for a whole answer, seconds."""
    async with raw_client(port) as client:
        began = monotonic()
        await client.send(post(CHAT))
        assert (await client.answer()).status == 200
        return monotonic() - began


def held(running: RunningRouter) -> int:
    """Bytes of streams that this process holds: written and not sent, read and not yet a whole frame."""
    transports = [connection._transport for connection in running.router.front_end._own]  # type: ignore[attr-defined]
    readers = [relay._reader for relay in running.router.watch._watched]  # type: ignore[attr-defined]
    unsent = sum(transport.get_write_buffer_size() for transport in transports)
    return unsent + sum(len(reader._splitter.carry) for reader in readers)


@contextlib.asynccontextmanager
async def router_of(source: Source, server: str) -> AsyncIterator[RunningRouter]:
    async with (
        scripted_peer(source.script) as peer,
        running_router(
            config_text(f'url = "{peer.url}", engine = "vllm"', server=server, more=CALM)
        ) as running,
    ):
        yield running
        await until(lambda: nothing_open(running.router))
        await until(lambda: running.router.front_end.open_connections == 0)


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("frame_bytes", [200, 16_000, 120_000])
def test_little_is_held_for_each(frame_bytes: int, uv: bool) -> None:
    """Of small frames, big ones, and such as do not fit into one read; and others are served as ever."""

    async def run() -> None:
        source = Source(frame_bytes)
        async with router_of(source, "write_stall_s = 600") as running:
            async with stalled_clients(running.port, 20):
                await source.stands()
                assert 20 * 65_536 < held(running) < 20 * PER_STREAM
                assert max(source.sent.values()) < KERNELS
                assert await answer_time(running.port) < 2
            await until(lambda: source.ended == 20)
            assert running.router.upstreams.open_connections <= 1

    run_strictly(run(), uv=uv)


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
def test_they_are_cut_off(uv: bool) -> None:
    """After `write_stall_s` their replica is free again, while they still stand there."""

    async def run() -> None:
        source = Source(16_000)
        async with (
            router_of(source, "write_stall_s = 0.5") as running,
            stalled_clients(running.port, 20) as clients,
        ):
            await until(lambda: source.ended == 20)
            await until(lambda: running.router.front_end.open_connections == 0)
            assert [replica.in_flight for replica in running.router.fleet.replicas] == [0]
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    assert b"[DONE]" not in await client.closed()

    run_strictly(run(), uv=uv)


# ---- a router in a process of its own ----


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.asynccontextmanager
async def serving(source: Source, config: Path, server: str) -> AsyncIterator[tuple[int, int]]:
    """`turnout serve` in a process of its own: its id and its port."""
    async with scripted_peer(source.script) as peer:
        text = config_text(f'url = "{peer.url}", engine = "vllm"', server=server, more=CALM)
        await asyncio.to_thread(config.write_text, text)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", "serve", "--config", str(config), stderr=asyncio.subprocess.PIPE
        )
        assert child.stderr is not None
        try:
            async with asyncio.timeout(30):
                while (
                    said := re.search(rb"serves at http://[^:]+:(\d+)", await child.stderr.readline())
                ) is None:
                    assert child.returncode is None
            yield child.pid, int(said[1])
        finally:
            child.terminate()
            await asyncio.wait_for(child.communicate(), 30)


@pytest.mark.slow
@pytest.mark.parametrize("frame_bytes", [200, 50_000])
def test_the_memory_of_a_router_with_two_hundred_of_them(frame_bytes: int, tmp_path: Path) -> None:
    """Measured from outside: what it grows by while they stand there, and what it gives back."""
    count = 200

    async def run() -> None:
        source = Source(frame_bytes)
        async with serving(source, tmp_path / "turnout.toml", "write_stall_s = 600") as (pid, port):
            for _ in range(20):
                await answer_time(port)
            usual = sorted([await answer_time(port) for _ in range(50)])
            files = files_of(pid)
            before = resident_bytes(pid)
            async with stalled_clients(port, count):
                await source.stands()
                grown = resident_bytes(pid) - before
                others = sorted([await answer_time(port) for _ in range(50)])
                pulled = max(source.sent.values())
            await until(lambda: source.ended == count, timeout_s=30)
            await until(lambda: files_of(pid) <= files)
            left = resident_bytes(pid) - before
            print(
                f"\n{count} stalled streams, frames of {frame_bytes} bytes: {grown / count / 1024:.0f} KiB each in the"
                f" router, {left / 1e6:.1f} MB left after them; at most {pulled / 1e6:.1f} MB pulled of one stream;"
                f" median of others {1000 * usual[25]:.1f} ms before, {1000 * others[25]:.1f} ms beside them"
            )
            assert grown < count * PER_STREAM
            assert pulled < KERNELS

    run_strictly(run())
