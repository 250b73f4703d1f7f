"""Several workers behind one port are one router: its numbers, its choices, what its operator wishes."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec

from router.admin.views import StatusView
from tests.support.loops import run_strictly
from tests.support.raw_client import STREAMED_CHAT, post
from tests.support.scripted_server import until
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.worker_cases import (
    SHARED_S,
    Held,
    ask,
    begin,
    clients,
    entries,
    of_each_worker,
    text,
)
from tests.support.workers import workers


def test_the_numbers_are_those_of_all(tmp_path: Path) -> None:
    """Both workers serve; requests, tokens and histograms add up, for people too."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", "tgi") as engines,
            workers(text(*map(replica_entry, engines)), tmp_path) as router,
        ):
            async with of_each_worker(router, each=3) as (one, other):
                for client in (*one[:3], *other[:3]):
                    assert [(await ask(client, post())).status for _ in range(5)] == [200] * 5
            await router.until_metric("turnout_requests_total", 30, outcome="ok")
            assert await router.metric("turnout_request_seconds_count") == 30
            assert await router.metric("turnout_request_seconds_bucket", le="+Inf") == 30
            assert await router.metric("turnout_tokens_total", kind="completion") > 30
            assert await router.metric("turnout_workers") == 2
            assert await router.metric("turnout_replica_up") == 2
            await router.until_metric("turnout_replica_in_flight", 0)
            async with asyncio.timeout(10):
                while any(each["figures"]["stale"] for each in (await router.replicas()).values()):
                    await asyncio.sleep(0.05)
            status = msgspec.json.decode((await router.admin.get("/api/status")).content, type=StatusView)
            assert status.ready
            assert [each.url for each in status.replicas] == [engine.url for engine in engines]

    run_strictly(run())


def test_workers_see_what_the_others_have_in_flight(tmp_path: Path) -> None:
    """One worker leaves a replica full and the other empty: the other worker evens that out."""

    async def run() -> None:
        held = Held()
        async with (
            held.replicas("ab") as peers,
            workers(text(*entries(peers)), tmp_path) as router,
            of_each_worker(router, each=8) as (one, other),
        ):
            for client in one[:8]:
                await begin(client)
            assert held.there == {"a": 4, "b": 4}
            await held.release("b")
            await asyncio.sleep(SHARED_S)
            for client in other[:4]:
                await begin(client)
            assert held.there == {"a": 4, "b": 4}
            await router.until_metric("turnout_replica_in_flight", 8)
            replicas = await router.replicas()
            assert [replicas[name]["in_flight"] for name in "ab"] == [4, 4]
            await held.release("a")
            await held.release("b")
            await router.until_metric("turnout_replica_in_flight", 0)

    run_strictly(run())


def test_a_replica_that_one_worker_has_filled_is_full_for_all(tmp_path: Path) -> None:
    """And free for all when it is free: who waits for it in another worker, goes on."""

    async def run() -> None:
        held = Held()
        async with held.replicas("ab") as peers:
            listed = entries(peers, ", max_in_flight = 1")
            async with (
                workers(text(*listed), tmp_path) as router,
                of_each_worker(router, each=2) as (one, other),
            ):
                await begin(one[0])
                await begin(one[1])
                await asyncio.sleep(SHARED_S)
                await other[0].send(post(STREAMED_CHAT))
                await router.until_metric("turnout_queued_requests", 1)
                assert held.there == {"a": 1, "b": 1}
                held.go_on["a"].set()
                assert await other[0].first_piece()
                await router.until_metric("turnout_queued_requests", 0)
                await held.release("b")
                await until(lambda: not held.there["a"])

    run_strictly(run())


def test_draining_a_replica_is_so_in_every_worker(tmp_path: Path) -> None:
    """Also in one that is born later; and it ends for all."""

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            config = text(*map(replica_entry, engines), policy="round_robin")
            async with workers(config, tmp_path) as router:
                drained, kept = await router.replicas()

                async def served_by() -> set[str]:
                    async with clients(router.port, 16) as several:
                        return {
                            (await ask(client, post())).headers["x-turnout-replica"] for client in several
                        }

                assert await served_by() == {drained, kept}
                await router.admin.post(f"/api/replicas/{drained}/drain")
                async with asyncio.timeout(10):
                    while await served_by() != {kept}:
                        await asyncio.sleep(0.02)
                os.kill(router.children[1], signal.SIGKILL)
                await router.until_metric("turnout_workers", 2)
                assert await served_by() == {kept}
                await router.admin.post(f"/api/replicas/{drained}/undrain")
                async with asyncio.timeout(10):
                    while await served_by() != {drained, kept}:
                        await asyncio.sleep(0.02)

    run_strictly(run())
