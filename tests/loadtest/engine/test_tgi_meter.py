"""TGI's metrics and cache on real sockets."""

import asyncio
from typing import Any

from tests.support.engine_client import engine, get, post

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 6, "temperature": 0}


def test_only_finished_prompts_are_cached() -> None:
    """Two equal prompts at once do not share; a later one finds the prompt, but not the answer."""

    async def run() -> None:
        async with engine("tgi", block_size=1, num_blocks=20_000) as tgi:
            asked = {"inputs": "x" * 300, "parameters": {"max_new_tokens": 4}}
            first, second = await asyncio.gather(*(post(tgi, "/generate", asked) for _ in range(2)))
            assert first.json() == second.json()
            assert tgi.core.stats().prefix_hit_tokens == 0
            longer = {**asked, "inputs": asked["inputs"] + first.json()["generated_text"]}
            await post(tgi, "/generate", longer)
            assert tgi.core.stats().prefix_hit_tokens == 100
            whole = {"prompt": asked["inputs"], "max_tokens": 2}
            await post(tgi, "/v1/completions", whole)
            assert tgi.core.stats().prefix_hit_tokens == 100
            await post(tgi, "/v1/completions", {**whole, "stream": True})
            assert tgi.core.stats().prefix_hit_tokens == 199

    asyncio.run(run())


def test_metrics_appear_with_use() -> None:
    """A fresh replica shows nothing; chat is counted twice; nothing ends in `_total`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            assert (await get(tgi, "/metrics")).body == b""
            await post(tgi, "/v1/chat/completions", CHAT)
            await post(tgi, "/generate", {"inputs": "a", "parameters": {"max_new_tokens": 2}})
            text = (await get(tgi, "/metrics")).text
            lines = text.splitlines()
            assert "tgi_request_count 3" in lines
            assert "tgi_request_success 2" in lines
            assert "tgi_request_generated_tokens_sum 8" in lines
            assert "tgi_queue_size 0" in lines
            assert "tgi_batch_current_size 0" in lines
            assert 'tgi_batch_inference_count{method="prefill"} 2' in lines
            assert "_total" not in text
            assert text.count("tgi_batch_next_size_bucket") == 1025
            assert "\n\n# " in text

    asyncio.run(run())
