"""Redis goes, hangs, is slow or refuses: nobody waits for it, nothing is sold twice, and it learns of all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic

import pytest

from policies.limits.ask import Ask, Budget, Slots
from router.api.errors import Overloaded
from router.control.limits.denials import REMEMBERED_US
from router.control.limits.redis_store import RedisStore
from router.control.limits.reservations import CountedReservation, SharedReservation
from tests.support.limit_stores import HASTY_MS, SECOND, ask, key, looking_into, slot_ask, store
from tests.support.loops import StrictLoop, run_strictly
from tests.support.redis_server import RedisServer, redis_server
from tests.support.scripted_server import until
from tests.support.toxic_proxy import ToxicProxy, toxic_proxy


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    with looking_into(running.url) as client:
        client.flushall()
    return running


@contextlib.asynccontextmanager
async def through_proxy(
    server: RedisServer, processes: int = 1, timeout_ms: float = HASTY_MS
) -> AsyncIterator[tuple[RedisStore, ToxicProxy]]:
    async with (
        toxic_proxy(server.port) as proxy,
        store(proxy.url, timeout_ms=timeout_ms, processes=processes) as limits,
    ):
        yield limits, proxy


async def backlog_us(limits: RedisStore, name: str = "l::r") -> int:
    await until(lambda: limits.state.healthy and limits.state.unsettled == 0)
    return (await limits.look(ask(0, 1000 * SECOND, name=name))).backlogs_us[0]


def test_what_was_used_without_redis_is_owed_to_it(server: RedisServer) -> None:
    """L1: what was open at the loss, what came and went meanwhile, and what is open at the return."""

    async def run() -> None:
        async with through_proxy(server) as (limits, proxy):
            before = await limits.admit(ask(100 * SECOND, 1000 * SECOND))
            proxy.refuse()
            meanwhile = await limits.admit(ask(200 * SECOND, 1000 * SECOND))
            over = await limits.admit(ask(300 * SECOND, 1000 * SECOND))
            assert isinstance(meanwhile, SharedReservation)
            assert meanwhile.verdict.admitted
            assert over.verdict.admitted
            over.settle([-100 * SECOND])
            before.settle([-50 * SECOND])
            assert limits.state.lost == 1
            assert "this process" in limits.state.place
            await proxy.listen()
            assert 440 * SECOND < await backlog_us(limits) <= 450 * SECOND
            meanwhile.settle([-150 * SECOND])
            assert 290 * SECOND < await backlog_us(limits) <= 300 * SECOND
            assert limits.state.unknown == 0

    run_strictly(run(), uv=True)


def test_what_is_owed_is_taken_from_an_empty_bucket_too(server: RedisServer) -> None:
    """Two processes that each admitted what was left: the second's use is debt beyond the window."""

    async def run() -> None:
        async with through_proxy(server) as (limits, proxy):
            proxy.refuse()
            await until(lambda: not limits.state.healthy)
            lease = await limits.admit(slot_ask(1))
            assert (await limits.admit(ask(10 * SECOND))).verdict.admitted
            async with store(server.url) as other:
                await other.admit(ask(10 * SECOND))
                await other.admit(slot_ask(1))
                await proxy.listen()
                assert 12 * SECOND < await backlog_us(limits) <= 20 * SECOND
                assert (await limits.look(slot_ask(1))).held == [2]
            lease.settle([])

    run_strictly(run(), uv=True)


def test_slots_that_were_given_without_redis_are_leases_afterwards(server: RedisServer) -> None:
    async def run() -> None:
        async with through_proxy(server) as (limits, proxy):
            before = await limits.admit(slot_ask(2))
            proxy.refuse()
            meanwhile = await limits.admit(slot_ask(2))
            assert meanwhile.verdict.held == [2]
            assert not (await limits.admit(slot_ask(2))).verdict.admitted
            await proxy.listen()
            await until(lambda: limits.state.healthy and limits.state.unsettled == 0)
            assert (await limits.look(slot_ask(2))).held == [2]
            assert limits._leases.held(key("l::c")) == 2, "both are renewed"
            meanwhile.settle([])
            before.settle([])
            await until(lambda: limits.state.unsettled == 0)
            assert (await limits.look(slot_ask(2))).held == [1]

    run_strictly(run(), uv=True)


