"""Canaries that decide by evidence, through real routers: bad ones go back, and no client notices."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.loops import run_strictly
from tests.support.redis_server import RedisServer, redis_server
from tests.support.routers import RunningRouter, running_router
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.versions import versions_text
from tests.support.workers import workers

RAMP = "[models.m.canary]\nsteps = [50, 100]\nmin_requests = 20\n"
BODY = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}


class Fleet:
    """Two versions behind some routers, and a client of each router's listeners."""

    def __init__(
        self, engines: dict[str, Any], clients: list[httpx.AsyncClient], admins: list[httpx.AsyncClient]
    ) -> None:
        self.engines = engines
        self.clients = clients
        self.admins = admins
        self.answers = Counter[tuple[int, str]]()
        self._sent = 0

    async def ask(self, times: int) -> None:
        """So many requests of as many sessions, eight at a time, over all routers in turn."""

        async def some(number: int) -> None:
            for at in range(number, times, 8):
                headers = {"x-session-id": f"s{self._sent + at}"}
                client = self.clients[at % len(self.clients)]
                answer = await client.post("/v1/chat/completions", json=BODY, headers=headers)
                self.answers[answer.status_code, answer.headers.get("x-turnout-version", "")] += 1

        await asyncio.gather(*map(some, range(8)))
        self._sent += times

    async def move(self, verb: str, **more: object) -> None:
        answer = await self.admins[0].post("/api/releases/m", json={"verb": verb, **more})
        assert answer.status_code == 200, answer.text

    async def release(self, at: int = 0) -> dict[str, Any]:
        view: dict[str, Any] = (await self.admins[at].get("/api/releases/m")).json()
        return view

    async def percent(self, version: str, at: int = 0) -> float:
        """What this version has in force there."""
        standings = {one["version"]: one["percent"] for one in (await self.release(at))["versions"]}
        return float(standings[version])

    async def ask_until(self, phase: str, most: int = 3000) -> dict[str, Any]:
        """Ask until the release is there, or for so long."""
        for _ in range(most // 40):
            await self.ask(40)
            view = await self.release()
            if view["phase"] == phase:
                return view
        raise AssertionError(f"it is {view['phase']} after {most} requests: {view['finding']}")


def configuration(engines: dict[str, Any], tmp_path: Path, top: str = "", model: str = RAMP) -> str:
    entries = {version: list(map(replica_entry, each)) for version, each in engines.items()}
    return versions_text(entries, model=model, top=f'[releases]\nfile = "{tmp_path}/releases.json"\n{top}')


@asynccontextmanager
async def clients_of(
    *routers: RunningRouter,
) -> AsyncIterator[tuple[list[httpx.AsyncClient], list[httpx.AsyncClient]]]:
    public = [httpx.AsyncClient(base_url=one.url, timeout=20) for one in routers]
    admin = [httpx.AsyncClient(base_url=one.admin_url, timeout=20) for one in routers]
    yield public, admin
    for client in (*public, *admin):
        await client.aclose()


def with_fleet(test: Callable[[Fleet], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=100.0) as stable,
            simulated_engines("vllm", speed=100.0) as canary,
        ):
            engines = {"v1": stable, "v2": canary}
            async with (
                running_router(configuration(engines, tmp_path, **options)) as router,
                clients_of(router) as (public, admin),
            ):
                await test(Fleet(engines, public, admin))

    run_strictly(run())


@pytest.mark.parametrize("fault", ["status=500", "refuse", "error"])
def test_a_canary_that_fails_goes_back_and_no_client_notices(tmp_path: Path, fault: str) -> None:
    async def test(fleet: Fleet) -> None:
        await fleet.move("start", version="v2")
        fleet.engines["v2"][0].faults.set(fault)
        view = await fleet.ask_until("rolled_back", 400)
        assert view["quarantined"] == ["v2"]
        assert {status for status, _ in fleet.answers} == {200}
        newest = view["history"][0]
        assert (newest["actor"], newest["verb"]) == ("controller", "rollback")
        assert newest["reason"]
        before = sum(fleet.answers.values())
        await fleet.ask(40)
        assert fleet.answers == {(200, "v1"): before + 40}

    with_fleet(test, tmp_path)


def test_a_good_canary_climbs_to_the_top(tmp_path: Path) -> None:
    async def test(fleet: Fleet) -> None:
        await fleet.move("start", version="v2")
        view = await fleet.ask_until("promoted", 20_000)
        assert (view["stable"], view["previous"]) == ("v2", "v1")
        assert [one["verb"] for one in reversed(view["history"])] == ["start", "step", "promote"]
        await fleet.ask(40)
        assert {status for status, _ in fleet.answers} == {200}

    with_fleet(
        test,
        tmp_path,
        model=RAMP + "[models.m.canary.margins]\nerror = 0.5\nttft_ratio = 9\ninter_token_ratio = 9\n",
    )


def test_a_paused_canary_that_fails_goes_back_too(tmp_path: Path) -> None:
    async def test(fleet: Fleet) -> None:
        await fleet.move("start", version="v2")
        await fleet.move("pause")
        await fleet.ask(80)
        assert (await fleet.release())["phase"] == "paused"
        fleet.engines["v2"][0].faults.set("status=500")
        await fleet.ask_until("rolled_back")

    with_fleet(test, tmp_path)


def test_a_manual_one_is_left_to_people(tmp_path: Path) -> None:
    async def test(fleet: Fleet) -> None:
        await fleet.move("start", version="v2", manual=True)
        fleet.engines["v2"][0].faults.set("status=500")
        await fleet.ask(200)
        view = await fleet.release()
        assert (view["phase"], view["percent"]) == ("canary", 50)
        assert view["finding"]
        assert {status for status, _ in fleet.answers} == {200}

    with_fleet(test, tmp_path)


def test_workers_are_one(tmp_path: Path) -> None:
    """All of them follow, and what they see comes together: the canary goes back."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=100.0) as stable,
            simulated_engines("vllm", speed=100.0) as canary,
        ):
            engines = {"v1": stable, "v2": canary}
            text = configuration(engines, tmp_path).replace("[server]\n", "[server]\nworkers = 2\n")
            async with workers(text, tmp_path) as router:
                # A connection a request: both workers get some.
                public = httpx.AsyncClient(
                    base_url=router.router.url, timeout=20, limits=httpx.Limits(max_keepalive_connections=0)
                )
                fleet = Fleet(engines, [public], [router.admin])
                await fleet.move("start", version="v2", percent=100, manual=True)
                await asyncio.sleep(0.3)
                await fleet.ask(40)
                assert fleet.answers == {(200, "v2"): 40}
                await fleet.move("weight", percent=50)
                await fleet.move("resume")
                canary[0].faults.set("status=500")
                await fleet.ask_until("rolled_back", 800)
                await asyncio.sleep(0.3)
                await fleet.ask(40)
                assert {status for status, _ in fleet.answers} == {200}
                assert await router.metric("turnout_release_weight", version="v1") == 1
                await public.aclose()

    run_strictly(run())


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def test_routers_are_one_while_redis_is_there(tmp_path: Path, server: RedisServer) -> None:
    """A move at one holds at the other; one decides by what both see; without Redis all stands still."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=100.0) as stable,
            simulated_engines("vllm", speed=100.0) as canary,
        ):
            engines = {"v1": stable, "v2": canary}
            redis = f'[redis]\nurl = "{server.url}"\ntimeout_ms = 200\n'
            (tmp_path / "one").mkdir()
            (tmp_path / "two").mkdir()
            async with (
                running_router(configuration(engines, tmp_path / "one", top=redis)) as one,
                running_router(configuration(engines, tmp_path / "two", top=redis)) as two,
                clients_of(one, two) as (public, admin),
            ):
                fleet = Fleet(engines, public, admin)
                await fleet.move("start", version="v2", percent=100, manual=True)
                async with asyncio.timeout(10):
                    while await fleet.percent("v2", at=1) != 100:
                        await asyncio.sleep(0.01)
                await fleet.ask(40)
                assert fleet.answers == {(200, "v2"): 40}
                server.kill()
                refused = await admin[1].post("/api/releases/m", json={"verb": "weight", "percent": 1})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "release_store_away")
                await fleet.ask(40)
                assert fleet.answers == {(200, "v2"): 80}
                back = await admin[1].post("/api/releases/m", json={"verb": "rollback", "reason": "by hand"})
                assert back.json()["phase"] == "rolled_back"
                server.start()
                async with asyncio.timeout(20):
                    while (await fleet.release(0))["phase"] != "rolled_back":
                        await asyncio.sleep(0.02)
                await fleet.move("start", version="v2", force=True)
                canary[0].faults.set("status=500")
                await fleet.ask_until("rolled_back", 800)
                assert {status for status, _ in fleet.answers} == {200}

    run_strictly(run())


def test_a_webhook_is_told_of_each_move(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        told.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def test_with(port: int) -> None:
        async with (
            simulated_engines("vllm", speed=100.0) as stable,
            simulated_engines("vllm", speed=100.0) as canary,
        ):
            text = configuration({"v1": stable, "v2": canary}, tmp_path)
            text = text.replace("[releases]\n", f'[releases]\nwebhook = "http://127.0.0.1:{port}/"\n')
            async with running_router(text) as router, clients_of(router) as (public, admin):
                fleet = Fleet({}, public, admin)
                await fleet.move("start", version="v2", actor="ann", reason="why not")
                await fleet.move("promote")
                async with asyncio.timeout(10):
                    while len(told) < 2:
                        await asyncio.sleep(0.01)

    async def run() -> None:
        server = await asyncio.start_server(hear, "127.0.0.1", 0)
        async with server:
            await test_with(server.sockets[0].getsockname()[1])

    run_strictly(run())
    assert [(one["model"], one["move"]["verb"], one["release"]["phase"]) for one in told] == [
        ("m", "start", "canary"),
        ("m", "promote", "promoted"),
    ]
    assert (told[0]["move"]["actor"], told[0]["move"]["reason"]) == ("ann", "why not")
