"""trtllm-serve's health and identity on real sockets, and when it notices that a client left."""

import asyncio
import json
from typing import Any

from loadtest.engine.tokens import encode
from tests.support.engine_client import engine, get, opened, post, read_chunk, until

CHAT: dict[str, Any] = {
    "model": "anything",
    "messages": [{"role": "user", "content": "Hi!"}],
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}


def test_health() -> None:
    """Older servers never notice; newer ones answer 503 in plain text; only a generation really tells."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            assert ((await get(trtllm, "/health")).status, (await get(trtllm, "/health")).body) == (200, b"")
            assert (await get(trtllm, "/health_generate")).text == "Generation health check OK"
            trtllm.core.kill()
            dead = await get(trtllm, "/health")
            assert dead.status == 503
            assert dead.text == "LLM is unavailable. Please check the server logs for more details."
            assert (await get(trtllm, "/health_generate")).status == 500
            refused = await post(trtllm, "/v1/chat/completions", CHAT)
            assert (refused.status, refused.json()["object"]) == (400, "error")
        async with engine("trtllm", extra={"snapshot": "old"}) as trtllm:
            trtllm.core.kill()
            assert (await get(trtllm, "/health")).status == 200

    asyncio.run(run())


def test_information() -> None:
    """Version, model list, server info, the tokenizer, and FastAPI's answer to unknown paths."""

    async def run() -> None:
        async with engine("trtllm", model="org/model-8b") as trtllm:
            assert (await get(trtllm, "/version")).json() == {"version": "1.4.0rc1"}
            (card,) = (await get(trtllm, "/v1/models")).json()["data"]
            assert (card["id"], card["owned_by"]) == ("model-8b", "tensorrt_llm")
            assert (await get(trtllm, "/server_info")).json()["tokens_per_block"] == 32
            ids = encode("Grüße")
            tokens = await post(trtllm, "/_internal/tokenize", {"prompt": "Grüße"})
            assert tokens.json() == {"count": len(ids), "tokens": ids}
            assert (await post(trtllm, "/_internal/tokenize", {"text": "a"})).status == 400
            assert (await get(trtllm, "/perf_metrics")).json() == {"detail": "Not Found"}
            assert (await get(trtllm, "/v1/chat/completions")).json() == {"detail": "Method Not Allowed"}
            assert trtllm.dialect.traits.idle_timeout_s == 5.0

    asyncio.run(run())


def test_a_client_that_leaves_is_noticed_at_the_next_poll() -> None:
    """The server looks once a second, so decoding goes on for a while."""

    async def run() -> None:
        async with engine("trtllm", speed=20) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 8000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers) as (_, reader, __):
                assert await read_chunk(reader)
            await until(lambda: trtllm.log[0].client_closed_s is not None)
            steps = trtllm.core.stats().steps
            await until(lambda: trtllm.core.stats().steps > steps + 20)
            assert trtllm.core.stats().running == 1
            await until(lambda: trtllm.core.stats().running == 0)
            record = trtllm.log[0]
            assert record.noticed_s is not None
            assert record.noticed_s - record.arrived_s > 0.9

    asyncio.run(run())
