"""Requests go where engines say that their prompts are cached, also those that this router did not send."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from policies.routing.events import Event
from router.api.request import Endpoint, InferenceRequest
from router.config.decode import decode
from router.fleet.build import build_fleet
from router.fleet.kv_events import KvEvents
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.fleet.stations import watched_in
from tests.router.engines.making import request
from tests.support.engine_client import engine, post
from tests.support.kv import config_json, places
from tests.support.scripted_server import until
from tests.support.tokenizers import write_tokenizer

KEY = b"key"
IDS = list(range(5000, 5400))


def config_text(folder: Path, urls: dict[str, str]) -> str:
    endpoint, replay = places(folder)
    return f"""
[models.m]
stable = "v1"
policy = "expected_latency"
[models.m.versions.v1]
served_name = "demo-8b"
tokenizer = "tok"
[[models.m.versions.v1.replicas]]
url = "{urls["tgi"]}"
engine = "tgi"
[[models.m.versions.v1.replicas]]
url = "{urls["vllm"]}"
engine = "vllm"
kv_events = {{ endpoint = "{endpoint}", replay_endpoint = "{replay}", topic = "kv-events" }}
[[models.m.versions.v1.replicas]]
url = "{urls["trtllm"]}"
engine = "trtllm"
kv_events = {{ interval_s = 0.01 }}
"""


class Tell:
    """To the policy of the replica's own version."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __call__(self, replica: Replica, event: Event) -> None:
        identity = replica.identity
        self._fleet.routes[f"{identity.model}@{identity.version}"].pool.policy.observe(event)


def hits(fleet: Fleet, asked: InferenceRequest) -> dict[str, float]:
    """Tokens of the prompt that the policy believes to be cached, by engine."""
    pool = fleet.routes["m"].pool
    weighed = pool.weigh(asked, pool.facts(asked), 0.0)
    kinds = {replica.id: replica.engine.kind for replica in pool.replicas}
    return {kinds[one.replica]: one.terms["hit_tokens"] for one in weighed}


@pytest.mark.parametrize("warm", ["vllm", "trtllm"])
def test_a_prompt_goes_where_its_blocks_are(tmp_path: Path, warm: str) -> None:
    """Whichever engine was warmed behind the router's back, in blocks of 16 or of 32 tokens."""

    async def run() -> None:
        write_tokenizer(tmp_path / "tok")
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra) as vllm, engine("trtllm") as trtllm, engine("tgi") as tgi:
            urls = {"vllm": vllm.url, "trtllm": trtllm.url, "tgi": tgi.url}
            config = decode(config_text(tmp_path, urls), directory=tmp_path)
            fleet = build_fleet(config, Random(1), KEY)
            events = KvEvents(KEY, Tell(fleet))
            events.follow(watched_in(config, fleet))
            pool = fleet.routes["m"].pool
            asked = request(Endpoint.COMPLETIONS, {"model": "m", "prompt": IDS})
            assert set(hits(fleet, asked).values()) == {0}
            body = {"model": "demo-8b", "prompt": IDS, "max_tokens": 1}
            await post(vllm if warm == "vllm" else trtllm, "/v1/completions", body)
            cached = len(IDS) // 32 * 32 if warm == "trtllm" else len(IDS)
            await until(lambda: hits(fleet, asked)[warm] == cached)
            assert hits(fleet, asked) == {"vllm": 0, "trtllm": 0, "tgi": 0, warm: cached}
            lease = pool.lease(asked, pool.facts(asked), 1.0)
            assert lease.replica.engine.kind == warm
            lease.close(None, 2.0)
            if warm == "vllm":
                # A flush is told with the next step.
                await post(vllm, "/reset_prefix_cache")
                await post(vllm, "/v1/completions", {**body, "prompt": IDS[::-1]})
                await until(lambda: hits(fleet, asked)[warm] == 0)
            await events.close()

    asyncio.run(run())
