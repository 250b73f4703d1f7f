"""A replica that was restarted has the hottest prompts in its cache before the first client asks for them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.engine.server import RunningEngine
from tests.support.loops import run_strictly
from tests.support.raw_client import post
from tests.support.routers import config_text
from tests.support.scripted_server import until
from tests.support.simulated import RunningFleet, replica_entry, simulated_engines, simulated_fleet
from tests.support.worker_cases import ask, of_each_worker
from tests.support.workers import workers

SCRAPED = "[scrape]\ninterval_s = 0.05\n[health]\ninterval_s = 60\n"
"""Restarts are seen by the counters alone."""
PROBED = "[health]\ninterval_s = 0.05\ntimeout_s = 0.5\nup_after = 1\n"
"""A probe that was under way when its engine died may never be answered: the next one is."""
TELLS = {"enable_prompt_tokens_details": True}
HOT = 3


def root(number: int) -> str:
    """Some 600 tokens."""
    return f"System {number} answers briefly. " * 90


def chat_body(number: int, question: str = "what?") -> dict[str, Any]:
    messages = [{"role": "system", "content": root(number)}, {"role": "user", "content": question}]
    return {"model": "m", "max_tokens": 4, "messages": messages}


def with_one_replica(
    test: Callable[[RunningFleet, httpx.AsyncClient], Awaitable[None]],
    *,
    version: str,
    dialect: str = "vllm",
    more: str = SCRAPED,
) -> None:
    async def run() -> None:
        extra = TELLS if dialect == "vllm" else {}
        fleets = simulated_fleet(dialect, policy="expected_latency", more=more, version=version, extra=extra)
        async with fleets as fleet, httpx.AsyncClient(base_url=fleet.running.url, timeout=20) as client:
            for number in range(HOT):
                for question in ("why is that so?", "and who?"):
                    await chat(client, chat_body(number, question))
            await test(fleet, client)

    run_strictly(run())


async def chat(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    return (await client.post("/v1/chat/completions", json=body, headers=headers)).raise_for_status()


async def restarted(fleet: RunningFleet) -> None:
    """As a new process, so soon that no probe saw it go; its counters tell."""
    (replica,) = fleet.running.router.fleet.replicas

    def decoded() -> float:
        return (replica.load and replica.load.decode_tokens) or 0.0

    await until(lambda: decoded() >= 8 * HOT)
    fleet.engines[0].log.clear()
    await fleet.engines[0].restart()
    await until(lambda: decoded() < 8 * HOT)


async def read_twice(engine: RunningEngine) -> None:
    """Its metrics, and so the counters of all that was before."""
    before = len(engine.log.of("/metrics"))
    await until(lambda: len(engine.log.of("/metrics")) >= before + 2)


async def gone_and_back(fleet: RunningFleet) -> None:
    (replica,) = fleet.running.router.fleet.replicas
    fleet.engines[0].die()
    await until(lambda: not replica.up)
    fleet.engines[0].log.clear()
    await fleet.engines[0].restart()


def given(fleet: RunningFleet) -> list[dict[str, Any]]:
    """What the engine was asked since its restart."""
    return [json.loads(record.request.body) for record in fleet.engines[0].log.of("/v1/chat/completions")]


async def until_given(fleet: RunningFleet, count: int) -> None:
    (replica,) = fleet.running.router.fleet.replicas
    await until(lambda: replica.warm_joins["completed"] == count and not replica.in_flight)


def cached_tokens(answer: httpx.Response) -> int:
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_restarted_replica_knows_the_hot_prompts() -> None:
    """Also the router knows that it does; and none of it is a client's."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        await restarted(fleet)
        await until_given(fleet, HOT)
        asked = given(fleet)
        assert [(body["max_tokens"], body["stream"]) for body in asked] == [(1, False)] * HOT
        assert sorted(body["messages"][0]["content"] for body in asked) == [root(n) for n in range(HOT)]
        for number in range(HOT):
            answer = await chat(client, chat_body(number), **{"x-turnout-explain": "1"})
            assert cached_tokens(answer) > 0.8 * answer.json()["usage"]["prompt_tokens"]
            (candidate,) = json.loads(answer.headers["x-turnout-decision"])["candidates"]
            assert candidate["terms"]["hit_tokens"] > 300
        (replica,) = fleet.running.router.fleet.replicas
        async with httpx.AsyncClient(base_url=fleet.running.admin_url) as admin:
            lines = (await admin.get("/metrics")).text.splitlines()
        label = f'{{outcome="completed",replica="{replica.id}"}}'
        assert f"turnout_warm_join_requests_total{label} {float(HOT)}" in lines
        requests = [line for line in lines if line.startswith("turnout_requests_total{")]
        assert [line.rpartition(" ")[2] for line in requests] == [f"{3.0 * HOT}"]

    with_one_replica(test, version=f"warm_join_prompts = {HOT}")


