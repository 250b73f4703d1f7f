"""Events that reading empties: gaps, other lives, windows, and servers that answer badly."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.fleet.control_client import ControlClient
from router.fleet.kv_pull import PATH, PullFeed, PullPlace
from tests.support.kv import Mirror, hash_of
from tests.support.kv import stored as stored_blocks
from tests.support.scripted_server import Reply, ScriptedServer, answer, serving, until


def stored(number: int, parent: int | None = None) -> dict[str, Any]:
    block = {
        "block_hash": number,
        "tokens": [{"token_id": each} for each in stored_blocks(number).token_ids],
    }
    return {"type": "stored", "parent_hash": parent, "blocks": [block]}


def entries(first: int, *data: dict[str, Any], window: int = 100) -> Reply:
    values = [{"event_id": first + at, "data": each, "window_size": window} for at, each in enumerate(data)]
    return answer(200, json.dumps(values).encode(), "application/json")


class Pulling:
    def __init__(self, server: ScriptedServer, feed: PullFeed, mirror: Mirror) -> None:
        self.server = server
        self.feed = feed
        self.mirror = mirror

    async def after(self, *replies: Reply) -> None:
        """Wait until these were answers, one after the other, and then one without events."""
        left = list(replies)

        async def next_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reply = left.pop(0) if left else answer(200, b"[]")
            await reply(reader, writer)

        self.server.replies[PATH] = next_one
        await until(lambda: not left)
        seen = self.server.seen[PATH]
        await until(lambda: self.server.seen[PATH] > seen + 1)


@asynccontextmanager
async def pulling() -> AsyncIterator[Pulling]:
    async with serving() as server:
        client, mirror = ControlClient(keep_alive=True), Mirror()
        place = PullPlace(url=server.url, headers={"authorization": "Bearer k"}, interval_s=0.005)
        feed = PullFeed(client, place, mirror)
        server.replies[PATH] = answer(200, b"[]")
        task = asyncio.create_task(feed.run())
        try:
            yield Pulling(server, feed, mirror)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()


def hashes(*numbers: Sequence[int]) -> set[int]:
    return {hash_of(*each) for each in numbers}


def test_events_add_up() -> None:
    """Over several answers; the replica's key goes with the questions."""

    async def run() -> None:
        async with pulling() as pull:
            await pull.after(entries(0, {"type": "created"}, stored(1)), entries(2, stored(2, parent=1)))
            assert pull.mirror.hashes == hashes([1], [1, 2])
            await pull.after(entries(3, {"type": "removed", "block_hashes": [1]}))
            assert pull.mirror.hashes == hashes([1, 2])
            assert (pull.feed.figures.gaps, pull.mirror.lost_times) == (0, 0)
            assert pull.server.headers[-1]["authorization"] == "bearer k"

    asyncio.run(run())


def test_a_gap_and_another_life() -> None:
    """The buffer overflowed; then the numbers begin again."""

    async def run() -> None:
        async with pulling() as pull:
            await pull.after(entries(0, stored(1)), entries(5, stored(2), stored(3, parent=1)))
            assert pull.mirror.hashes == hashes([2])
            assert (pull.feed.figures.gaps, pull.feed.figures.losses, pull.mirror.blocks.orphans) == (1, 1, 1)
            await pull.after(entries(0, stored(4)))
            assert pull.mirror.hashes == hashes([4])
            assert (pull.feed.figures.restarts, pull.mirror.lost_times) == (1, 2)

    asyncio.run(run())


def test_who_comes_late_goes_on_with_the_rest() -> None:
    """What somebody else has read is nobody's loss here."""

    async def run() -> None:
        async with pulling() as pull:
            await pull.after(entries(700, stored(1)))
            assert pull.mirror.hashes == hashes([1])
            assert pull.mirror.lost_times == 0

    asyncio.run(run())


def test_the_widest_window_is_heard() -> None:
    """Sliding windows forget prefixes; when a wider one turns up, it alone counts."""

    async def run() -> None:
        async with pulling() as pull:
            await pull.after(entries(0, stored(1)), entries(1, stored(2), window=50))
            assert pull.mirror.hashes == hashes([1])
            await pull.after(entries(2, stored(3), window=200))
            assert pull.mirror.hashes == hashes([3])

    asyncio.run(run())


def test_bad_answers_are_told_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    """No such path, no JSON, no answer: noted, tried again, and well again."""

    async def run() -> None:
        async with pulling() as pull:
            await pull.after(entries(0, stored(1)))
            pull.server.replies[PATH] = answer(404)
            await until(lambda: pull.feed.figures.failure == f"{PATH} answered 404")
            assert not pull.feed.figures.connected
            await pull.after(answer(200, b"oops"), entries(1, stored(2)))
            assert pull.mirror.hashes == hashes([1], [2])
            assert (pull.feed.figures.unreadable, pull.feed.figures.failure) == (1, "")
            assert (pull.feed.figures.connected, pull.feed.figures.connections) == (True, 2)

    with caplog.at_level(logging.WARNING, "turnout.fleet.kv_events"):
        asyncio.run(run())
    assert caplog.text.count("cannot be read") == 1


def test_who_is_hastened_asks_now() -> None:
    """However long the pause."""

    async def run() -> None:
        async with serving() as server:
            server.replies[PATH] = entries(0, stored(1))
            client, mirror = ControlClient(keep_alive=True), Mirror()
            feed = PullFeed(client, PullPlace(url=server.url, headers={}, interval_s=600), mirror)
            task = asyncio.create_task(feed.run())
            await until(lambda: mirror.hashes == hashes([1]))
            server.replies[PATH] = entries(1, stored(2))
            feed.hasten()
            await until(lambda: mirror.hashes == hashes([1], [2]))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()

    asyncio.run(run())
