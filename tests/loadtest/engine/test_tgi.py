"""TGI's routes, keys, health and tokenizer on real sockets, and when it notices that a client left."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.support.engine_client import call, engine, get, opened, post, read_chunk, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "tgi"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 6, "temperature": 0}


def _endless() -> bytes:
    """A native request whose answer is as long as guided decoding makes it."""
    values = {"type": "array", "minItems": 900, "items": {"type": "string"}}
    grammar = {"type": "json", "value": {"type": "object", "properties": {"a": values}}}
    return json.dumps({"inputs": "a", "parameters": {"grammar": grammar}}).encode()


def test_every_route_is_there() -> None:
    """The golden list of paths, and the key guards exactly those that it says."""

    async def run() -> None:
        routes = json.loads((FIXTURES / "paths.json").read_bytes())["routes"]
        async with engine("tgi", api_key="Secret") as tgi:
            for method, path, access in routes:
                reply = await call(tgi, method, path, b"", {})
                assert (reply.status == 401) == (access == "api key"), path
                assert reply.status not in (404, 405), path
            refused = await post(tgi, "/generate", {"inputs": "a"}, {"authorization": "Bearer wrong"})
            assert (refused.status, refused.body) == (401, b"")
            asked = {"inputs": "a", "parameters": {"max_new_tokens": 1}}
            assert (await post(tgi, "/generate", asked, {"authorization": "bearer SECRET"})).status == 200
            assert (await get(tgi, "/nowhere")).status == 404
            assert (await get(tgi, "/generate")).status == 405

    asyncio.run(run())


def test_information() -> None:
    """`/info` and the model list; neither tells the KV capacity."""

    async def run() -> None:
        async with engine("tgi", model="org/model", max_model_len=4096) as tgi:
            info = (await get(tgi, "/info")).json()
            assert list(info)[:4] == [
                "model_id",
                "model_sha",
                "model_pipeline_tag",
                "max_concurrent_requests",
            ]
            assert (info["max_input_tokens"], info["max_total_tokens"]) == (4095, 4096)
            assert info["router"] == "text-generation-router"
            model = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
            assert (await get(tgi, "/v1/models")).json() == {"object": "list", "data": [model]}
            for path in ("/", "/health", "/ping"):
                assert ((await get(tgi, path)).status, (await get(tgi, path)).body) == (200, b"")

    asyncio.run(run())


def test_tokenizer_routes() -> None:
    """Ids with byte offsets; the chat route renders the template too."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            tokens = (await post(tgi, "/tokenize", {"inputs": "Grüße!"})).json()
            assert tokens[-1]["stop"] == len("Grüße!".encode())
            assert [one["start"] for one in tokens[1:]] == [one["stop"] for one in tokens[:-1]]
            chat = (await post(tgi, "/chat_tokenize", CHAT)).json()
            assert chat["templated_text"].endswith("<|im_start|>assistant\n")
            usage = (await post(tgi, "/v1/chat/completions", CHAT)).json()["usage"]
            assert len(chat["tokenize_response"]) == usage["prompt_tokens"]

    asyncio.run(run())


def test_health_is_doubted_after_a_failure() -> None:
    """The next call runs one token; a dead engine answers 503."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "error@1"})
            steps = tgi.core.stats().steps
            assert (await get(tgi, "/health")).status == 200
            probed = tgi.core.stats().steps
            assert probed > steps
            assert (await get(tgi, "/health")).status == 200
            assert tgi.core.stats().steps == probed
            tgi.core.kill()
            dead = await get(tgi, "/health")
            assert (dead.status, dead.json()) == (503, {"error": "unhealthy", "error_type": "healthcheck"})
            refused = await post(tgi, "/v1/chat/completions", CHAT)
            assert (refused.status, refused.json()["error_type"]) == (424, "generation")

    asyncio.run(run())


def test_hosting_platforms_routes() -> None:
    """Their routes accept the same bodies under other paths."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            native = {"inputs": "a", "parameters": {"max_new_tokens": 2, "return_full_text": False}}
            assert (await post(tgi, "/invocations", native)).json() == (await post(tgi, "/", native)).json()
            chat = (await post(tgi, "/invocations", CHAT)).json()
            assert chat["object"] == "chat.completion"
            text = (await post(tgi, "/invocations", {"prompt": "a", "max_tokens": 2})).json()
            assert text["object"] == "text_completion"
            answer = (await post(tgi, "/vertex", {"instances": [native, CHAT]})).json()
            assert answer["predictions"][1] == chat["choices"][0]["message"]["content"]
            assert (await post(tgi, "/vertex", {"instances": []})).status == 422

    asyncio.run(run())


def test_a_client_that_leaves_is_noticed_at_the_next_token() -> None:
    """The generation ends, and the request counts as dropped."""

    async def run() -> None:
        async with engine("tgi", speed=20.0) as tgi:
            headers = {"content-type": "application/json"}
            async with opened(tgi, "POST", "/generate_stream", _endless(), headers) as (_, reader, __):
                assert await read_chunk(reader)
            await until(lambda: tgi.core.stats().running == 0)
            assert tgi.core.stats().finished["abort"] == 1
            assert tgi.log[0].noticed_s is not None
            assert b'tgi_request_failure{err="dropped"} 1\n' in (await get(tgi, "/metrics")).body

    asyncio.run(run())
