"""Four processes on the same buckets: every decision is checked against `decide`, every charge against its use."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from policies.limits.ask import Ask, Budget, Verdict
from policies.limits.gcra import decide
from tests.support.limit_stores import looking_into
from tests.support.limit_worker import PREFIX, SECOND, Job
from tests.support.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESSES = 4
REQUESTS = 25_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def run_jobs(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    processes = [subprocess.Popen(job.words) for job in jobs]
    assert [process.wait() for process in processes] == [0] * len(jobs)
    return [json.loads(Path(job.out).read_text()) for job in jobs]


@pytest.mark.parametrize(("buckets", "window_us"), [(1, 10 * SECOND), (10, 5 * SECOND), (1000, SECOND // 50)])
def test_every_decision_is_the_right_one(
    server: RedisServer, tmp_path: Path, buckets: int, window_us: int
) -> None:
    """L10: replayed in the order in which they were made."""
    jobs = [
        Job(
            "race",
            server.url,
            str(tmp_path / f"{i}"),
            f"p{i}",
            REQUESTS,
            buckets=buckets,
            window_us=window_us,
        )
        for i in range(PROCESSES)
    ]
    rows = sorted(row for result in run_jobs(jobs) for row in result["rows"])
    assert [row[0] for row in rows] == list(range(1, PROCESSES * REQUESTS + 1))
    tats: dict[str, int] = defaultdict(int)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    sold: dict[str, int] = defaultdict(int)
    refusals = 0
    for _, now_us, budgets, verdict in rows:
        asked = Ask("", [Budget(*budget) for budget in budgets])
        right = decide(asked, [tats[budget.key] for budget in asked.budgets], [], now_us)
        assert Verdict(*verdict) == right
        for budget, backlog_us in zip(asked.budgets, right.backlogs_us, strict=True):
            first.setdefault(budget.key, now_us)
            last[budget.key] = now_us
            if right.admitted:
                tats[budget.key] = now_us + backlog_us
                sold[budget.key] += budget.cost_us
        refusals += not right.admitted
    assert 0.01 < refusals / len(rows) < 0.999
    oversold = sum(max(0, sold[key] - window_us - (last[key] - first[key])) for key in first)
    assert oversold == 0
    if buckets == 1:
        key = f"{PREFIX}l0::r"
        earned = window_us + last[key] - first[key]
        assert sold[key] >= 0.999 * earned - 20_000, "all but what no request fits into"


def test_charged_is_what_was_used(server: RedisServer, tmp_path: Path) -> None:
    """L17, L19: of requests that end, fail, leave, and settle twice. Nothing is held afterwards."""
    buckets = 10
    names = [f"{PREFIX}l{i}::{kind}" for i in range(buckets) for kind in "rt"]
    before_us = 10_000 * SECOND
    with looking_into(server.url) as client:
        # Far from full, so that no use is forgiven by time.
        began_us = 1_000_000 * client.time()[0]
        for name in names:
            client.set(name, f"{began_us + before_us:016d}{began_us:016d}")
    window_us = 1_000_000 * SECOND
    jobs = [
        Job(
            "charge",
            server.url,
            str(tmp_path / f"{i}"),
            f"p{i}",
            REQUESTS,
            32,
            buckets,
            window_us,
            most=1000,
        )
        for i in range(PROCESSES)
    ]
    results = run_jobs(jobs)
    used: dict[str, int] = defaultdict(int)
    for result in results:
        for key, amount in result["rows"]:
            used[key] += amount
        assert (result["state"]["unsettled"], result["state"]["unknown"], result["state"]["lost"]) == (
            0,
            0,
            0,
        )
    with looking_into(server.url) as client:
        charged = {name: int(str(client.get(name))[:16]) - began_us - before_us for name in names}
        assert charged == {name: used[name] for name in names}
        assert client.zcard(f"{PREFIX}l::c") == 0
