"""Buckets in a real Redis-compatible server: what is taken, given back, remembered and forgotten."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from policies.limits.ask import ADMITTED, Ask, Budget, Slots
from policies.limits.book import Book
from router.control.limits.reservations import CountedReservation
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


def test_a_crowd_gets_exactly_what_is_there(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as one, store(server.url) as two:
            asks = [each.admit(ask(10 * SECOND, 100 * SECOND)) for each in (one, two) * 50]
            held = await asyncio.gather(*asks)
            assert sum(each.verdict.admitted for each in held) == 10
            slots = await asyncio.gather(*(each.admit(slot_ask(7)) for each in (one, two) * 50))
            assert sum(each.verdict.admitted for each in slots) == 7

    run_strictly(run(), uv=True)


def test_everybody_sees_what_others_took(server: RedisServer) -> None:
    """No one decides, or looks, by what it has counted itself."""

    async def run() -> None:
        async with store(server.url) as one, store(server.url) as two:
            reservation = await one.admit(ask(10 * SECOND))
            assert (await two.look(ask())).refused == 0
            reservation.settle([-10 * SECOND])
            await until(lambda: one.state.unsettled == 0)
            assert (await two.look(ask())).admitted

    run_strictly(run(), uv=True)


def test_debt_outlives_the_window(server: RedisServer) -> None:
    """A bucket is kept until it is full again, however it was moved."""

    async def run() -> None:
        async with store(server.url) as limits:
            reservation = await limits.admit(ask(SECOND))
            reservation.settle([60 * SECOND])
            await until(lambda: limits.state.unsettled == 0)
            with looking_into(server.url) as client:
                assert client.pttl(key("l::r")) > 60_000
            refused = await limits.admit(ask(SECOND))
            assert 50 * SECOND < refused.verdict.wait_us <= 52 * SECOND

    run_strictly(run(), uv=True)


def test_a_changed_limit_keeps_what_was_used(server: RedisServer) -> None:
    """L24: another window or price for the same key is no new bucket."""

    async def run() -> None:
        async with store(server.url) as limits:
            await limits.admit(ask(8 * SECOND, 10 * SECOND))
            assert 5 * SECOND < (await limits.admit(ask(SECOND, 3 * SECOND))).verdict.wait_us <= 6 * SECOND
            assert (await limits.admit(ask(SECOND, 20 * SECOND))).verdict.admitted

    run_strictly(run(), uv=True)


def hierarchies(random: Random) -> Iterator[Ask]:
    """Four levels of budgets, two of slots: at random, and so that each of them is once the one that refuses."""
    for number in range(400):
        budgets = [
            Budget(
                key(f"level{level}:{random.randrange(1 + level)}:r"),
                random.randrange(1, SECOND),
                window_s * SECOND,
            )
            # The more buckets a level has the less each holds.
            for level, window_s in enumerate((9, 5, 4, 3))
        ]
        slots = [Slots(key(f"level{level}:{random.randrange(2)}:c"), 9 + level) for level in range(2)]
        yield Ask(f"h{number}", budgets, slots)
    for tight in range(5):
        for number in range(2):
            # However slow the machine is, what fills a bucket of an hour is still there.
            costs = [3000 * SECOND if level == tight else 1 for level in range(4)]
            budgets = [
                Budget(key(f"only{tight}:{level}:r"), cost, 3600 * SECOND) for level, cost in enumerate(costs)
            ]
            slots = [Slots(key(f"only{tight}:c"), 1 if tight == 4 else 9)]
            yield Ask(f"only{tight}.{number}", budgets, slots)


def test_hierarchies_are_decided_as_in_memory(server: RedisServer) -> None:
    """L11, L25: what refuses leaves all as it was."""

    async def run() -> None:
        book = Book()
        refusals = set()
        async with store(server.url, sequenced=True) as limits:
            for number, asked in enumerate(hierarchies(Random(5))):
                before = contents(server.url) if number % 8 == 0 else {}
                got = await limits.admit(asked)
                assert isinstance(got, CountedReservation)
                assert got.verdict == book.admit(asked, got.stamp[0])
                refusals.add(got.verdict.refused)
                if not got.verdict.admitted and before:
                    # What is full again by now may be gone, and nothing else is other than it was.
                    assert all(before[name] == content for name, content in contents(server.url).items())
        assert refusals >= {ADMITTED, 0, 1, 2, 3, 4}

    run_strictly(run(), uv=True)


def test_leases_are_renewed_and_only_while_open(server: RedisServer) -> None:
    """L20."""

    async def run() -> None:
        async with store(server.url) as limits:
            held = [await limits.admit(slot_ask(1000, name=f"l{number % 2}::c")) for number in range(600)]
            with looking_into(server.url) as client:
                for name in (key("l0::c"), key("l1::c")):
                    client.zadd(name, dict.fromkeys(client.zrange(name, 0, -1), 1000000.0))
                    client.zadd(name, {"of a dead process": 1e6})
                held[0].settle([])
                await until(lambda: limits.state.unsettled == 0)
                limits._renew()
                seconds, us = client.time()
                for name, count in ((key("l0::c"), 299), (key("l1::c"), 300)):
                    await until(lambda name=name: client.zscore(name, "of a dead process") is None)
                    scores = [score for _, score in client.zrange(name, 0, -1, withscores=True)]
                    assert len(scores) == count
                    assert min(scores) > seconds * 1e6 + us + 20 * SECOND
            for each in held[1:]:
                each.settle([])

    run_strictly(run(), uv=True)


def test_a_lease_that_nobody_renewed_ends(server: RedisServer) -> None:
    """L18, L20: by the server's clock, in the admission itself."""

    async def run() -> None:
        async with store(server.url) as limits:
            await limits.admit(slot_ask(1))
            assert not (await limits.admit(slot_ask(1))).verdict.admitted
            with looking_into(server.url) as client:
                client.zincrby(key("l::c"), -30 * SECOND, client.zrange(key("l::c"), 0, 0)[0])
            assert (await limits.look(slot_ask(1))).admitted
            freed = (await limits.admit(slot_ask(1))).verdict
            assert (freed.admitted, freed.held) == (True, [1])

    run_strictly(run(), uv=True)


def test_many_wait_at_once(server: RedisServer) -> None:
    """Answers come to those who asked."""

    async def run() -> None:
        async with store(server.url) as limits:
            asks = [ask(number, 1000 * SECOND, name=f"l{number}::r") for number in range(1, 500)]
            held = await asyncio.gather(*map(limits.admit, asks))
            assert [each.verdict.backlogs_us for each in held] == [[number] for number in range(1, 500)]

    run_strictly(run(), uv=True)