def test_a_limit_is_divided_among_those_that_live(server: RedisServer) -> None:
    """L1: together they admit no more than one limit; of a bucket nobody knows, a twentieth and one each."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(toxic_proxy(server.port))
            stores = [
                await stack.enter_async_context(store(proxy.url, timeout_ms=HASTY_MS)) for _ in range(4)
            ]
            # A beat later everybody has heard of all.
            await until(lambda: all(each.state.shares == 4 for each in stores))
            known = ask(1, 1000 * SECOND).budgets[0]
            for each in stores:
                await each.admit(Ask(f"k{id(each)}", [known]))
            proxy.refuse()
            admitted = dict.fromkeys(("l::r", "unseen::r", "l::c", "few::c"), 0)
            for each in stores:
                for _ in range(300):
                    for name in ("l::r", "unseen::r"):
                        got = await each.admit(ask(2 * SECOND, 1000 * SECOND, name=name))
                        admitted[name] += got.verdict.admitted
                    for name, most in (("l::c", 8), ("few::c", 1)):
                        admitted[name] += (await each.admit(slot_ask(most, name=name))).verdict.admitted
            assert 490 <= admitted["l::r"] <= 500
            assert 4 <= admitted["unseen::r"] <= 30
            assert admitted["l::c"] == 8
            assert admitted["few::c"] == 4

    run_strictly(run(), uv=True)


def test_a_new_bucket_has_room_for_one_request(server: RedisServer) -> None:
    """Also for one that costs more than a process's whole share; what it took beyond is owed."""

    async def run() -> None:
        async with through_proxy(server, processes=10) as (limits, proxy):
            # The server says how many there are: nobody but this one, so it is told otherwise.
            limits._node.members.shares = 10
            proxy.refuse()
            await until(lambda: not limits.state.healthy)
            first = await limits.admit(ask(500 * SECOND, 1000 * SECOND))
            assert first.verdict.admitted
            assert not (await limits.admit(ask(SECOND, 1000 * SECOND))).verdict.admitted
            await proxy.listen()
            assert 490 * SECOND < await backlog_us(limits) <= 500 * SECOND

    run_strictly(run(), uv=True)


@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_other_ways_to_do_without(server: RedisServer, on_failure: str) -> None:
    async def run() -> None:
        async with (
            toxic_proxy(server.port) as proxy,
            store(proxy.url, timeout_ms=HASTY_MS, on_failure=on_failure) as limits,  # type: ignore[arg-type]
        ):
            before = await limits.admit(ask(4 * SECOND))
            proxy.refuse()
            await until(lambda: not limits.state.healthy)
            if on_failure == "deny":
                with pytest.raises(Overloaded):
                    await limits.admit(ask())
                with pytest.raises(Overloaded):
                    await limits.look(ask())
            else:
                for _ in range(50):
                    (await limits.admit(ask())).settle([0])
                assert (await limits.look(ask())).admitted
            before.settle([-4 * SECOND])
            await proxy.listen()
            assert await backlog_us(limits) == 0

    run_strictly(run(), uv=True)


def hold(proxy: ToxicProxy) -> None:
    proxy.holding = True


def slow(proxy: ToxicProxy) -> None:
    proxy.delay_s = 0.5


@pytest.mark.parametrize("harm", [hold, slow])
def test_few_wait_for_what_does_not_answer(server: RedisServer, harm: Callable[[ToxicProxy], None]) -> None:
    """L2, L3: at most three find out, the others are answered at once; nothing is charged twice."""

    async def run() -> None:
        async with through_proxy(server, timeout_ms=200.0) as (limits, proxy):
            await limits.admit(ask(10 * SECOND, 1000 * SECOND))
            harm(proxy)
            delays = []
            running = set()

            async def request() -> None:
                began = monotonic()
                got = await limits.admit(ask(SECOND, 1000 * SECOND))
                delays.append(monotonic() - began)
                assert isinstance(got, SharedReservation)
                assert got.verdict.admitted

            for _ in range(100):
                running.add(asyncio.create_task(request()))
                await asyncio.sleep(0.01)
            await asyncio.gather(*running)
            # Those that came before anything was late are answered with the first look that finds it so.
            assert sum(delay > 0.15 for delay in delays) <= 3
            assert not limits.state.healthy
            proxy.holding, proxy.delay_s = False, 0.0
            assert 105 * SECOND < await backlog_us(limits) <= 110 * SECOND
            assert isinstance(await limits.admit(ask()), CountedReservation)

    run_strictly(run(), uv=True)


