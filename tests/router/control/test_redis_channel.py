"""Routers that share through a real Redis-compatible server: events, clocks, its loss and its return."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import pytest

from policies.routing.events import Dispatched, Prompt
from router.config.secret import SecretUrl
from router.control.datagrams import DatagramChannel
from router.control.messages import Member
from router.control.redis_channel import RedisChannel
from tests.router.control.test_sharing import Memory
from tests.support.loops import run_strictly
from tests.support.redis_server import RedisServer, redis_server
from tests.support.scripted_server import until
from tests.support.sharing import Peer

PROMPT = Prompt(tuple(2**64 - 1 - number for number in range(500)), 64_000, 128.0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def router(url: str, number: int) -> Peer:
    member = Member(number, 0, 0)
    return Peer(member, [RedisChannel(SecretUrl(url), member)])


@contextlib.asynccontextmanager
async def routers(url: str, count: int) -> AsyncIterator[list[Peer]]:
    """Routers that have heard of each other."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [router(url, number) for number in range(count)]
        for peer in peers:
            await peer.sharing.start()
            stack.push_async_callback(peer.sharing.close)
        await until(lambda: all(peer.sharing.peers == count - 1 for peer in peers))
        yield peers


def test_events_reach_the_other_router(server: RedisServer) -> None:
    """With all hashes; counts too."""

    async def run() -> None:
        async with routers(server.url, 2) as (one, two):
            now = monotonic()
            ticket = one.dispatch("a", now, PROMPT)
            await until(lambda: two.counts == {"a": 1})
            (event,) = two.heard
            assert isinstance(event, Dispatched)
            assert (event.replica, event.ticket, event.prompt) == ("a", ticket, PROMPT)
            one.done("a", ticket)
            await until(lambda: two.counts == {"a": 0})
            assert one.sharing.healthy
            assert two.sharing.healthy

    run_strictly(run(), uv=True)


def test_times_are_translated(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender's clock stands elsewhere: what it did just now was just now here too."""
    monkeypatch.setattr("router.control.sharing.monotonic", lambda: monotonic() + 1e6)

    async def run() -> None:
        async with routers(server.url, 2) as (one, two):
            # Both read a clock that is ahead by 1e6 s; what `one` tells is made to come from the true one.
            seal = one.sharing._codec.batch
            monkeypatch.setattr(
                one.sharing._codec, "batch", lambda member, now, entries: seal(member, now - 1e6, entries)
            )
            began = monotonic()
            one.dispatch("a", began - 5.0)
            await until(lambda: two.counts == {"a": 1})
            (event,) = two.heard
            late_s = event.at - (began + 1e6 - 5.0)
            assert 0 <= late_s < 1.0

    run_strictly(run(), uv=True)


def test_workers_of_one_router_hear_each_other_once(server: RedisServer, tmp_path: Path) -> None:
    """By datagrams only, although both are on Redis too; another router hears both by Redis."""

    async def run() -> None:
        one, two = (
            Peer(member, [DatagramChannel(tmp_path, member), RedisChannel(SecretUrl(server.url), member)])
            for member in (Member(1, 0, 0), Member(1, 1, 0))
        )
        other = router(server.url, 2)
        async with contextlib.AsyncExitStack() as stack:
            for peer in (one, two, other):
                await peer.sharing.start()
                stack.push_async_callback(peer.sharing.close)
            await until(lambda: all(peer.sharing.peers == 2 for peer in (one, two, other)))
            ticket = one.dispatch("a")
            two.dispatch("b")
            await until(lambda: other.counts == {"a": 1, "b": 1})
            await until(lambda: two.counts == {"a": 1})
            one.done("a", ticket)
            await until(lambda: other.counts["a"] == two.counts["a"] == 0)
            assert [type(event).__name__ for event in two.heard] == ["Dispatched", "Done"]

    run_strictly(run(), uv=True)


def test_databases_are_apart(server: RedisServer) -> None:
    """Publishing knows no databases, but two fleets may share one server."""

    async def run() -> None:
        async with routers(server.url, 2) as (one, two):
            stranger = router(server.url.removesuffix("0") + "1", 7)
            await stranger.sharing.start()
            one.dispatch("a")
            await until(lambda: two.counts == {"a": 1})
            assert (one.sharing.peers, stranger.sharing.peers, stranger.heard) == (1, 0, [])
            await stranger.sharing.close()

    run_strictly(run(), uv=True)


def test_a_router_that_joins_takes_over_what_was_learned(server: RedisServer) -> None:
    """Through the same server, addressed to it alone."""

    async def run() -> None:
        old, new = router(server.url, 1), router(server.url, 2)
        learned, mine = Memory(bytes(range(256)) * 1000), Memory()
        old.sharing.offer({("m", "v1"): learned})
        new.sharing.offer({("m", "v1"): mine})
        await old.sharing.start()
        await until(lambda: old.sharing.healthy)
        await new.sharing.start()
        await until(lambda: mine.state == learned.state)
        await new.sharing.close()
        await old.sharing.close()

    run_strictly(run(), uv=True)


def test_redis_goes_and_returns() -> None:
    """Alone within about a second, nothing fails meanwhile, and together again soon after it is back."""

    async def run(server: RedisServer) -> None:
        async with routers(server.url, 2) as (one, two):
            one.dispatch("a")
            await until(lambda: two.counts == {"a": 1})
            await asyncio.to_thread(server.stop)
            await until(lambda: not (one.sharing.healthy or two.sharing.healthy))
            await until(lambda: two.counts == {"a": 0} and one.health == two.health == [False])
            assert two.sharing.peers == 0
            one.dispatch("b")
            await asyncio.to_thread(server.start)
            await until(lambda: two.counts == {"a": 1, "b": 1})
            await until(lambda: one.health == two.health == [False, True])

    with redis_server() as server:
        run_strictly(run(server), uv=True)


def test_redis_is_not_there_at_the_start() -> None:
    """The router starts alone, and joins when it comes."""

    async def run(server: RedisServer) -> None:
        await asyncio.to_thread(server.stop)
        one, two = router(server.url, 1), router(server.url, 2)
        await one.sharing.start()
        await two.sharing.start()
        await until(lambda: one.health == [False])
        one.dispatch("a")
        await asyncio.to_thread(server.start)
        await until(lambda: two.counts == {"a": 1} and one.sharing.healthy)
        await one.sharing.close()
        await two.sharing.close()

    with redis_server() as server:
        run_strictly(run(server), uv=True)
