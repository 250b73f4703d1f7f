"""What engines say of their caches is known to every worker, also where one process alone can ask for it."""

import asyncio
import json
import os
import signal
from itertools import count
from pathlib import Path

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import post as ask_engine
from tests.support.kv import config_json, places
from tests.support.loops import run_strictly
from tests.support.raw_client import RawClient, post
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.tokenizers import write_tokenizer
from tests.support.worker_cases import SHARED_S, ask, of_each_worker, text
from tests.support.workers import Workers, workers

PROMPT_TOKENS = 320
NUMBERS = count(1)


def config(folder: Path, engines: list[RunningEngine], events: str) -> str:
    """Two replicas, the first of which tells what it caches."""
    write_tokenizer(folder / "tok")
    first, second = map(replica_entry, engines)
    made = text(f"{first}, kv_events = {{ {events} }}", second, policy="expected_latency")
    return made.replace('served_name = "served"', 'served_name = "served"\ntokenizer = "tok"')


async def hits(client: RawClient, engine: RunningEngine) -> float:
    """Tokens of a new prompt that the client's worker believes the engine to cache, which does."""
    prompt = [1000 + next(NUMBERS), *range(5000, 5000 + PROMPT_TOKENS - 1)]
    warmed = await ask_engine(
        engine, "/v1/completions", {"model": "served", "prompt": prompt, "max_tokens": 1}
    )
    assert warmed.status == 200
    await asyncio.sleep(SHARED_S)
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 1}).encode()
    answer = await ask(client, post(body, path=b"/v1/completions", headers=b"x-turnout-explain: 1\r\n"))
    assert answer.status == 200, answer.body
    terms = {
        each["replica"]: each["terms"]
        for each in json.loads(answer.headers["x-turnout-decision"])["candidates"]
    }
    hit_tokens: float = terms[engine.url.removeprefix("http://")]["hit_tokens"]
    return hit_tokens


async def until_known_to(router: Workers, engine: RunningEngine) -> None:
    """Both workers find there what nobody but the engine has told."""
    async with of_each_worker(router, each=1) as ((one, *_), (other, *_)), asyncio.timeout(20):
        for client in (one, other):
            while await hits(client, engine) != PROMPT_TOKENS:
                pass


def test_events_that_can_be_asked_for_once_reach_all_workers(tmp_path: Path) -> None:
    """Whichever process dies: a worker knows what its colleagues know, and another overview asks on."""

    async def run() -> None:
        async with (
            simulated_engines("trtllm", "tgi", speed=200.0) as engines,
            workers(config(tmp_path, engines, "interval_s = 0.01"), tmp_path) as router,
        ):
            engine = engines[0]
            await until_known_to(router, engine)
            assert await router.metric("turnout_kv_events_connected") == 1
            assert await router.metric("turnout_kv_events_listeners") == 1
            told = await router.metric("turnout_kv_events_stored_blocks_total")
            assert told >= 2 * PROMPT_TOKENS / 16
            assert await router.metric("turnout_kv_events_losses_total") == 0
            for index in (1, 0):
                victim = router.children[index]
                os.kill(victim, signal.SIGKILL)
                await router.until_gone(victim)
                await router.until_answers()
                await router.until_metric("turnout_workers", 2)
                await until_known_to(router, engine)
            assert await router.metric("turnout_kv_events_listeners") == 1

    run_strictly(run())


def test_published_events_are_heard_by_all_workers(tmp_path: Path) -> None:
    """Each for itself; what one that is gone has counted stays; a publisher that falls silent is said so."""

    async def run() -> None:
        endpoint, replay = places(tmp_path)
        events = f'endpoint = "{endpoint}", replay_endpoint = "{replay}", topic = "kv-events"'
        extra = {"kv_events_config": config_json(tmp_path)}
        async with (
            simulated_engines("vllm", speed=200.0, extra=extra) as [vllm],
            simulated_engines("tgi", speed=200.0) as [tgi],
            workers(config(tmp_path, [vllm, tgi], events), tmp_path) as router,
        ):
            await router.until_metric("turnout_kv_events_listeners", 2)
            await router.until_metric("turnout_kv_events_connected", 1)
            await until_known_to(router, vllm)
            counted = await router.metric("turnout_kv_events_received_total")
            assert counted > 0
            victim = router.children[1]
            os.kill(victim, signal.SIGKILL)
            await router.until_gone(victim)
            await router.until_metric("turnout_kv_events_listeners", 2)
            assert await router.metric("turnout_kv_events_received_total") >= counted
            await until_known_to(router, vllm)
            await vllm.close()
            await router.until_metric("turnout_kv_events_connected", 0)
            shown = (await router.replicas())[vllm.url.removeprefix("http://")]
            assert f"its KV events are not heard: there is no connection to {endpoint}" in shown["warnings"]

    run_strictly(run())