def test_requests_at_once_do_not_all_wait(server: RedisServer) -> None:
    """L3: of a crowd that arrives in the moment it hangs, three wait on; the proxy sees one connection more."""

    async def run() -> None:
        async with through_proxy(server, timeout_ms=500.0) as (limits, proxy):
            hold(proxy)
            began = monotonic()
            delays: list[float] = []

            async def request() -> None:
                await limits.admit(ask(SECOND, 1000 * SECOND))
                delays.append(monotonic() - began)

            await asyncio.gather(*(request() for _ in range(50)))
            assert sorted(delays)[46] < 0.3 < sorted(delays)[47]

    run_strictly(run(), uv=True)


def test_a_hung_connection_is_replaced(server: RedisServer) -> None:
    """L3: even if hardly anybody asks; and its commands, when they arrive after all, take nothing."""

    async def run() -> None:
        async with through_proxy(server) as (limits, proxy):
            server.pause()
            try:
                await limits.admit(ask(SECOND, 1000 * SECOND))
                await until(lambda: not limits.state.healthy)
            finally:
                server.go_on()
            assert 0 < await backlog_us(limits) <= SECOND
            assert proxy.accepted >= 2

    run_strictly(run(), uv=True)


def test_an_admission_that_arrives_after_its_cancellation_takes_nothing(server: RedisServer) -> None:
    """L2, the other order."""

    async def run() -> None:
        async with store(server.url) as limits:
            late = ask(5 * SECOND)
            limits._put_back(late)
            await until(lambda: limits.state.unsettled == 0)
            await limits.admit(late)
            assert await backlog_us(limits) == 0
            assert limits.state.unknown == 0

    run_strictly(run(), uv=True)


@pytest.mark.parametrize("reason", ["READONLY", "OOM"])
def test_a_server_that_cannot_count(server: RedisServer, reason: str) -> None:
    """L8: it is not waited for, and used again when it can."""
    harms = {
        "READONLY": ("replicaof 127.0.0.1 1", "replicaof no one"),
        "OOM": ("config set maxmemory 1", "config set maxmemory 0"),
    }

    async def run() -> None:
        async with store(server.url) as limits:
            with looking_into(server.url) as client:
                client.execute_command(*harms[reason][0].split())
                try:
                    got = await limits.admit(ask())
                    assert isinstance(got, SharedReservation)
                    assert not limits.state.healthy
                    got.settle([SECOND])
                finally:
                    client.execute_command(*harms[reason][1].split())
                assert SECOND < await backlog_us(limits) <= 2 * SECOND

    with StrictLoop(uv=True) as loop:
        # Of what an operator has to change an error is logged.
        loop.run(run(), may_say="OOM")


