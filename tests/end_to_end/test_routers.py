"""Two routers in front of the same replicas, which share through a real Redis-compatible server."""

import asyncio
from collections.abc import Iterator

import pytest

from router.fleet.routes import Fleet
from tests.support.loops import run_strictly
from tests.support.raw_client import STREAMED_CHAT, post, raw_client
from tests.support.redis_server import RedisServer, redis_server
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.scripted_server import until
from tests.support.worker_cases import Held, ask, begin, clients, entries


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def text(server: RedisServer, *replicas: str) -> str:
    more = f'[redis]\nurl = "{server.url}"\n[health]\ninterval_s = 60'
    return config_text(*replicas, policy="least_requests", more=more)


def alone(running: RunningRouter) -> bool:
    return all(pool.alone for pool in running.router.fleet.pools.values())


def elsewhere(fleet: Fleet) -> dict[str, int]:
    return {replica.id: replica.elsewhere for replica in fleet.replicas}


def test_routers_see_what_the_others_have_in_flight(server: RedisServer) -> None:
    """One router leaves a replica full and the other empty: the other router evens that out."""

    async def run() -> None:
        held = Held()
        async with held.replicas("ab") as peers:
            config = text(server, *entries(peers))
            async with (
                running_router(config) as one,
                running_router(config) as other,
                clients(one.port, 8) as here,
                clients(other.port, 4) as there,
            ):
                for client in here:
                    await begin(client)
                await until(lambda: elsewhere(other.router.fleet) == {"a": 4, "b": 4})
                await held.release("b")
                await until(lambda: elsewhere(other.router.fleet) == {"a": 4, "b": 0})
                for client in there:
                    await begin(client)
                assert held.there == {"a": 4, "b": 4}
                await held.release("a")
                await held.release("b")
                for running in (one, other):
                    await until(lambda fleet=running.router.fleet: not any(elsewhere(fleet).values()))

    run_strictly(run())


def test_a_router_that_lost_redis_serves_on_alone() -> None:
    """By what it sees itself; pools know, and know again when Redis is back."""

    async def run(server: RedisServer) -> None:
        held = Held()
        async with held.replicas("a") as peers, running_router(text(server, *entries(peers))) as running:
            await until(lambda: running.router.sharing is not None and running.router.sharing.healthy)
            await asyncio.to_thread(server.stop)
            await until(lambda: alone(running))
            held.go_on["a"].set()
            async with raw_client(running.port) as client:
                assert (await ask(client, post(STREAMED_CHAT))).status == 200
            await asyncio.to_thread(server.start)
            await until(lambda: not alone(running))

    with redis_server() as server:
        run_strictly(run(server))
