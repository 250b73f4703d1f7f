"""The end of a router of several workers, and their renewal."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.loops import run_strictly
from tests.support.raw_client import events_in, get, post, raw_client
from tests.support.router_process import router_process
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.worker_cases import (
    Held,
    ask,
    begin,
    clients,
    entries,
    finish,
    of_each_worker,
    text,
)
from tests.support.workers import workers


def test_sigterm_drains_every_worker(tmp_path: Path) -> None:
    """Not ready, no new connections, open streams to their end, and then the exit code of a clean end."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers, workers(text(*entries(peers)), tmp_path) as router:
            async with of_each_worker(router, each=1) as (one, other):
                await begin(one[0])
                await begin(other[0])
                # As systemd does it: to every process, of which only one is to mind.
                for pid in (*router.children, router.router.process.pid):
                    os.kill(pid, signal.SIGTERM)
                await until_refused(router.port)
                await router.until_metric("turnout_replica_in_flight", 2)
                held.go_on["a"].set()
                await finish(one[0])
                await finish(other[0])
            assert await asyncio.to_thread(router.router.process.wait, 10) == 0

    run_strictly(run())


def test_a_second_signal_ends_every_worker_at_once(tmp_path: Path) -> None:
    """Clients hear why; the exit code says so."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers:
            config = text(*entries(peers)).replace("settle_s = 0", "settle_s = 60")
            async with workers(config, tmp_path, leaves_with=130) as router:
                async with clients(router.port, 8) as several:
                    for client in several:
                        await begin(client)
                    router.router.process.send_signal(signal.SIGTERM)
                    await until_draining(router.port)
                    router.router.process.send_signal(signal.SIGINT)
                    for client in several:
                        (event,) = events_in(b"".join([piece async for piece in client.chunks()]))
                        assert b"router_draining" in event
                assert await asyncio.to_thread(router.router.process.wait, 10) == 130

    run_strictly(run())


def test_renewing_the_workers_fails_no_request(tmp_path: Path) -> None:
    """SIGHUP under load, a connection per request: all are answered, and all workers are others."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", "vllm") as engines,
            workers(text(*map(replica_entry, engines)), tmp_path) as router,
        ):
            stop = asyncio.Event()
            answered = 0

            async def visit() -> None:
                nonlocal answered
                while not stop.is_set():
                    async with raw_client(router.port) as client:
                        assert (await ask(client, post())).status == 200
                    answered += 1

            visiting = [asyncio.create_task(visit()) for _ in range(6)]
            before = router.children
            await router.until(lambda: answered >= 20)
            router.router.process.send_signal(signal.SIGHUP)
            await router.until(lambda: not set(router.children) & set(before[1:]), timeout_s=20)
            so_far = answered
            await router.until(lambda: answered >= so_far + 20)
            stop.set()
            await asyncio.gather(*visiting)
            assert router.children[0] == before[0]
            await router.until_metric("turnout_workers", 2)
            await router.until_metric("turnout_requests_total", answered)

    run_strictly(run())


def test_a_port_that_another_router_has(tmp_path: Path) -> None:
    """Ports are shared by the workers of one router, not by two routers."""

    async def run() -> None:
        config = text('url = "http://127.0.0.1:9", engine = "vllm"')
        async with workers(config, tmp_path) as router:
            taken = config.replace("port = 0", f"port = {router.port}", 1)
            (tmp_path / "second").mkdir()
            with pytest.raises(RuntimeError, match=r"cannot start: .* port \d+: Address already in use"):
                await asyncio.to_thread(router_process(taken, tmp_path / "second").__enter__)

    run_strictly(run())


async def until_refused(port: int) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while True:
                async with raw_client(port):
                    await asyncio.sleep(0.02)


async def until_draining(port: int) -> None:
    """Every worker is: a dozen connections in a row meet no other."""
    async with asyncio.timeout(10):
        while True:
            async with clients(port, 12) as several:
                if all([(await ask(client, get(b"/readyz"))).status == 503 for client in several]):
                    return