def test_everything_is_lost(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """L4: full buckets, one line, and a count; what is settled then is not known."""

    async def run() -> None:
        async with store(server.url) as limits:
            open_one = await limits.admit(ask(10 * SECOND))
            held = await limits.admit(slot_ask(1))
            assert not (await limits.admit(ask())).verdict.admitted
            with looking_into(server.url) as client:
                client.flushall()
            await asyncio.sleep(REMEMBERED_US / SECOND)
            assert (await limits.admit(ask(9 * SECOND))).verdict.admitted
            open_one.settle([-10 * SECOND])
            await until(lambda: limits.state.resets == 1)
            await until(lambda: limits.state.unsettled == 0)
            assert limits.state.unknown == 1
            assert 0 < await backlog_us(limits) <= 9 * SECOND
            limits._renew()
            assert not (await limits.admit(slot_ask(1))).verdict.admitted
            held.settle([])

    run_strictly(run(), uv=True)
    assert sum("lost everything" in record.message for record in caplog.records) == 1


def test_a_restart_without_memory(caplog: pytest.LogCaptureFixture) -> None:
    """L4, L5: scripts, buckets and connections are gone; nobody hears of an error, and leases come back."""

    async def run(server: RedisServer) -> None:
        async with store(server.url) as limits:
            held = [await limits.admit(slot_ask(3)) for _ in range(2)]
            server.kill()
            await until(lambda: not limits.state.healthy)
            meanwhile = await limits.admit(slot_ask(3))
            assert meanwhile.verdict.admitted
            await asyncio.to_thread(server.start)
            await until(lambda: limits.state.healthy and limits.state.unsettled == 0)
            assert limits.state.resets == 1
            assert not (await limits.admit(slot_ask(3))).verdict.admitted
            for each in (*held, meanwhile):
                each.settle([])
            await until(lambda: limits.state.unsettled == 0)
            assert (await limits.look(slot_ask(3))).held == [1]

    with redis_server() as server:
        run_strictly(run(server), uv=True)


def test_redis_is_not_there_at_the_start() -> None:
    async def run(server: RedisServer) -> None:
        await asyncio.to_thread(server.stop)
        async with store(server.url, processes=2, here=False) as limits:
            assert (await limits.admit(ask(SECOND, 1000 * SECOND))).verdict.admitted
            assert limits.state.shares == 2
            await asyncio.to_thread(server.start)
            assert 0 < await backlog_us(limits) <= SECOND

    with redis_server() as server:
        run_strictly(run(server), uv=True)


def test_a_server_clock_that_goes_back_locks_nobody_out(server: RedisServer) -> None:
    """L7: a bucket written by a clock an hour ahead counts as it stood then, and fills from now on."""

    async def run() -> None:
        async with store(server.url) as limits:
            assert (await limits.admit(ask(10 * SECOND))).verdict.admitted
            lease = await limits.admit(slot_ask(1))
            with looking_into(server.url) as client:
                hour = 3600 * SECOND
                stored = client.get(key("l::r"))
                tat, seen = int(stored[:16]), int(stored[16:])
                client.set(key("l::r"), f"{tat + hour:016d}{seen + hour:016d}", px=10**7)
                client.zincrby(key("l::c"), hour, client.zrange(key("l::c"), 0, 0)[0])
            refused = await limits.admit(ask())
            assert 0 < refused.verdict.wait_us <= SECOND
            await asyncio.sleep(refused.verdict.wait_us / 1e6)
            assert (await limits.admit(ask())).verdict.admitted
            assert not (await limits.admit(slot_ask(1))).verdict.admitted
            with looking_into(server.url) as client:
                (score,) = (score for _, score in client.zrange(key("l::c"), 0, 0, withscores=True))
                seconds, us = client.time()
                assert score - (seconds * 1e6 + us) <= 30 * SECOND
            lease.settle([])

    run_strictly(run(), uv=True)


def test_a_settlement_after_lost_writes_changes_nothing(server: RedisServer) -> None:
    """L6: the reservation was among what a failover lost."""

    async def run() -> None:
        async with store(server.url) as limits:
            await limits.admit(ask(3 * SECOND))
            lost = ask(5 * SECOND)
            reservation = await limits.admit(lost)
            with looking_into(server.url) as client:
                client.delete(f"turnout:{{t:search}}:i:{lost.id}")
            before = await backlog_us(limits)
            reservation.settle([-5 * SECOND])
            await until(lambda: limits.state.unknown == 1)
            assert before - SECOND < await backlog_us(limits) <= before

    run_strictly(run(), uv=True)


def test_the_oldest_settlements_are_given_up(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage cannot take all memory."""
    monkeypatch.setattr("router.control.limits.journal.MOST", 10)

    async def run() -> None:
        async with through_proxy(server) as (limits, proxy):
            held = [await limits.admit(ask(SECOND, 1000 * SECOND)) for _ in range(15)]
            proxy.refuse()
            await until(lambda: not limits.state.healthy)
            for each in held:
                each.settle([-SECOND])
            assert (limits.state.unsettled, limits.state.dropped) == (10, 5)
            await proxy.listen()
            assert 4 * SECOND < await backlog_us(limits) <= 5 * SECOND

    run_strictly(run(), uv=True)


def test_who_leaves_while_waiting_takes_nothing(server: RedisServer) -> None:
    """L17: a task that is cancelled in the middle of its admission."""

    async def run() -> None:
        async with store(server.url) as limits:
            whole = Ask("gone", [Budget(key("l::r"), 5 * SECOND, 10 * SECOND)], [Slots(key("l::c"), 1)])
            leaver = asyncio.create_task(limits.admit(whole))
            await asyncio.sleep(0)
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
            assert await backlog_us(limits) == 0
            assert (await limits.admit(slot_ask(1))).verdict.admitted

    run_strictly(run(), uv=True)
