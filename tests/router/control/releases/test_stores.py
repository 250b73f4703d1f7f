"""Releases in a file and in Redis: one of two who move at once is refused, and nothing is half written."""

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from policies.release.lifecycle import Phase, Release
from router.config.secret import SecretUrl
from router.control.releases.records import MOST_ENTRIES, Conflict, Entry, ReleaseStore, StoreAway
from router.control.releases.release_file import ReleaseFile
from router.control.releases.release_redis import RedisReleases
from tests.support.loops import run_strictly
from tests.support.redis_server import RedisServer, redis_server

FIRST = Release(
    stable="v1", declared="v1", generation=1, phase=Phase.CANARY, canary="v2", share=100, salt="s"
)


def entry(generation: int, verb: str = "start") -> Entry:
    return Entry(
        generation=generation, at=float(generation), verb=verb, actor="ann", phase="canary", stable="v1"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextlib.asynccontextmanager
async def store(kind: str, path: Path, server: RedisServer) -> AsyncIterator[ReleaseStore]:
    if kind == "file":
        yield ReleaseFile(path / "releases.json")
    else:
        redis = RedisReleases(SecretUrl(server.url))
        await redis._do("FLUSHALL")
        yield redis
        await redis.close()


@pytest.mark.parametrize("kind", ["file", "redis"])
class TestBoth:
    def test_what_is_stored_is_read(self, kind: str, tmp_path: Path, server: RedisServer) -> None:
        async def run() -> None:
            async with store(kind, tmp_path, server) as releases:
                assert await releases.read() == {}
                assert list(await releases.history("m")) == []
                await releases.swap("m", FIRST, entry(1))
                await releases.swap("m", replace(FIRST, generation=2, share=500), entry(2, "step"))
                assert await releases.read() == {"m": replace(FIRST, generation=2, share=500)}
                assert list(await releases.history("m")) == [entry(2, "step"), entry(1)]

        run_strictly(run())

    def test_who_comes_second_is_refused(self, kind: str, tmp_path: Path, server: RedisServer) -> None:
        async def run() -> None:
            async with store(kind, tmp_path, server) as releases:
                await releases.swap("m", FIRST, entry(1))
                results = await asyncio.gather(
                    *(releases.swap("m", replace(FIRST, generation=2, share=n), entry(2)) for n in range(8)),
                    return_exceptions=True,
                )
                assert sorted(type(one).__name__ for one in results) == ["Conflict"] * 7 + ["NoneType"]
                for generation in (1, 2, 4):
                    with pytest.raises(Conflict):
                        await releases.swap("m", replace(FIRST, generation=generation), entry(generation))
                assert len(await releases.history("m")) == 2

        run_strictly(run())

    def test_the_past_is_bounded(self, kind: str, tmp_path: Path, server: RedisServer) -> None:
        async def run() -> None:
            async with store(kind, tmp_path, server) as releases:
                for generation in range(1, MOST_ENTRIES + 6):
                    await releases.swap("m", replace(FIRST, generation=generation), entry(generation))
                history = await releases.history("m")
                assert [one.generation for one in history[:2]] == [MOST_ENTRIES + 5, MOST_ENTRIES + 4]
                assert len(history) == MOST_ENTRIES

        run_strictly(run())


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    file = ReleaseFile(tmp_path / "releases.json")
    file.path.write_text('{"m": ')
    with pytest.raises(StoreAway, match=r"cannot be read .* repair or remove it"):
        file.load()


def test_a_place_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(StoreAway, match=r"set \[releases\] file to a place that can"):
            await ReleaseFile(tmp_path / "not" / "there.json").swap("m", FIRST, entry(1))

    run_strictly(run())


def climb(path: Path, times: int) -> None:
    """Move a release on so many times, whoever else does."""

    async def run() -> None:
        file, made = ReleaseFile(path), 0
        while made < times:
            release = (await file.read()).get("m", replace(FIRST, generation=0))
            with contextlib.suppress(Conflict):
                generation = release.generation + 1
                await file.swap("m", replace(release, generation=generation), entry(generation))
                made += 1

    asyncio.run(run())


def test_no_move_of_several_processes_is_lost(tmp_path: Path) -> None:
    """Nor read half: the file is looked at all the while, and one of them is killed."""
    path = tmp_path / "releases.json"
    processes = [
        multiprocessing.get_context("spawn").Process(target=climb, args=(path, 40)) for _ in range(3)
    ]
    killed = multiprocessing.get_context("spawn").Process(target=climb, args=(path, 10**6))
    for process in (*processes, killed):
        process.start()
    file, seen = ReleaseFile(path), [0]
    while any(process.is_alive() for process in processes):
        record = file.load().get("m")
        if record is not None:
            seen.append(record.release.generation)
        if killed.is_alive() and seen[-1] > 60:
            killed.kill()
    for process in (*processes, killed):
        process.kill()
        process.join()
    assert seen == sorted(seen)
    history = file.load()["m"].history
    assert [one.generation for one in history] == list(range(len(history), 0, -1))
    assert len(history) >= 120


def test_one_router_at_a_time_decides(server: RedisServer) -> None:
    async def run() -> None:
        one, two = RedisReleases(SecretUrl(server.url)), RedisReleases(SecretUrl(server.url))
        await one._do("FLUSHALL")
        assert await one.lease("one", 0.2)
        assert not await two.lease("two", 0.2)
        assert await one.lease("one", 0.2)
        while not await two.lease("two", 60):
            await asyncio.sleep(0.02)
        assert not await one.lease("one", 0.2)
        await one.close()
        await two.close()

    run_strictly(run())
