"""Redis is killed under load: clients of routers that count there notice nothing, and limits hold."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

from tests.support.limit_stores import looking_into
from tests.support.loops import run_strictly
from tests.support.raw_client import CHAT, RawClient, post, raw_client
from tests.support.redis_server import RedisServer, redis_server
from tests.support.routers import config_text
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.workers import Workers, workers

WORKERS = 2
PER_MINUTE = 6000
"""A hundred a second: a third of what is asked for."""
ONE_TOKEN = CHAT.replace(b'"max_tokens":8', b'"max_tokens":1')
LIMITS = f"""
timeout_ms = 25
[[limits]]
name = "all"
requests_per_minute = {PER_MINUTE}
burst_s = 2
"""


class Load:
    """Asks at a steady rate over kept connections, and writes down when what was answered."""

    def __init__(self, clients: list[RawClient], per_s: float) -> None:
        self.answers: list[tuple[float, int]] = []
        self.overheads_ms: list[tuple[float, float]] = []
        self.errors: list[str] = []
        self._clients = clients
        self._every_s = len(clients) / per_s

    async def run(self, seconds: float) -> None:
        began = monotonic()
        await asyncio.gather(
            *(self._one(client, i, began, seconds) for i, client in enumerate(self._clients))
        )

    async def _one(self, client: RawClient, number: int, began: float, seconds: float) -> None:
        due = began + self._every_s * number / len(self._clients)
        while due < began + seconds:
            await asyncio.sleep(due - monotonic())
            due = max(due + self._every_s, monotonic())
            await client.send(post(ONE_TOKEN))
            try:
                answer = await client.answer()
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.errors.append(repr(error))
                return
            now = monotonic()
            self.answers.append((now, answer.status))
            self.overheads_ms.append((now, float(answer.headers["x-turnout-overhead-ms"])))

    def admitted(self, since: float, until: float) -> int:
        return sum(status == 200 and since <= at < until for at, status in self.answers)


async def killed_and_back(server: RedisServer, load: Load, router: Workers) -> tuple[float, float, float]:
    """When it was killed, when it was there again, and when all workers used it again."""
    await asyncio.sleep(3)
    killed = monotonic()
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(4)
    await asyncio.to_thread(server.start)
    back = monotonic()
    async with asyncio.timeout(10):
        while not (await router.admin.get("/api/limits")).json()["store"]["healthy"]:
            await asyncio.sleep(0.05)
    return killed, back, monotonic()


@pytest.mark.slow
def test_nobody_notices(tmp_path: Path) -> None:
    """300 requests a second on two workers with a limit of 100: killed for four seconds."""

    async def run() -> None:
        with redis_server() as server:
            more = f'[redis]\nurl = "{server.url}"\n{LIMITS}'
            async with simulated_engines("vllm", speed=100.0) as engines:
                text = config_text(*map(replica_entry, engines), server=f"workers = {WORKERS}", more=more)
                async with workers(text, tmp_path) as router, contextlib.AsyncExitStack() as stack:
                    clients = [await stack.enter_async_context(raw_client(router.port)) for _ in range(24)]
                    load = Load(clients, 300)
                    loading = asyncio.create_task(load.run(12))
                    killed, back, healthy = await killed_and_back(server, load, router)
                    await loading
                    report(load, killed, back, healthy)
                    assert load.errors == []
                    assert {status for _, status in load.answers} == {200, 429}
                    earned = PER_MINUTE / 60 * (healthy - killed)
                    bucket = PER_MINUTE / 60 * 2
                    assert load.admitted(killed, healthy) <= 1.05 * earned + 0.05 * bucket + WORKERS
                    with looking_into(server.url) as redis:
                        assert redis.exists("turnout:{pool}:all::r")

    run_strictly(run())


def report(load: Load, killed: float, back: float, healthy: float) -> None:
    statuses = Counter(status for _, status in load.answers)
    away_s = healthy - killed
    late = [ms for at, ms in load.overheads_ms if killed <= at < back and ms > 15]
    before = sorted(ms for at, ms in load.overheads_ms if at < killed)
    print(
        f"\n{dict(statuses)}; away for {away_s:.2f} s, of which {healthy - back:.2f} s after its return; "
        f"admitted meanwhile {load.admitted(killed, healthy)}, earned {PER_MINUTE / 60 * away_s:.0f}; "
        f"overhead before p50 {before[len(before) // 2]:.2f}, p99 {before[len(before) * 99 // 100]:.2f} ms; "
        f"over 15 ms while away: {len(late)}, at most {max(late, default=0):.1f} ms"
    )
