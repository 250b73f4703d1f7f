"""Triton's health, metadata, metrics and cancelling on real sockets, and what it does not notice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import call, engine, get, opened, post, read_chunk, until

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


def test_cancelling_by_id() -> None:
    """`stop: true` ends the request with the same id; it is answered with an error itself."""

    async def run() -> None:
        async with llmapi(speed=20) as triton:
            stream = path("tensorrt_llm", "generate_stream")
            asked = {**LLMAPI, "sampling_param_max_tokens": 4000, "return_finish_reason": True}
            order = {"text_input": "", "stop": True}
            header = {"triton-request-id": "r-1"}
            triton.core.stall()
            async with asyncio.TaskGroup() as group:
                running = group.create_task(post(triton, stream, asked, header))
                await until(lambda: triton.core.stats().waiting)
                reply = await post(triton, path("tensorrt_llm", "generate"), order, header)
            assert (reply.status, reply.json()) == (400, {"error": "Request cancelled by client"})
            assert running.result().events()[-1]["finish_reason"] == "cancelled"
            assert triton.core.stats().waiting == 0
            nameless = await post(triton, path("tensorrt_llm", "generate"), order)
            assert nameless.status == 500
            assert "request id must be provided" in nameless.json()["error"]
            framed = await post(triton, stream, {**order, "id": "gone"})
            assert (framed.status, framed.events()) == (400, [{"error": "Request cancelled by client"}])

    asyncio.run(run())


def test_cancelling_a_whole_answer() -> None:
    """The request that waits for it gets the error, too."""

    async def run() -> None:
        async with ensemble() as triton:
            generate = path("ensemble", "generate")
            triton.core.stall()
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(
                    post(triton, generate, {**ENSEMBLE, "stream": False, "id": "r-1"})
                )
                await until(lambda: triton.core.stats().waiting)
                await post(triton, generate, {"text_input": "", "stop": True, "id": "r-1"})
            assert (waiting.result().status, waiting.result().json()) == (
                400,
                {"error": "Request cancelled by client"},
            )

    asyncio.run(run())


def test_a_client_that_leaves_a_whole_answer_is_not_noticed() -> None:
    """The generation runs to its end; in a stream the next write notices."""

    async def run() -> None:
        async with llmapi(speed=2) as triton:
            for action, streaming in (("generate", False), ("generate_stream", True)):
                asked = {
                    **LLMAPI,
                    "text_input": "Tell me",
                    "sampling_param_max_tokens": 4000,
                    "streaming": streaming,
                }
                before = dict(triton.core.stats().finished)
                _, writer = await asyncio.open_connection(triton.host, triton.port)
                body = json.dumps(asked).encode()
                head = f"POST {path('tensorrt_llm', action)} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await until(lambda: triton.core.stats().running)
                writer.close()
                await until(lambda: triton.core.stats().running == 0)
                finished = triton.core.stats().finished
                ended = {reason for reason in finished if finished[reason] > before[reason]}
                assert ended == ({"abort"} if streaming else {"stop"})
                assert (triton.log[-1].noticed_s is not None) == streaming

    asyncio.run(run())


def test_health() -> None:
    """Live while the server lives; not ready is 400 with an empty body."""

    async def run() -> None:
        async with llmapi() as triton:
            ready = ("/v2/health/ready", path("tensorrt_llm", "ready"))
            for one in ("/v2/health/live", *ready, path("tensorrt_llm", "versions/1/ready")):
                assert ((await get(triton, one)).status, (await get(triton, one)).body) == (200, b"")
            assert (await get(triton, path("nope", "ready"))).status == 404
            triton.core.kill()
            assert ((await get(triton, ready[0])).status, (await get(triton, ready[0])).body) == (400, b"")
            assert (await get(triton, ready[1])).json() == {"error": "Model version not ready"}
            assert (await get(triton, "/v2/health/live")).status == 200
            refused = await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI)
            assert refused.status == 500
            triton.core.revive()
            triton.faults.set("health_down")
            assert ((await get(triton, ready[0])).status, (await get(triton, ready[0])).body) == (400, b"")

    asyncio.run(run())


def test_metadata() -> None:
    """The server, its model, the configuration, the statistics and the repository."""

    async def run() -> None:
        async with llmapi() as triton:
            server = (await get(triton, "/v2")).json()
            assert server["name"] == "triton"
            assert "model_repository" in server["extensions"]
            model = (await get(triton, "/v2/models/tensorrt_llm")).json()
            assert model["versions"] == ["1"]
            assert {"name": "text_input", "datatype": "BYTES", "shape": [-1, 1]} in model["inputs"]
            config = (await get(triton, path("tensorrt_llm", "config"))).json()
            assert config["model_transaction_policy"] == {"decoupled": True}
            assert config["max_batch_size"] == 64
            await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI)
            for one in (path("tensorrt_llm", "stats"), "/v2/models/stats"):
                (stats,) = (await get(triton, one)).json()["model_stats"]
                assert stats["inference_count"] == 1
                assert stats["inference_stats"]["success"]["ns"] > stats["inference_stats"]["queue"]["ns"] > 0
            index = await call(triton, "POST", "/v2/repository/index", b"", {})
            assert index.json() == [{"name": "tensorrt_llm", "version": "1", "state": "READY", "reason": ""}]

    asyncio.run(run())


def test_metrics_have_a_port_of_their_own() -> None:
    """Microseconds, no `_total`, gauges by label, and the GPU's utilisation; nothing on the main port."""

    async def run() -> None:
        async with llmapi(speed=2, metrics_interval_s=0) as triton:
            assert (await get(triton, "/metrics")).status == 404
            await get(triton, "/metrics", "metrics")
            asked = {**LLMAPI, "sampling_param_max_tokens": 4000, "text_input": "Tell me " * 40}
            body = json.dumps(asked).encode()
            async with opened(triton, "POST", path("tensorrt_llm", "generate_stream"), body, JSON) as (
                _,
                reader,
                __,
            ):
                assert await read_chunk(reader)
                steps = triton.core.stats().steps
                await until(lambda: triton.core.stats().steps > steps + 5)
                triton.core.stall()
                busy = (await get(triton, "/metrics", "metrics")).text.splitlines()
            assert (
                'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 1' in busy
            )
            assert (
                'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 1'
                in busy
            )
            used = 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} '
            assert next(int(line.removeprefix(used)) for line in busy if line.startswith(used)) >= 4
            (load,) = (line for line in busy if line.startswith("nv_gpu_utilization"))
            assert 0 < float(load.split()[-1]) <= 1
            triton.core.resume()
            await until(lambda: triton.core.stats().running == 0)
            await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI)
            text = (await get(triton, "/metrics", "metrics")).text
            assert 'nv_inference_request_success{model="tensorrt_llm",version="1"} 1\n' in text
            assert 'nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} 114\n' in text
            assert 'reason="CANCELED"' in text
            assert "_total{" not in text

    asyncio.run(run())
