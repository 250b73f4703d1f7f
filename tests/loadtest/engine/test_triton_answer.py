"""Triton's answers and streams on real sockets, in both layouts."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import engine, post

LLMAPI: dict[str, Any] = {
    "text_input": "Hi!",
    "sampling_param_max_tokens": 5,
    "sampling_param_temperature": 0.0,
    "streaming": True,
}
ENSEMBLE: dict[str, Any] = {
    "text_input": "Hi!",
    "max_tokens": 5,
    "temperature": 0.0,
    "stream": True,
    "exclude_input_in_output": True,
}
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def llmapi(speed: float = 200.0, **extra: object) -> AsyncIterator[RunningEngine]:
    async with engine("triton", speed=speed, extra=extra) as triton:
        yield triton


@asynccontextmanager
async def ensemble(speed: float = 200.0, **extra: object) -> AsyncIterator[RunningEngine]:
    async with engine("triton", speed=speed, extra={"layout": "ensemble", **extra}) as triton:
        yield triton


def path(model: str, action: str) -> str:
    return f"/v2/models/{model}/{action}"


def test_cumulative_stream() -> None:
    """llmapi repeats the text so far; `finish_reason` is "None" until the end; the body just ends."""

    async def run() -> None:
        async with llmapi() as triton:
            asked = {**LLMAPI, "return_finish_reason": True, "return_stop_reason": True}
            reply = await post(triton, path("tensorrt_llm", "generate_stream"), asked)
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reply.headers["transfer-encoding"] == "chunked"
            assert reply.whole
            events = reply.events()
            assert len(events) == 5
            assert all(list(event) == sorted(event) for event in events)
            texts = [event["text_output"] for event in events]
            assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
            assert [event["finish_reason"] for event in events] == ["None"] * 4 + ["length"]
            assert {event["stop_reason"] for event in events} == {"None"}
            assert events[0].keys() == {
                "finish_reason",
                "stop_reason",
                "model_name",
                "model_version",
                "text_output",
            }
            assert b"[DONE]" not in reply.body

    asyncio.run(run())


def test_delta_stream() -> None:
    """The ensemble sends deltas among its other tensors, and the same text in the end."""

    async def run() -> None:
        async with llmapi() as one, ensemble() as other:
            whole = (await post(one, path("tensorrt_llm", "generate_stream"), LLMAPI)).events()[-1][
                "text_output"
            ]
            events = (await post(other, path("ensemble", "generate_stream"), ENSEMBLE)).events()
            assert "".join(event["text_output"] for event in events) == whole
            assert {"batch_index", "sequence_end", "output_log_probs"} <= events[0].keys()
            assert events[0]["model_name"] == "ensemble"
        async with ensemble(output="cumulative", model_name="tensorrt_llm_bls") as bls:
            events = (await post(bls, path("tensorrt_llm_bls", "generate_stream"), ENSEMBLE)).events()
            assert events[-1]["text_output"] == whole

    asyncio.run(run())


def test_whole_answers() -> None:
    """`generate` gives one object, also under its version; without streaming a stream is one event."""

    async def run() -> None:
        async with llmapi() as triton:
            asked = {**LLMAPI, "streaming": False, "return_finish_reason": True}
            reply = await post(triton, path("tensorrt_llm", "generate"), asked)
            assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
            assert reply.json()["finish_reason"] == "length"
            versioned = await post(triton, path("tensorrt_llm", "versions/1/generate"), asked)
            assert versioned.body == reply.body
            (event,) = (await post(triton, path("tensorrt_llm", "generate_stream"), asked)).events()
            assert event == reply.json()
            no_limit = {"text_input": "Hi!", "sampling_param_temperature": 0.0}
            default = await post(triton, path("tensorrt_llm", "generate"), no_limit)
            assert default.json()["text_output"].startswith(reply.json()["text_output"])

    asyncio.run(run())


def test_several_responses_do_not_fit_a_whole_answer() -> None:
    """The status came with the first response, so the error has 200."""

    async def run() -> None:
        async with llmapi() as triton:
            reply = await post(triton, path("tensorrt_llm", "generate"), LLMAPI)
            assert reply.status == 200
            assert reply.json()["error"].startswith("generate expects model to produce exactly 1 response")

    asyncio.run(run())


def test_the_prompt_in_the_answer() -> None:
    """The ensemble repeats it unless told not to, llmapi only if told to."""

    async def run() -> None:
        async with ensemble() as triton:
            asked = {**ENSEMBLE, "stream": False}
            bare = (await post(triton, path("ensemble", "generate"), asked)).json()["text_output"]
            del asked["exclude_input_in_output"]
            assert (await post(triton, path("ensemble", "generate"), asked)).json()[
                "text_output"
            ] == "Hi!" + bare
            asked["stream"] = True
            events = (await post(triton, path("ensemble", "generate_stream"), asked)).events()
            assert "".join(event["text_output"] for event in events) == "Hi!" + bare
        async with llmapi() as triton:
            asked = {**LLMAPI, "sampling_param_exclude_input_from_output": False}
            events = (await post(triton, path("tensorrt_llm", "generate_stream"), asked)).events()
            assert all(event["text_output"].startswith("Hi!") for event in events)

    asyncio.run(run())


def test_request_ids() -> None:
    """Given in a header or in the body, returned as `id`; otherwise there is none."""

    async def run() -> None:
        async with llmapi() as triton:
            generate = path("tensorrt_llm", "generate_stream")
            for body, headers in ((LLMAPI, {"triton-request-id": "r-1"}), ({**LLMAPI, "id": "r-1"}, {})):
                events = (await post(triton, generate, body, headers)).events()
                assert {event["id"] for event in events} == {"r-1"}
            assert "id" not in (await post(triton, generate, LLMAPI)).events()[0]

    asyncio.run(run())


def test_performance_outputs() -> None:
    """With the last event: reused and missed blocks, and times whose differences mean something."""

    async def run() -> None:
        async with llmapi() as triton:
            asked = {**LLMAPI, "text_input": "x" * 300, "sampling_param_return_perf_metrics": True}
            for reused in (0, 3):
                *earlier, last = (await post(triton, path("tensorrt_llm", "generate_stream"), asked)).events()
                assert not any("kv_cache_hit_rate" in event for event in earlier)
                assert (last["kv_cache_reused_block"], last["kv_cache_missed_block"]) == (reused, 3 - reused)
                assert last["kv_cache_hit_rate"] == reused / 3
                assert last["arrival_time_ns"] <= last["first_scheduled_time_ns"] < last["last_token_time_ns"]

    asyncio.run(run())


def test_the_load_report_header() -> None:
    """On whole answers and on streams, in the format that the request names."""

    async def run() -> None:
        async with llmapi() as triton:
            wanted = {"endpoint-load-metrics-format": "text"}
            stream = await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI, wanted)
            assert stream.headers["endpoint-load-metrics"].endswith("named_metrics.max_token_capacity=420000")
            wanted = {"endpoint-load-metrics-format": "json"}
            whole = await post(
                triton, path("tensorrt_llm", "generate"), {**LLMAPI, "streaming": False}, wanted
            )
            report = json.loads(whole.headers["endpoint-load-metrics"].removeprefix("JSON "))
            assert report["named_metrics"]["max_token_capacity"] == 420_000

    asyncio.run(run())


def test_stop_words_and_seeds() -> None:
    """Stop words end the text, seeds change it."""

    async def run() -> None:
        async with llmapi() as triton:
            generate = path("tensorrt_llm", "generate")
            asked = {**LLMAPI, "streaming": False, "return_finish_reason": True, "return_stop_reason": True}
            text = (await post(triton, generate, asked)).json()["text_output"]
            stop = text.split(" ")[3]
            stopped = (await post(triton, generate, {**asked, "sampling_param_stop": [stop]})).json()
            assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", stop)
            sampled = {**asked, "sampling_param_temperature": 1.0}
            texts = [
                (await post(triton, generate, {**sampled, "sampling_param_seed": seed})).json()["text_output"]
                for seed in (1, 1, 2)
            ]
            assert texts[0] == texts[1] != texts[2]

    asyncio.run(run())
