"""How Triton refuses and fails on real sockets: the first response decides the status."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import engine, get, post, until

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


def test_requests_that_are_refused() -> None:
    """Unknown models 404, wrong methods 405, missing and mistyped inputs 400."""

    async def run() -> None:
        async with ensemble() as triton:
            unknown = await post(triton, path("nope", "generate"), ENSEMBLE)
            assert (unknown.status, unknown.json()) == (
                404,
                {"error": "Request for unknown model: 'nope' is not found"},
            )
            assert (await post(triton, path("ensemble", "versions/2/generate"), ENSEMBLE)).status == 404
            wrong = await get(triton, path("ensemble", "generate"))
            assert (wrong.status, wrong.json()) == (405, {"error": "Method Not Allowed"})
            assert (await get(triton, "/v3")).json() == {"error": "Not Found"}
            for fields, said in (
                ({"text_input": "a"}, "missing required input(s) ['max_tokens']"),
                ({**ENSEMBLE, "unknown": [1]}, "parameter 'unknown' has invalid type"),
                ({**ENSEMBLE, "max_tokens": "5"}, "Unable to parse 'max_tokens'"),
                (b"{", "failed to parse the request JSON buffer"),
            ):
                reply = await post(triton, path("ensemble", "generate_stream"), fields)
                assert reply.status == 400
                assert said in reply.json()["error"]
            misspelt = {**ENSEMBLE, "max_token": 1, "stream": False}
            assert (await post(triton, path("ensemble", "generate"), misspelt)).status == 200

    asyncio.run(run())


@pytest.mark.parametrize(("layout", "status"), [("ensemble", 400), ("llmapi", 500)])
def test_errors_as_the_first_response(layout: str, status: int) -> None:
    """They decide the status; a stream request gets them framed all the same."""

    async def run() -> None:
        async with engine("triton", max_model_len=128, extra={"layout": layout}) as triton:
            model, asked = ("ensemble", ENSEMBLE) if layout == "ensemble" else ("tensorrt_llm", LLMAPI)
            asked = {**asked, "text_input": "x" * 1000}
            streamed = await post(triton, path(model, "generate_stream"), asked)
            assert (streamed.status, streamed.headers["content-type"]) == (
                status,
                "text/event-stream; charset=utf-8",
            )
            assert "should not exceed" in streamed.events()[0]["error"]
            whole = await post(triton, path(model, "generate"), asked)
            assert (whole.status, whole.json()) == (status, streamed.events()[0])

    asyncio.run(run())


def test_a_model_that_is_not_decoupled() -> None:
    """It cannot stream."""

    async def run() -> None:
        async with llmapi(decoupled=False) as triton:
            reply = await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI)
            assert reply.status == 500
            assert "Streaming is only supported in decoupled mode." in reply.events()[0]["error"]
            whole = {**LLMAPI, "streaming": False}
            assert (await post(triton, path("tensorrt_llm", "generate_stream"), whole)).status == 200

    asyncio.run(run())


def test_scripted_errors() -> None:
    """After the first response an error is one more event inside 200; before it, the status is 500."""

    async def run() -> None:
        async with llmapi() as triton:
            stream, whole = path("tensorrt_llm", "generate_stream"), path("tensorrt_llm", "generate")
            broken = await post(triton, stream, LLMAPI, {"x-fault": "error@2"})
            assert (broken.status, broken.whole) == (200, True)
            assert broken.events()[-1] == {"error": "Error generating request: Internal server error"}
            failed = await post(triton, whole, {**LLMAPI, "streaming": False}, {"x-fault": "error@2"})
            assert (failed.status, failed.json()) == (500, broken.events()[-1])
            triton.core.stall()
            async with asyncio.TaskGroup() as group:
                early = group.create_task(post(triton, stream, LLMAPI))
                await until(lambda: triton.core.stats().waiting)
                triton.core.kill("the engine died")
            assert early.result().status == 500
            assert early.result().events() == [{"error": "Error generating request: the engine died"}]
            status = await post(triton, stream, LLMAPI, {"x-fault": "status=503"})
            assert (status.status, status.json().keys()) == (503, {"error"})

    asyncio.run(run())


def test_the_queue_limit() -> None:
    """503 from so many waiting requests on; without the option there is no limit."""

    async def run() -> None:
        async with llmapi(max_queue_size=1) as triton:
            triton.core.stall()
            stream = path("tensorrt_llm", "generate_stream")
            async with asyncio.TaskGroup() as group:
                group.create_task(post(triton, stream, LLMAPI))
                await until(lambda: triton.core.stats().waiting)
                full = await post(triton, stream, LLMAPI)
                triton.core.resume()
            assert (full.status, full.json()) == (503, {"error": "Exceeds maximum queue size"})
            text = (await get(triton, "/metrics", "metrics")).text
            assert (
                'nv_inference_request_failure{model="tensorrt_llm",reason="REJECTED",version="1"} 1\n' in text
            )

    asyncio.run(run())
