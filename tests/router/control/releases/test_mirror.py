"""A host's copy of what Redis says: as fast as promised, frozen while Redis is away, and told when it is back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import pytest

from policies.release.lifecycle import Phase
from router.config.secret import SecretUrl
from router.control.releases.follower import Follower
from router.control.releases.mirror import Mirror
from router.control.releases.records import StoreAway
from router.control.releases.release_file import ReleaseFile
from router.control.releases.release_redis import RedisReleases
from tests.router.control.releases.test_stores import FIRST, entry
from tests.support.loops import StrictLoop, run_strictly
from tests.support.redis_server import RedisServer, redis_server


@dataclass
class Host:
    mirror: Mirror
    file: ReleaseFile

    @property
    def share(self) -> int | None:
        """What its processes have in force."""
        record = self.file.load().get("m")
        return None if record is None else record.release.share


@contextlib.asynccontextmanager
async def host(folder: Path, server: RedisServer) -> AsyncIterator[Host]:
    await asyncio.to_thread(folder.mkdir)
    file = ReleaseFile(folder / "releases.json")
    redis = RedisReleases(SecretUrl(server.url))
    mirror = Mirror(redis, file)
    task = asyncio.create_task(mirror.keep_mirroring())
    try:
        yield Host(mirror, file)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await redis.close()


async def until_share(share: int, *hosts: Host) -> None:
    async with asyncio.timeout(20):
        while any(one.share != share for one in hosts):
            await asyncio.sleep(0.005)


def test_every_host_has_a_move_soon(tmp_path: Path) -> None:
    async def run() -> None:
        with redis_server() as server:
            async with host(tmp_path / "a", server) as a, host(tmp_path / "b", server) as b:
                took = []
                for generation in range(1, 11):
                    began = monotonic()
                    release = replace(FIRST, generation=generation, share=generation)
                    await a.mirror.swap("m", release, entry(generation))
                    assert a.share == generation
                    await until_share(generation, b)
                    took.append(monotonic() - began)
                assert sorted(took)[5] < 5

    run_strictly(run())


def test_without_redis_weights_are_frozen_but_the_way_back_is_open(tmp_path: Path) -> None:
    """And what was done meanwhile is so everywhere when Redis is back."""

    async def run() -> None:
        with redis_server() as server:
            async with host(tmp_path / "a", server) as a, host(tmp_path / "b", server) as b:
                await a.mirror.swap("m", FIRST, entry(1))
                await until_share(100, a, b)
                server.kill()
                with pytest.raises(StoreAway, match="cannot be reached"):
                    await a.mirror.swap("m", replace(FIRST, generation=2, share=500), entry(2, "step"))
                back = replace(FIRST, generation=2, share=0, phase=Phase.ROLLED_BACK)
                await a.mirror.swap("m", back, entry(2, "rollback"))
                assert (a.share, b.share) == (0, 100)
                newest, *_ = await a.mirror.history("m")
                assert newest.verb == "rollback"
                server.start()
                await until_share(0, a, b)
                record = b.file.load()["m"]
                assert record.release.phase is Phase.ROLLED_BACK

    run_strictly(run())


def test_what_redis_has_lost_it_is_told_again(tmp_path: Path) -> None:
    async def run() -> None:
        with redis_server() as server:
            async with host(tmp_path / "a", server) as a, host(tmp_path / "b", server) as b:
                await a.mirror.swap("m", replace(FIRST, share=700), entry(1))
                await until_share(700, a, b)
                await a.mirror.redis._do("FLUSHALL")
                async with asyncio.timeout(20):
                    while not await a.mirror.redis.read():
                        await asyncio.sleep(0.01)
                assert (a.share, b.share) == (700, 700)
                assert (await a.mirror.redis.read())["m"].share == 700

    run_strictly(run())


def test_a_follower_tells_of_changes_alone(tmp_path: Path) -> None:
    async def run() -> None:
        file, told = ReleaseFile(tmp_path / "releases.json"), []
        follower = Follower(file, told.append)
        follower.start()
        await file.swap("m", FIRST, entry(1))
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
        file.path.write_text("{")
        follower.look()
        file.path.write_bytes(b"")
        follower.look()
        assert told == [{"m": FIRST}]
        await follower.close()

    with StrictLoop() as loop:
        loop.run(run(), may_say="cannot be read")
