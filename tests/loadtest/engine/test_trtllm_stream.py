"""trtllm-serve's streams on real sockets: their framing, how they break, what comes after `[DONE]`."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.engine_client import engine, post

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm"
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


def test_chat_stream() -> None:
    """A role chunk with a space behind it, keys that are missing instead of null, one id, `[DONE]`."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True})
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reply.headers["server"] == "uvicorn"
            assert reply.whole
            assert reply.chunks[0].endswith(b'"delta":{"role":"assistant"}}]} \n\n')
            assert all(chunk.endswith(b"}\n\n") for chunk in reply.chunks[1:-1])
            assert reply.chunks[-1] == b"data: [DONE]\n\n"
            role, *chunks = reply.events()
            assert role["choices"] == [{"index": 0, "delta": {"role": "assistant"}}]
            assert len(chunks) == 6
            assert all(chunk["choices"][0].keys() == {"index", "delta"} for chunk in chunks[:-1])
            assert chunks[-1]["choices"][0]["finish_reason"] == "length"
            assert {chunk["id"] for chunk in reply.events()} == {role["id"]}
            assert role["model"] == "anything"
            assert not any("usage" in chunk for chunk in reply.events())

    asyncio.run(run())


def test_stream_options_switch_usage_on() -> None:
    """An empty object is enough; cached tokens are always in it."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}], "stream": True}
            for cached in (0, 96):
                reply = await post(trtllm, "/v1/chat/completions", {**asked, "stream_options": {}})
                last = reply.events()[-1]
                assert last["choices"] == []
                assert last["usage"]["completion_tokens"] == 6
                assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}
            options = {"continuous_usage_stats": True}
            reply = await post(trtllm, "/v1/chat/completions", {**asked, "stream_options": options})
            assert [event["usage"]["completion_tokens"] for event in reply.events()] == [
                0,
                1,
                2,
                3,
                4,
                5,
                6,
                6,
            ]
            text = await post(trtllm, "/v1/completions", {**TEXT, "stream": True, "stream_options": {}})
            assert text.events()[-1]["usage"]["total_tokens"] == 7

    asyncio.run(run())


def test_a_new_id_for_every_chunk() -> None:
    """Older servers make one up each time."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": "old"}) as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True})
            ids = [event["id"] for event in reply.events()]
            assert len(set(ids)) == len(ids) == 7

    asyncio.run(run())


def test_broken_streams() -> None:
    """Chat is cut with no word; completions say it, and `[DONE]` twice."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            fault = {"x-fault": "error@3"}
            chat = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True}, fault)
            assert (chat.status, chat.whole) == (200, False)
            assert len(chat.events()) == 4
            assert b"error" not in chat.body
            assert b"[DONE]" not in chat.body
            text = await post(trtllm, "/v1/completions", {**TEXT, "stream": True}, fault)
            assert text.whole
            golden = (FIXTURES / "completions_stream_midstream_error_double_done.sse").read_bytes()
            assert text.body.endswith(golden[golden.index(b'data: {"error"') :])
            whole = await post(trtllm, "/v1/chat/completions", CHAT, fault)
            assert (whole.status, whole.json()["type"]) == (400, "BadRequestError")
            ended = await post(
                trtllm, "/v1/chat/completions", {**CHAT, "stream": True}, {"x-fault": "abort@2"}
            )
            assert ended.events()[-1]["choices"][0]["finish_reason"] == "cancelled"
            status = await post(trtllm, "/v1/chat/completions", CHAT, {"x-fault": "status=503"})
            assert (status.status, status.json()["code"]) == (503, 503)

    asyncio.run(run())


def test_timings_on_request() -> None:
    """With the header and the option: a named event after `[DONE]`, or headers; otherwise neither."""

    async def run() -> None:
        wanted = {"X-TRTLLM-return-metrics": "1"}
        streamed = {**CHAT, "stream": True}
        async with engine("trtllm", extra={"return_metrics_header": True}) as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", streamed, wanted)
            assert reply.chunks[-2] == b"data: [DONE]\n\n"
            assert reply.chunks[-1].startswith(
                b'event: trtllm.perf_metrics\ndata: {"Server-Timing":"server_queue;dur='
            )
            whole = await post(trtllm, "/v1/completions", TEXT, wanted)
            assert whole.headers["server-timing"].startswith("server_queue;dur=")
            assert (await post(trtllm, "/v1/chat/completions", streamed)).chunks[-1] == b"data: [DONE]\n\n"
        async with engine("trtllm") as trtllm:
            assert b"perf_metrics" not in (await post(trtllm, "/v1/chat/completions", streamed, wanted)).body

    asyncio.run(run())
