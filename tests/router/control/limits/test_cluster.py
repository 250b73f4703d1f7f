"""Limits in a Redis Cluster of real servers: a tenant's keys at one node, the pool's at another."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from redis.crc import key_slot

from policies.limits.ask import Ask, Budget, Slots
from router.control.limits.redis_store import RedisStore
from tests.support.limit_stores import SECOND, ask, key, slot_ask, store
from tests.support.loops import run_strictly
from tests.support.redis_cluster import REDIS_SERVER, SLOTS, ClusterNode, redis_cluster
from tests.support.scripted_server import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        REDIS_SERVER is None, reason="redis-server is not installed: no cluster can be started"
    ),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Sequence[ClusterNode]]:
    with redis_cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(running: Sequence[ClusterNode]) -> Sequence[ClusterNode]:
    for node in running:
        node.client.flushall()
    return running


def tenant_at(index: int, masters: int = 3) -> str:
    """A tenant whose keys are at that node."""
    return next(
        f"t:tenant{number}"
        for number in range(1000)
        if key_slot(f"t:tenant{number}".encode()) * masters // SLOTS == index
    )


def wide_ask(tenant: str, name: str, *, tenant_us: int, pool_us: int, most: int = 100) -> Ask:
    budgets = [
        Budget(key("l::r", tenant), tenant_us, 10 * SECOND),
        Budget(key("all::r", "pool"), pool_us, 10 * SECOND),
    ]
    return Ask(name, budgets, [Slots(key("l::c", tenant), most), Slots(key("all::c", "pool"), most)])


async def settled(limits: RedisStore) -> None:
    await until(lambda: limits.state.healthy and limits.state.unsettled == 0)


def test_tenants_are_counted_where_they_live(nodes: Sequence[ClusterNode]) -> None:
    async def run() -> None:
        async with store(nodes[0].url) as one, store(nodes[2].url) as two:
            for tenant in map(tenant_at, range(3)):
                got = [(await each.admit(ask(tenant=tenant))).verdict.admitted for each in (one, two) * 6]
                assert sum(got) == 10
            assert one.state.lost == two.state.lost == 0
            assert two.state.shares == 2
        assert all(node.client.dbsize() > 2 for node in nodes)

    run_strictly(run(), uv=True)


def test_all_of_an_ask_or_nothing(nodes: Sequence[ClusterNode]) -> None:
    """L11: the pool refuses, so the tenant gets back what it gave; the tenant refuses, so the pool is not asked."""
    tenant = next(
        each
        for each in map(tenant_at, range(3))
        if key_slot(each.encode()) * 3 // SLOTS != key_slot(b"pool") * 3 // SLOTS
    )

    async def run() -> None:
        async with store(nodes[0].url) as limits:
            first = await limits.admit(wide_ask(tenant, "a", tenant_us=SECOND, pool_us=6 * SECOND))
            assert first.verdict.admitted
            assert first.verdict.held == [1, 1]
            poor = await limits.admit(wide_ask(tenant, "b", tenant_us=SECOND, pool_us=6 * SECOND))
            assert poor.verdict.refused == 1
            assert 0 < poor.verdict.wait_us <= 2 * SECOND
            await settled(limits)
            seen = await limits.look(wide_ask(tenant, "c", tenant_us=0, pool_us=0))
            assert 0 < seen.backlogs_us[0] <= SECOND
            assert seen.held == [2, 2]
            greedy = await limits.admit(wide_ask(tenant, "d", tenant_us=10 * SECOND, pool_us=9 * SECOND))
            assert greedy.verdict.refused == 1, "the tightest, although the tenant was asked first"
            full = await limits.admit(wide_ask(tenant, "e", tenant_us=0, pool_us=0, most=1))
            assert full.verdict.refused == 2
            first.settle([-SECOND, -6 * SECOND])
            await settled(limits)
            seen = await limits.look(wide_ask(tenant, "f", tenant_us=0, pool_us=0))
            assert seen.backlogs_us == [0, 0]
            assert seen.held == [1, 1]
            assert limits.state.unknown == 0

    run_strictly(run(), uv=True)


def test_slots_move_to_another_node(nodes: Sequence[ClusterNode]) -> None:
    """L8: MOVED is followed in the same request, ASK while they move, and what waits goes to the new place."""
    tenant = tenant_at(0)
    slot = key_slot(tenant.encode())
    source, target = nodes[0], nodes[1]

    def assign(owner: ClusterNode) -> None:
        for node in nodes:
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner.id)

    async def run() -> None:
        async with store(nodes[0].url) as limits:
            open_one = await limits.admit(ask(2 * SECOND, 1000 * SECOND, tenant=tenant))
            target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
            for each in source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.client.execute_command("MIGRATE", "127.0.0.1", target.port, each, 0, 5000)
            asked = await limits.admit(ask(SECOND, 1000 * SECOND, tenant=tenant))
            assert asked.verdict.admitted
            assert asked.verdict.backlogs_us[0] > 2 * SECOND, "it saw what was moved before"
            assign(target)
            moved = await limits.admit(ask(SECOND, 1000 * SECOND, tenant=tenant))
            assert 2 * SECOND < moved.verdict.backlogs_us[0] <= 4 * SECOND
            open_one.settle([-2 * SECOND])
            await settled(limits)
            seen = await limits.look(ask(0, 1000 * SECOND, tenant=tenant))
            assert 0 < seen.backlogs_us[0] <= 2 * SECOND
            assert (limits.state.unknown, limits.state.lost) == (0, 0)

    try:
        run_strictly(run(), uv=True)
    finally:
        target.client.flushall()
        assign(source)


def test_a_node_dies_and_its_replica_takes_over() -> None:
    """L6, L8: its tenants are admitted by shares until then, the others as before, and all is told afterwards."""

    async def run(nodes: Sequence[ClusterNode]) -> None:
        async with store(nodes[1].url, timeout_ms=100.0) as limits:
            dying, other = tenant_at(0), tenant_at(1)
            held = await limits.admit(ask(5 * SECOND, 1000 * SECOND, tenant=dying))
            lease = await limits.admit(slot_ask(1, tenant=dying))
            await asyncio.to_thread(nodes[0].client.wait, 1, 5000)
            nodes[0].kill()
            for _ in range(20):
                assert (await limits.admit(ask(SECOND, 1000 * SECOND, tenant=dying))).verdict.admitted
                assert (await limits.admit(ask(SECOND, 1000 * SECOND, tenant=other))).verdict.admitted
            held.settle([-5 * SECOND])
            assert not limits.state.healthy
            await until(lambda: limits.state.healthy and limits.state.unsettled == 0, timeout_s=60.0)
            seen = await limits.look(ask(0, 1000 * SECOND, tenant=dying))
            assert 0 < seen.backlogs_us[0] <= 20 * SECOND
            assert not (await limits.admit(slot_ask(1, tenant=dying))).verdict.admitted
            lease.settle([])
            assert limits.state.unknown == 0

    with redis_cluster(masters=3, replicas=3) as nodes:
        run_strictly(run(nodes), uv=True)
