"""Twenty releases each through a real router at a steady rate: how soon a bad canary goes back, and a good one not."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from time import monotonic, time
from typing import Any

import httpx
import pytest

from tests.support.loops import run_strictly
from tests.support.versions import RunningVersions, simulated_versions

RUNS = 20
RATE = 300
"""Requests a second, as far as the machine can."""
RAMP = "[models.m.canary]\nsteps = [5, 100]\nmin_requests = 1000000\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Stream:
    """Sessions that come at a steady rate: new ones, or with `known` so many that come again and again."""

    def __init__(self, versions: RunningVersions, seed: int, known: int = 1 << 32) -> None:
        self._versions = versions
        self._random = Random(seed)
        self._known = known
        self._number = 0
        self.told = Counter[tuple[int, str]]()
        self._over = False

    async def until(self, done: Callable[[], Awaitable[bool]], most_s: float) -> bool:
        """Ask until it is so; False if it never was."""
        asking = asyncio.create_task(self._ask())
        began = monotonic()
        try:
            while monotonic() - began < most_s:
                if await done():
                    return True
                await asyncio.sleep(0.01)
            return False
        finally:
            self._over = True
            await asking

    async def _ask(self) -> None:
        began, sent = monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not self._over:
                while sent < (monotonic() - began) * RATE and not self._over:
                    group.create_task(self._one())
                    sent += 1
                await asyncio.sleep(0.003)

    async def _one(self) -> None:
        self._number += 1
        session = f"{self._random.randrange(self._known):x}"
        answer = await self._versions.chat(
            stream=True,
            headers={"x-session-id": session},
            messages=[{"role": "user", "content": f"{session} " * 200}],
        )
        fine = (
            answer.status_code == 200
            and answer.text.rstrip().endswith("[DONE]")
            and "error" not in answer.text
        )
        self.told[answer.status_code if fine else 599, answer.headers.get("x-turnout-version", "")] += 1


class Release:
    def __init__(self, versions: RunningVersions, admin: httpx.AsyncClient) -> None:
        self._admin = admin
        (self.replica,) = versions.running.router.fleet.pools["m", "v2"].replicas
        self.versions = versions

    async def start(self, **more: object) -> None:
        answer = await self._admin.post(
            "/api/releases/m", json={"verb": "start", "version": "v2", "force": True, **more}
        )
        assert answer.status_code == 200, answer.text
        self.before = self.replica.served

    async def view(self) -> dict[str, Any]:
        view: dict[str, Any] = (await self._admin.get("/api/releases/m")).json()
        return view

    async def back(self) -> None:
        answer = await self._admin.post("/api/releases/m", json={"verb": "rollback"})
        assert answer.status_code == 200, answer.text

    async def is_back(self) -> bool:
        # Of the routes, which costs nothing to ask.
        return not self.versions.running.router.fleet.traffic["m"].release.under_way

    @property
    def asked(self) -> int:
        """Requests that the canary has had."""
        return self.replica.served - self.before


def with_release(test: Callable[[Release], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    async def run() -> None:
        top = f'[releases]\nfile = "{tmp_path}/releases.json"\n[queue]\nmax_requests = 0\n'
        options.setdefault("model", RAMP)
        engine = {"speed": 100.0, "max_num_seqs": 256}
        async with (
            simulated_versions(v1=["vllm"], v2=["vllm"], top=top, engine=engine, **options) as versions,
            httpx.AsyncClient(base_url=versions.running.admin_url, timeout=20) as admin,
        ):
            await test(Release(versions, admin))

    run_strictly(run())


def test_a_canary_that_fails_everything(tmp_path: Path) -> None:
    """No client notices; after at most 12 of its requests it gets none any more."""
    asked, seconds, told = [], [], Counter[tuple[int, str]]()

    async def test(release: Release) -> None:
        for run in range(RUNS):
            (engine,) = release.versions.engines["v2"]
            engine.faults.clear()
            await release.start()
            engine.faults.set(("status=500", "error", "reset")[run % 3])
            began, stream = time(), Stream(release.versions, run)
            assert await stream.until(release.is_back, 60)
            moved = (await release.view())["history"][0]
            asked.append(release.asked)
            seconds.append(moved["at"] - began)
            told.update(stream.told)

    with_release(test, tmp_path)
    print(
        f"canary requests {sorted(asked)}; seconds {[round(one, 2) for one in sorted(seconds)]}; {dict(told)}"
    )
    assert max(asked) <= 12
    assert {status for status, _ in told} == {200}


def test_a_canary_that_fails_one_in_ten(tmp_path: Path) -> None:
    """Ten points more errors: 60, 150 and 200 of its requests at the median, 95th and 99th of many releases."""
    asked, told = [], Counter[tuple[int, str]]()

    async def test(release: Release) -> None:
        (engine,) = release.versions.engines["v2"]
        for run in range(RUNS):
            engine.faults.clear()
            await release.start(percent=25)
            engine.faults.set("status=500;p=0.1", seed=run)
            stream = Stream(release.versions, run)
            assert await stream.until(release.is_back, 120), (await release.view())["finding"]
            asked.append(release.asked)
            told.update(stream.told)

    with_release(test, tmp_path)
    print(f"canary requests {sorted(asked)}; {dict(told)}")
    assert sorted(asked)[RUNS // 2] <= 60
    assert max(asked) <= 200
    assert {status for status, _ in told} == {200}


def test_a_canary_with_a_cold_cache_stays(tmp_path: Path) -> None:
    """Equal but for what it has not cached yet: none of twenty goes back."""
    told: list[str] = []

    async def test(release: Release) -> None:
        (engine,) = release.versions.engines["v2"]
        for run in range(RUNS):
            assert (await release.versions.client.post(f"{engine.url}/reset_prefix_cache")).status_code == 200
            await release.start(percent=25)
            # The same sessions again and again: stable has them all.
            await Stream(release.versions, run, known=150).until(release.is_back, 8)
            view = await release.view()
            told.append(view["phase"])
            assert release.asked > 100
            await release.back()

    with_release(test, tmp_path)
    assert told == ["canary"] * RUNS
