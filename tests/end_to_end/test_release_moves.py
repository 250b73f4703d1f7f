"""Releases that move under load, and routers that are killed while they do."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from router.control.releases.release_file import ReleaseFile
from tests.support.loops import run_strictly
from tests.support.router_process import router_process
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.versions import RunningVersions, simulated_versions, versions_text

CANARY = "[models.m.canary]\nsteps = [1, 5, 25, 50, 100]\nmin_requests = 1000000\n"
STEPS = {0, 100, 500, 2500, 5000, 10_000}
BY_HAND = {1200, 3400}


class Load:
    """Clients that ask without a pause, and what they were told."""

    def __init__(self, versions: RunningVersions) -> None:
        self._versions = versions
        self._places = {
            f"127.0.0.1:{engine.port}": version
            for version, engines in versions.engines.items()
            for engine in engines
        }
        self.told = Counter[str]()
        self.wrong: list[object] = []
        self._over = False

    async def during(self, work: Any) -> None:
        clients = [asyncio.create_task(self._ask(number)) for number in range(6)]
        try:
            await work
        finally:
            self._over = True
            await asyncio.gather(*clients)

    async def _ask(self, number: int) -> None:
        while not self._over:
            model = ("m", "m:stable", "m@v1", "m@v2")[sum(self.told.values()) % 4]
            answer = await self._versions.chat(model, headers={"x-session-id": f"{number}"})
            version, replica = (answer.headers.get(f"x-turnout-{name}") for name in ("version", "replica"))
            if answer.status_code != 200 or self._places.get(str(replica)) != version:
                self.wrong.append((model, answer.status_code, version, replica, answer.text))
            if model.startswith("m@") and not model.endswith(str(version)):
                self.wrong.append((model, version))
            self.told[str(version)] += 1


async def flip(versions: RunningVersions, times: int) -> None:
    """All of the traffic to and fro: by weight, and by promotion and the way back."""
    async with httpx.AsyncClient(base_url=versions.running.admin_url, timeout=20) as admin:

        async def move(verb: str, **more: object) -> None:
            answer = await admin.post("/api/releases/m", json={"verb": verb, **more})
            assert answer.status_code == 200, answer.text

        made = 0
        while made < times:
            await move("start", version="v2", percent=100, force=True, manual=True)
            await move("weight", percent=0)
            await move("weight", percent=100)
            await move("promote")
            await move("rollback")
            made += 4
            if not made % 40:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_request_fails_or_goes_astray_while_all_traffic_moves(times: int, tmp_path: Path) -> None:
    async def run() -> None:
        top = f'[releases]\nfile = "{tmp_path}/releases.json"\n'
        async with simulated_versions(v1=["vllm"], v2=["tgi"], model=CANARY, top=top) as versions:
            load = Load(versions)
            await load.during(flip(versions, times))
            assert load.wrong == []
            assert set(load.told) == {"v1", "v2"}
            assert len(ReleaseFile(tmp_path / "releases.json").load()["m"].history) == min(
                500, times // 4 * 5
            )

    run_strictly(run())


async def wander(admin_url: str, random: Random, acknowledged: list[int]) -> None:
    """Moves at random, until the router is gone."""
    async with httpx.AsyncClient(base_url=admin_url, timeout=5) as admin:
        while True:
            verb = random.choice(["start", "weight", "pause", "resume", "promote", "rollback"])
            order: dict[str, object] = {"verb": verb}
            if verb == "start":
                order |= {"version": random.choice(["v1", "v2"]), "force": True}
            if verb == "weight":
                order["percent"] = random.choice([12, 34])
            try:
                answer = await admin.post("/api/releases/m", json=order)
            except httpx.HTTPError:
                return
            if answer.status_code == 200:
                acknowledged.append(answer.json()["generation"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_router_that_is_killed_finds_its_releases_as_they_were(kills: int, tmp_path: Path) -> None:
    """No move that was acknowledged is lost, and whatever is found is whole: weights of a step, or of a person."""
    random, acknowledged = Random(kills), [0]

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            entries = {f"v{at}": [replica_entry(engine)] for at, engine in enumerate(engines, 1)}
            text = versions_text(
                entries, model=CANARY, top=f'[releases]\nfile = "{tmp_path}/releases.json"\n'
            )
            for _ in range(kills):
                manager = router_process(text, tmp_path, leaves_with=-9)
                router = await asyncio.to_thread(manager.__enter__)
                wandering = asyncio.create_task(wander(router.admin_url, random, acknowledged))
                enough = len(acknowledged) + random.randrange(1, 9)
                async with asyncio.timeout(30):
                    while len(acknowledged) < enough:
                        await asyncio.sleep(random.uniform(0.001, 0.01))
                router.process.kill()
                await wandering
                await asyncio.to_thread(manager.__exit__, None, None, None)
                check(tmp_path, acknowledged[-1])
            manager = router_process(text, tmp_path)
            router = await asyncio.to_thread(manager.__enter__)
            async with httpx.AsyncClient(base_url=router.admin_url) as admin:
                view: Mapping[str, Any] = (await admin.get("/api/releases/m")).json()
            assert sum(one["percent"] for one in view["versions"]) == 100
            assert view["generation"] >= acknowledged[-1]
            await asyncio.to_thread(manager.__exit__, None, None, None)

    run_strictly(run())
    assert acknowledged[-1] > kills


def check(folder: Path, acknowledged: int) -> None:
    with contextlib.suppress(KeyError):
        record = ReleaseFile(folder / "releases.json").load()["m"]
        release = record.release
        assert release.generation >= acknowledged
        assert release.stable in ("v1", "v2")
        assert release.share in (
            BY_HAND if release.step is None and release.under_way and release.manual else STEPS | BY_HAND
        )
        assert [one.generation for one in record.history] == list(
            range(release.generation, max(0, release.generation - 500), -1)
        )
        assert json.loads((folder / "releases.json").read_text())
