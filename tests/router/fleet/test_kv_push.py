"""A publisher and a subscriber on real sockets: whatever is missed is asked for, or given up."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.engine.vllm_kv_events import Cleared, Layout
from router.fleet.kv_push import PushFeed, PushPlace
from router.fleet.zmq_links import Link, LinkError, Links
from tests.support.kv import Mirror, Publishing, hash_of, places, publishing, stored
from tests.support.loops import run_strictly
from tests.support.scripted_server import until

LARGE = 2**64 - 5
"""A hash that older releases wrote as a negative number."""


class Hearing:
    def __init__(self, feed: PushFeed, mirror: Mirror) -> None:
        self.feed = feed
        self.mirror = mirror

    @property
    def figures(self) -> Any:
        return self.feed.figures

    async def subscribed(self, publisher: Publishing, connections: int = 1) -> None:
        """Wait until messages arrive: a publisher drops them until it has read who wants which.

        The messages that find out are no batches.
        """
        await until(lambda: self.figures.connections == connections)
        seen = self.figures.unreadable
        while self.figures.unreadable == seen:
            publisher.link.offer((b"kv-events",))
            with contextlib.suppress(TimeoutError):
                await until(lambda: self.figures.unreadable > seen, 0.2)

    async def holds(self, *hashes: int) -> None:
        """Wait until the mirror is exactly this."""
        await until(lambda: self.mirror.hashes == frozenset(hashes))


@asynccontextmanager
async def hearing(folder: Path, *, replays: bool = True, topic: str = "kv-events") -> AsyncIterator[Hearing]:
    endpoint, replay = places(folder)
    links, mirror = Links(), Mirror()
    place = PushPlace(endpoint=endpoint, replay_endpoint=replay if replays else None, topic=topic)
    feed = PushFeed(links, place, mirror)
    task = asyncio.create_task(feed.run())
    try:
        yield Hearing(feed, mirror)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        links.close()


Act = Callable[[Publishing, Hearing], Coroutine[Any, Any, None]]


def play(
    folder: Path, act: Act, *, replays: bool = True, asks: bool = True, kept: int = 1000, uv: bool = False
) -> None:
    """A publisher that is up, and a subscriber that is connected."""

    async def run() -> None:
        async with (
            publishing(folder, replays=replays, kept=kept) as publisher,
            hearing(folder, replays=asks) as hear,
        ):
            await hear.subscribed(publisher)
            await act(publisher, hear)

    run_strictly(run(), uv=uv)


@pytest.mark.parametrize("uv", [False, True])
def test_events_come_in_order(tmp_path: Path, uv: bool) -> None:
    """Stored, followed, removed, cleared."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1, count=2))
        await hear.holds(hash_of(1), hash_of(1, 2))
        publisher.send(stored(3, parent=2))
        publisher.remove(1)
        await hear.holds(hash_of(1, 2), hash_of(1, 2, 3))
        assert 0 <= hear.figures.events_per_s(asyncio.get_running_loop().time()) <= 3
        publisher.send(Cleared())
        await hear.holds()
        assert (hear.figures.batches, hear.figures.gaps, hear.mirror.lost_times) == (4, 0, 0)
        assert hear.figures.lag_s is not None

    play(tmp_path, act, uv=uv)


def test_who_comes_late_hears_everything(tmp_path: Path) -> None:
    """What was published before the connection is replayed from number 0."""

    async def run() -> None:
        async with publishing(tmp_path) as publisher:
            publisher.send(*map(stored, range(300)))
            async with hearing(tmp_path) as hear:
                await hear.holds(*map(hash_of, range(300)))
                publisher.send(stored(300))
                await hear.holds(*map(hash_of, range(301)))
                assert hear.mirror.heard_events == 301
                assert hear.figures.losses == 0

    run_strictly(run())


def test_who_comes_too_late_for_some_goes_on_with_the_rest(tmp_path: Path) -> None:
    """Only the newest batches are kept; a block that follows a forgotten one is not understood."""

    async def run() -> None:
        async with publishing(tmp_path, kept=2) as publisher:
            publisher.send(stored(1), stored(2, parent=1), stored(7))
            async with hearing(tmp_path) as hear:
                await hear.holds(hash_of(7))
                assert hear.mirror.blocks.orphans == 1
                assert hear.mirror.lost_times == 0

    run_strictly(run())