@pytest.mark.parametrize("dialect", ["vllm", "tgi", "trtllm", "triton"])
def test_every_engine_that_went_and_came_back_is_given_them(dialect: str) -> None:
    """Some engines' counters are not there before their first request: they need not be."""

    async def test(fleet: RunningFleet, _client: httpx.AsyncClient) -> None:
        await gone_and_back(fleet)
        (replica,) = fleet.running.router.fleet.replicas
        await until(lambda: replica.warm_joins["completed"] >= HOT)
        assert not replica.warm_joins.keys() - {"completed", "stopped"}

    with_one_replica(test, version=f"warm_join_prompts = {HOT}", dialect=dialect, more=PROBED)


def test_without_the_option_a_restarted_replica_is_given_nothing() -> None:
    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        await restarted(fleet)
        assert cached_tokens(await chat(client, chat_body(0))) == 0
        assert len(given(fleet)) == 1
        assert fleet.running.router.warm_joins is None

    with_one_replica(test, version="")


def test_no_more_tokens_than_allowed() -> None:
    """Room for two of the three."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        joins = fleet.running.router.warm_joins
        assert joins is not None
        await restarted(fleet)
        await until_given(fleet, 2)
        await until(lambda: not joins.joining)
        assert len(given(fleet)) == 2
        found = [cached_tokens(await chat(client, chat_body(number))) > 300 for number in range(HOT)]
        assert sorted(found) == [False, True, True]

    with_one_replica(test, version="warm_join_prompts = 8\nwarm_join_tokens = 1600")


def test_of_several_workers_one_gives_them(tmp_path: Path) -> None:
    """And the overview, which is told by the worker, counts them."""

    async def run() -> None:
        async with simulated_engines("vllm", extra=TELLS) as engines:
            version = f"warm_join_prompts = {HOT}"
            text = config_text(
                *map(replica_entry, engines),
                policy="expected_latency",
                server="workers = 2",
                more=SCRAPED,
                version=version,
            )
            async with workers(text, tmp_path) as router, of_each_worker(router, each=1) as both:
                for number in range(HOT):
                    request = post(json.dumps(chat_body(number)).encode())
                    for client, *_ in (*both, *both):
                        assert (await ask(client, request)).status == 200
                await read_twice(engines[0])
                engines[0].log.clear()
                await engines[0].restart()
                name, log = "turnout_warm_join_requests_total", engines[0].log
                async with asyncio.timeout(20):
                    # Once when it is there, and once more if its metrics say later that it began anew.
                    while not HOT <= await router.metric(name) == len(log.of("/v1/chat/completions")):
                        await asyncio.sleep(0.02)
                answer = await ask(both[1][0], post(json.dumps(chat_body(0)).encode()))
                assert json.loads(answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"] > 300
                asked = [record.request.headers["x-request-id"] for record in log.of("/v1/chat/completions")]
                assert len({sender.partition("-")[0] for sender in asked[:HOT]}) == 1
                assert HOT <= len(asked) - 1 <= 2 * HOT

    run_strictly(run())
