"""The Triton dialect on real sockets: two layouts, a status decided by the first response, cancelling by id."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

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
        async with llmapi(speed=20) as triton:
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
        async with llmapi(speed=20, metrics_interval_s=0) as triton:
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
            await until(lambda: triton.core.stats().running == 0)
            await post(triton, path("tensorrt_llm", "generate_stream"), LLMAPI)
            text = (await get(triton, "/metrics", "metrics")).text
            assert 'nv_inference_request_success{model="tensorrt_llm",version="1"} 1\n' in text
            assert 'nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} 114\n' in text
            assert 'reason="CANCELED"' in text
            assert "_total{" not in text

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