@pytest.mark.parametrize("uv", [False, True])
def test_a_gap_is_replayed(tmp_path: Path, uv: bool) -> None:
    """What a full queue dropped is asked for before what came after it is applied."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        publisher.send(stored(2, parent=1), hidden=True)
        publisher.send(stored(3, parent=2))
        await hear.holds(hash_of(1), hash_of(1, 2), hash_of(1, 2, 3))
        assert (hear.figures.gaps, hear.figures.losses, hear.figures.restarts) == (1, 0, 0)

    play(tmp_path, act, uv=uv)


@pytest.mark.parametrize(("replays", "asks", "kept"), [(False, False, 9), (True, True, 1)])
def test_a_gap_that_cannot_be_filled_ends_what_was_known(
    tmp_path: Path, replays: bool, asks: bool, kept: int
) -> None:
    """Without a replay socket, and where the replay begins too late."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        publisher.send(stored(2), hidden=True)
        publisher.send(stored(3, parent=2), hidden=True)
        publisher.send(stored(4))
        await hear.holds(hash_of(4))
        assert (hear.figures.losses, hear.mirror.lost_times) == (1, 1)

    play(tmp_path, act, replays=replays, asks=asks, kept=kept)


def test_a_replay_socket_that_is_silent_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up soon, and not asked again for each gap."""
    monkeypatch.setattr("router.fleet.kv_push._REPLAY_SILENCE_S", 0.05)

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        for number in (3, 5, 7):
            publisher.send(stored(number), hidden=True)
            publisher.send(stored(number + 1))
            await hear.holds(hash_of(number + 1))
        assert hear.figures.losses == 3
        assert hear.figures.failed_replays == 1

    play(tmp_path, act, replays=False, asks=True)


@pytest.mark.parametrize("replays", [True, False])
def test_a_new_publisher_ends_what_was_known(tmp_path: Path, replays: bool) -> None:
    """Its numbers begin again; with replays that is seen as soon as it is there, before it publishes."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1), stored(2), stored(3))
        await hear.holds(hash_of(1), hash_of(2), hash_of(3))
        publisher.restart()
        await hear.subscribed(publisher, connections=2)
        if replays:
            await hear.holds()
        publisher.send(stored(5))
        await hear.holds(hash_of(5))
        assert (hear.figures.restarts, hear.mirror.lost_times) == (1, 1)

    play(tmp_path, act, replays=replays, asks=replays)


def test_a_new_publisher_that_is_further_on_is_found_out(tmp_path: Path) -> None:
    """Its numbers go on from the old one's, as if nothing had happened."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1), stored(2))
        await hear.holds(hash_of(1), hash_of(2))
        publisher.restart()
        publisher.send(*map(stored, range(10, 15)), hidden=True)
        await until(lambda: hear.figures.connections == 2)
        await hear.holds(*map(hash_of, range(10, 15)))
        publisher.send(stored(20, parent=14))
        await hear.holds(*map(hash_of, range(10, 15)), hash_of(14, 20))
        assert hear.figures.restarts == 1

    play(tmp_path, act)


def test_a_connection_that_broke_is_made_good(tmp_path: Path) -> None:
    """The same publisher on a new connection: what it said meanwhile is replayed, nothing is lost."""

    async def run() -> None:
        async with publishing(tmp_path) as publisher, hearing(tmp_path) as hear:
            publisher.send(stored(1))
            await hear.holds(hash_of(1))
            assert hear.figures.connected
            publisher.kv.close()
            await until(lambda: not hear.figures.connected)
            publisher.send(stored(2, parent=1))
            publisher.kv.open()
            await hear.holds(hash_of(1), hash_of(1, 2))
            assert (hear.figures.connected, hear.figures.connections) == (True, 2)
            assert (hear.figures.restarts, hear.mirror.lost_times) == (0, 0)

    run_strictly(run())


def test_who_is_hastened_finds_out_at_once(tmp_path: Path) -> None:
    """What was dropped is heard without waiting for the next batch."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        publisher.send(stored(2), hidden=True)
        hear.feed.hasten()
        await hear.holds(hash_of(1), hash_of(2))
        publisher.send(stored(3))
        await hear.holds(hash_of(1), hash_of(2), hash_of(3))
        assert hear.figures.gaps == 0

    play(tmp_path, act)


