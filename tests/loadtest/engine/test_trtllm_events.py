"""trtllm-serve's KV cache events on real sockets."""

import asyncio
from typing import Any

from loadtest.engine.trtllm_events_wire import block_key
from tests.support.engine_client import call, engine, post, until

CHAT: dict[str, Any] = {
    "model": "anything",
    "messages": [{"role": "user", "content": "Hi!"}],
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}
TEXT: dict[str, Any] = {
    "model": "anything",
    "prompt": "Hi!",
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}


def test_kv_cache_events() -> None:
    """Numbered from the creation of the pool, hashes chained as published, gone after reading."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            ids = list(range(5000, 5100))
            await post(trtllm, "/v1/completions", {**TEXT, "prompt": ids})
            created, stored = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert created["data"] == {"type": "created", "num_blocks_per_cache_level": [13125, 0]}
            assert (stored["event_id"], stored["data"]["type"], stored["data"]["parent_hash"]) == (
                1,
                "stored",
                None,
            )
            blocks = stored["data"]["blocks"]
            assert [token["token_id"] for block in blocks for token in block["tokens"]] == ids[:96]
            parent = None
            for at, block in enumerate(blocks):
                parent = block_key(ids[at * 32 : (at + 1) * 32], parent)
                assert block["block_hash"] == parent
            await post(trtllm, "/v1/completions", {**TEXT, "prompt": ids[:96] + list(range(6000, 6040))})
            (more,) = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert (more["event_id"], more["data"]["parent_hash"]) == (2, parent)
            assert (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json() == []

    asyncio.run(run())


def test_older_servers_wait_for_events() -> None:
    """A reading that finds nothing gives what comes within its patience."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": "old", "metrics_patience_s": 0.5}) as trtllm:
            assert len((await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()) == 1
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(call(trtllm, "POST", "/kv_cache_events", b"", {}))
                await until(lambda: len(trtllm.log) == 2)
                await post(trtllm, "/v1/completions", {**TEXT, "prompt": list(range(5000, 5100))})
            assert reading.result().json()[0]["data"]["type"] == "stored"

    asyncio.run(run())


def test_salted_blocks_have_other_hashes() -> None:
    """Equal prompts with different salts must not look alike."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}]}
            await post(trtllm, "/v1/chat/completions", asked)
            await post(trtllm, "/v1/chat/completions", {**asked, "cache_salt": "a"})
            _, plain, salted = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            first, other = plain["data"]["blocks"][0], salted["data"]["blocks"][0]
            assert first["tokens"] == other["tokens"]
            assert first["block_hash"] != other["block_hash"]

    asyncio.run(run())


def test_lost_events_leave_a_gap() -> None:
    """A small buffer keeps the newest; the numbers tell; evicted blocks are removed by their hashes."""

    async def run() -> None:
        extra = {"event_buffer_max_size": 3}
        async with engine("trtllm", num_blocks=10, max_model_len=200, extra=extra) as trtllm:
            for start in (5000, 6000, 7000, 8000):
                await post(trtllm, "/v1/completions", {**TEXT, "prompt": list(range(start, start + 100))})
            events = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert len(events) == 3
            assert events[0]["event_id"] > 1
            assert [event["event_id"] for event in events[1:]] == [
                events[0]["event_id"] + 1,
                events[0]["event_id"] + 2,
            ]
            assert {event["data"]["type"] for event in events} == {"stored", "removed"}
        async with engine("trtllm", extra={"event_buffer_max_size": 0}) as trtllm:
            await post(trtllm, "/v1/completions", TEXT)
            assert (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json() == []

    asyncio.run(run())
