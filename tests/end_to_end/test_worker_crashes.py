"""Crashes of one process of several: the others serve on, nothing is left behind, nothing is forgotten."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.loops import run_strictly
from tests.support.raw_client import STREAMED_CHAT, get, post, raw_client
from tests.support.router_process import router_process
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.worker_cases import (
    SHARED_S,
    Held,
    ask,
    begin,
    clients,
    entries,
    finish,
    of_each_worker,
    text,
)
from tests.support.workers import Workers, alive, workers

UNKNOWN = 0
"""Whose connection it was that ended before anybody had accepted it."""


async def work(router: Workers, stop: asyncio.Event, failures: Counter[int], done: Counter[int]) -> None:
    """Request after request on one connection, and after a failure on the next; both by worker."""
    while not stop.is_set():
        owner = UNKNOWN
        with contextlib.suppress(LookupError):
            try:
                async with raw_client(router.port) as client:
                    assert (await ask(client, get(b"/livez"))).status == 200
                    owner = router.owner(client)
                    while not stop.is_set():
                        given = await ask(client, post(STREAMED_CHAT))
                        assert (given.status, given.events[-1]) == (200, b"[DONE]")
                        done[owner] += 1
            except (OSError, EOFError):
                failures[owner] += 1


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(tmp_path: Path) -> None:
    """Under load: the others fail nothing, it is replaced, nothing stays in flight, no count is lost."""

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            config = text(*map(replica_entry, engines), count=3)
            async with workers(config, tmp_path) as router:
                stop = asyncio.Event()
                failures: Counter[int] = Counter()
                done: Counter[int] = Counter()
                working = [asyncio.create_task(work(router, stop, failures, done)) for _ in range(12)]
                await router.until(lambda: len([pid for pid in done if done[pid] >= 10]) > 1)
                victim = next(pid for pid in done if done[pid] >= 10)
                os.kill(victim, signal.SIGKILL)
                await router.until_gone(victim)
                await router.until_metric("turnout_workers", 3)
                stop.set()
                await asyncio.wait_for(asyncio.gather(*working), 20)
                # Clients that return while the killed process is being taken apart may still meet its listener.
                assert {victim} <= set(failures) <= {victim, UNKNOWN}
                assert failures[UNKNOWN] <= failures[victim]
                await router.until_metric("turnout_replica_in_flight", 0, timeout_s=2)
                others = sum(count for pid, count in done.items() if pid != victim)
                counted = await router.metric("turnout_requests_total", outcome="ok")
                assert others <= counted <= others + done[victim] + 12
                async with of_each_worker(router, each=1, count=3):
                    assert victim not in router.children

    run_strictly(run())


def test_what_a_killed_worker_had_in_flight_is_taken_back(tmp_path: Path) -> None:
    """By the other worker too: the replica that it had filled is free again, and who waited for it goes on."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers:
            (entry,) = entries(peers, ", max_in_flight = 2")
            async with (
                workers(text(entry), tmp_path) as router,
                of_each_worker(router, each=2) as (one, other),
            ):
                await begin(one[0])
                await begin(one[1])
                await asyncio.sleep(SHARED_S)
                await other[0].send(post(STREAMED_CHAT))
                await router.until_metric("turnout_queued_requests", 1)
                os.kill(router.owner(one[0]), signal.SIGKILL)
                assert await other[0].first_piece()
                await router.until_metric("turnout_replica_in_flight", 1)
                await held.release("a")

    run_strictly(run())


def test_the_counts_of_a_killed_worker_stay(tmp_path: Path) -> None:
    """A counter that fell would look like a restart to Prometheus."""

    async def run() -> None:
        async with (
            simulated_engines("vllm") as engines,
            workers(text(*map(replica_entry, engines)), tmp_path) as router,
        ):
            async with clients(router.port, 16) as several:
                for client in several:
                    assert (await ask(client, post())).status == 200
                await router.until_metric("turnout_requests_total", 16)
                for _ in range(2):
                    victim = router.children[1]
                    os.kill(victim, signal.SIGKILL)
                    await router.until_gone(victim)
                    await router.until_metric("turnout_workers", 2)
                    assert await router.metric("turnout_requests_total") == 16
            async with raw_client(router.port) as client:
                assert (await ask(client, post())).status == 200
            await router.until_metric("turnout_requests_total", 17)

    run_strictly(run())


def test_the_overview_may_die(tmp_path: Path) -> None:
    """Requests go on, its successor knows the counts of all who are there, and what an operator drains."""

    async def run() -> None:
        held = Held()
        async with (
            held.replicas("ab") as peers,
            workers(text(*entries(peers)), tmp_path) as router,
            raw_client(router.port) as client,
        ):
            await begin(client)
            await router.until_metric("turnout_replica_in_flight", 1)
            there = "".join(held.there)
            assert (await router.admin.post(f"/api/replicas/{there}/drain")).status_code == 200
            await router.until_metric("turnout_workers", 2)
            os.kill(router.children[0], signal.SIGKILL)
            await held.release(there)
            await finish(client)
            await router.until_answers()
            await router.until_metric("turnout_workers", 2)
            await router.until_metric("turnout_requests_total", 1)
            assert (await router.replicas())[there]["draining"] is True

    run_strictly(run())


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    """Even if it is killed: nobody would replace them."""

    async def run() -> None:
        async with simulated_engines("vllm") as engines:
            config = text(*map(replica_entry, engines))
            async with workers(config, tmp_path, leaves_with=-signal.SIGKILL) as router:
                orphans = router.children
                router.router.process.kill()
                await router.until(lambda: not any(map(alive, orphans)))

    run_strictly(run())


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    """The router ends with the reason."""
    config = text('url = "http://127.0.0.1:9", engine = "vllm"')
    config = config.replace('access_log = "off"', f'access_log = "{tmp_path}/none/access.log"')
    with pytest.raises(RuntimeError, match="No such file or directory") as raised:
        router_process(config, tmp_path).__enter__()
    assert "failed to start 5 times" in str(raised.value)