def test_batches_that_were_replayed_are_not_applied_twice(tmp_path: Path) -> None:
    """Live and replayed ones overlap."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1), hidden=True)
        publisher.send(stored(2), stored(3))
        await hear.holds(hash_of(1), hash_of(2), hash_of(3))
        publisher.send(stored(4))
        await hear.holds(hash_of(1), hash_of(2), hash_of(3), hash_of(4))
        assert hear.mirror.heard_events == 4
        assert (hear.figures.restarts, hear.figures.losses) == (0, 0)

    play(tmp_path, act)


def test_junk_is_counted_and_survived(tmp_path: Path) -> None:
    """Frames that are no batch change nothing; a batch that cannot be read may have changed anything."""

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        before = hear.figures.unreadable
        for frames in ((b"kv-events",), (b"kv-events", b"short", b"x"), (b"kv-events", b"", b"", b"")):
            publisher.link.offer(frames)
        await until(lambda: hear.figures.unreadable == before + 3)
        assert hear.mirror.hashes == {hash_of(1)}
        publisher.kv.publish(b"\xc1 no MessagePack")
        await hear.holds()
        publisher.send(stored(2))
        await hear.holds(hash_of(2))
        assert (hear.figures.unreadable, hear.mirror.lost_times) == (before + 4, 1)
        assert hear.figures.restarts == 0

    play(tmp_path, act)


def test_other_topics_are_not_heard(tmp_path: Path) -> None:
    """Several publishers may share a connection."""

    async def run() -> None:
        async with publishing(tmp_path, replays=False) as publisher, hearing(tmp_path, replays=False) as hear:
            await hear.subscribed(publisher)
            before = hear.figures.unreadable
            publisher.link.offer((b"other", bytes(8), b"x"))
            publisher.send(stored(1))
            await hear.holds(hash_of(1))
            assert hear.figures.unreadable == before

    run_strictly(run())


def test_a_slow_subscriber_ends_up_with_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than all queues between them hold, faster than it reads: it loses some, and asks for them."""
    monkeypatch.setattr("router.fleet.kv_push._MAX_QUEUED", 10)
    starts = range(0, 60_000, 100)

    async def run() -> None:
        async with publishing(tmp_path, hwm=10) as publisher, hearing(tmp_path) as hear:
            await hear.subscribed(publisher)
            publisher.send(*(stored(start, count=100) for start in starts))
            async with asyncio.timeout(10):
                while not hear.figures.gaps:
                    publisher.send(stored(99_999))
                    await asyncio.sleep(0.01)
            await until(lambda: len(hear.mirror.hashes) == 60_001)
            assert hear.mirror.lost_times == 0

    run_strictly(run())


@pytest.mark.parametrize("version", [(0, 9), (0, 10, 2), (0, 14), (0, 17), (0, 24), (0, 25), (0, 32)])
@pytest.mark.parametrize("int_hashes", [True, False])
def test_every_encoding(tmp_path: Path, version: tuple[int, ...], int_hashes: bool) -> None:
    """Arrays and maps, numbers and digests, replays with and without a topic."""

    async def run() -> None:
        layout = Layout(version, int_hashes=int_hashes)
        async with publishing(tmp_path, layout) as publisher:
            publisher.send(stored(1, count=2))
            async with hearing(tmp_path) as hear:
                await hear.holds(hash_of(1), hash_of(1, 2))
                publisher.send(stored(LARGE, parent=2))
                publisher.send(stored(7, parent=LARGE))
                publisher.remove(1, LARGE)
                await hear.holds(hash_of(1, 2), hash_of(1, 2, LARGE, 7))
                publisher.send(Cleared())
                await hear.holds()
                assert hear.figures.unreadable == 0

    run_strictly(run())


def test_an_endpoint_that_cannot_be_opened_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised; the figures say why."""

    async def run() -> None:
        links, mirror = Links(), Mirror()
        feed = PushFeed(links, PushPlace(endpoint="tcp://no such host:1"), mirror)
        task = asyncio.create_task(feed.run())
        await until(lambda: feed.figures.failure != "")
        assert "tcp://no such host:1 cannot be opened" in feed.figures.failure
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        links.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "KV events cannot be heard" in caplog.text


def test_a_socket_that_breaks_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its successor hears goes on where it broke."""
    monkeypatch.setattr("router.fleet.kv_push._FIRST_PAUSE_S", 0.01)
    receive, broken = Link.receive, [False]

    async def act(publisher: Publishing, hear: Hearing) -> None:
        publisher.send(stored(1))
        await hear.holds(hash_of(1))
        broken[0] = True
        publisher.send(stored(2))
        await until(lambda: "a defect" in hear.figures.failure)
        await hear.holds(hash_of(1), hash_of(2))
        await until(lambda: not hear.figures.failure)
        assert hear.mirror.lost_times == 0

    async def receive_or_break(link: Link) -> list[bytes]:
        frames = await receive(link)
        if broken[0]:
            broken[0] = False
            raise LinkError("a defect of the socket")
        return frames

    monkeypatch.setattr(Link, "receive", receive_or_break)
    play(tmp_path, act)
