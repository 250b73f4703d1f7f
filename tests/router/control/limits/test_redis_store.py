"""Buckets in a real Redis-compatible server: what is taken, given back, remembered and forgotten."""

import asyncio
from collections.abc import Iterator

import pytest

from policies.limits.ask import Ask, Budget, Slots
from tests.support.limit_stores import SECOND, ask, contents, key, looking_into, slot_ask, store
from tests.support.loops import run_strictly
from tests.support.redis_server import RedisServer, redis_server
from tests.support.scripted_server import until


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    with looking_into(running.url) as client:
        client.flushall()
    return running


def test_a_bucket_is_sold_once(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as one, store(server.url) as two:
            verdicts = [(await each.admit(ask())).verdict for each in (one, two) * 6]
            assert sum(verdict.admitted for verdict in verdicts) == 10
            assert verdicts[-1].refused == 0
            assert 0 < verdicts[-1].wait_us <= SECOND

    run_strictly(run(), uv=True)


def test_what_was_not_used_is_given_back(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as limits:
            reservation = await limits.admit(ask(10 * SECOND))
            reservation.settle([-8 * SECOND])
            await until(lambda: limits.state.unsettled == 0)
            verdict = await limits.look(ask(0))
            assert SECOND < verdict.backlogs_us[0] <= 2 * SECOND
            assert limits.state.unknown == 0

    run_strictly(run(), uv=True)


def test_looking_takes_nothing(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as limits:
            await limits.admit(ask())
            before = contents(server.url)
            verdict = await limits.look(
                Ask("x", [Budget(key("l::r"), SECOND, 10 * SECOND)], [Slots(key("l::c"), 1)])
            )
            assert verdict.admitted
            assert verdict.held == [1]
            assert contents(server.url) == before

    run_strictly(run(), uv=True)


def test_an_ask_is_answered_once(server: RedisServer) -> None:
    """The second time it hears what it heard the first time."""

    async def run() -> None:
        async with store(server.url, sequenced=True) as limits:
            same = ask()
            first = await limits.admit(same)
            assert (await limits.admit(same)).stamp == first.stamp
            assert (await limits.look(ask(0))).backlogs_us[0] <= SECOND

    run_strictly(run(), uv=True)


def test_settled_twice_is_settled_once(server: RedisServer) -> None:
    """L19."""

    async def run() -> None:
        async with store(server.url) as limits:
            reservation = await limits.admit(ask(5 * SECOND))
            reservation.settle([2 * SECOND])
            reservation.settle([2 * SECOND])
            await until(lambda: limits.state.unsettled == 0)
            assert 6 * SECOND < (await limits.look(ask(0))).backlogs_us[0] <= 7 * SECOND
            assert limits.state.unknown == 0

    run_strictly(run(), uv=True)


def test_slots_are_leases(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as limits:
            held = [await limits.admit(slot_ask(2)) for _ in range(3)]
            assert [each.verdict.refused for each in held] == [-1, -1, 0]
            assert held[2].verdict.held == [2]
            held[0].settle([])
            await until(lambda: limits.state.unsettled == 0)
            assert (await limits.admit(slot_ask(2))).verdict.admitted

    run_strictly(run(), uv=True)


def test_everything_or_nothing(server: RedisServer) -> None:
    """L11: whichever refuses, no other bucket is touched."""

    async def run() -> None:
        async with store(server.url) as limits:
            first = Ask(
                "f", [Budget(key(f"l{i}::r"), SECOND, 10 * SECOND) for i in range(4)], [Slots(key("l::c"), 1)]
            )
            await limits.admit(first)
            before = contents(server.url)
            for tight in range(4):
                budgets = [
                    Budget(key(f"l{i}::r"), (10 if i == tight else 1) * SECOND, 10 * SECOND) for i in range(4)
                ]
                assert (await limits.admit(Ask(f"b{tight}", budgets))).verdict.refused == tight
            full = Ask("c", first.budgets, [Slots(key("m::c"), 5), Slots(key("l::c"), 1)])
            assert (await limits.admit(full)).verdict.refused == 5
            assert contents(server.url) == before

    run_strictly(run(), uv=True)


def test_an_unknown_script_goes_along(server: RedisServer) -> None:
    """L5: in the same request."""

    async def run() -> None:
        async with store(server.url) as limits:
            with looking_into(server.url) as client:
                client.script_flush()
                reservation = await limits.admit(ask(5 * SECOND))
                assert reservation.verdict.admitted
                client.script_flush()
                reservation.settle([-5 * SECOND])
                await until(lambda: limits.state.unsettled == 0)
            assert (await limits.look(ask(0))).backlogs_us == [0]
            assert limits.state.lost == 0

    run_strictly(run(), uv=True)


def test_every_key_ends(server: RedisServer) -> None:
    """L22: nothing stays when nobody comes."""

    async def run() -> None:
        async with store(server.url, sequenced=True) as limits:
            held = await limits.admit(
                Ask("a", [Budget(key("l::r"), SECOND, 10 * SECOND)], [Slots(key("l::c"), 3)])
            )
            (await limits.admit(ask())).settle([0])
            await until(lambda: limits.state.unsettled == 0)
            with looking_into(server.url) as client:
                lives = {name: client.pttl(name) for name in client.scan_iter("*")}
            assert all(name.startswith("turnout:") for name in lives)
            assert min(lives.values()) > 0
            assert lives[key("l::r")] <= 3000 + 10
            held.settle([0])

    run_strictly(run(), uv=True)


def test_many_wait_at_once(server: RedisServer) -> None:
    """Answers come to those who asked."""

    async def run() -> None:
        async with store(server.url) as limits:
            asks = [ask(number, 1000 * SECOND, name=f"l{number}::r") for number in range(1, 500)]
            held = await asyncio.gather(*map(limits.admit, asks))
            assert [each.verdict.backlogs_us for each in held] == [[number] for number in range(1, 500)]

    run_strictly(run(), uv=True)
