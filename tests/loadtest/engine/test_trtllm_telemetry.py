"""trtllm-serve's readings on real sockets: they take out what they read, and some of it is stale."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_client import engine, get, opened, post, read_chunk, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm"
CHAT: dict[str, Any] = {
    "model": "anything",
    "messages": [{"role": "user", "content": "Hi!"}],
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}


def test_iteration_records_are_taken_out_by_reading() -> None:
    """Nothing at first, then everything since; the reader waits for a first record, but not for ever."""

    async def run() -> None:
        async with engine("trtllm", extra={"metrics_patience_s": 0.05}) as trtllm:
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert (await get(trtllm, "/metrics")).body == (FIXTURES / "metrics_empty.json").read_bytes()
            assert loop.time() - began > 0.04
            await post(trtllm, "/v1/chat/completions", CHAT)
            records = (await get(trtllm, "/metrics")).json()
            golden = json.loads((FIXTURES / "metrics_iteration_stats.json").read_bytes())[0]
            assert [list(record) for record in records] == [list(golden)] * len(records)
            assert [record["iter"] for record in records] == list(range(1, len(records) + 1))
            assert sum(record["inflightBatchingStats"]["numGenRequests"] for record in records) == 5
            assert sum(record["numCompletedRequests"] for record in records) == 1
            assert (await get(trtllm, "/metrics")).json() == []

    asyncio.run(run())


def test_a_waiting_reader_gets_the_first_records() -> None:
    """The reading blocks until something completes."""

    async def run() -> None:
        async with engine("trtllm", extra={"metrics_patience_s": 5}) as trtllm:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(get(trtllm, "/metrics"))
                await until(lambda: len(trtllm.log))
                await post(trtllm, "/v1/chat/completions", CHAT)
            assert len(reading.result().json()) >= 1

    asyncio.run(run())


def test_records_and_gauges_wait_for_a_completion() -> None:
    """While only long streams run, `/metrics` is empty and the gauges say what they said before."""

    async def run() -> None:
        async with engine("trtllm", speed=5, extra={"metrics_patience_s": 0}) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 7000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers) as (_, reader, __):
                assert await read_chunk(reader)
                await until(lambda: trtllm.core.stats().steps > 5)
                assert (await get(trtllm, "/metrics")).json() == []
                assert b"num_requests_running" not in (await get(trtllm, "/prometheus/metrics")).body
                await post(trtllm, "/v1/chat/completions", CHAT)
                assert len((await get(trtllm, "/metrics")).json()) > 5
                stale = (await get(trtllm, "/prometheus/metrics")).body
                assert (
                    b'trtllm_num_requests_running{engine_type="pytorch",model_name="demo-8b"} 1.0\n' in stale
                )

    asyncio.run(run())


def test_records_without_the_collector_come_at_once() -> None:
    """Without `return_perf_metrics` there is no Prometheus path, and nobody holds records back."""

    async def run() -> None:
        async with engine("trtllm", speed=20, extra={"return_perf_metrics": False}) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 7000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers):
                assert len((await get(trtllm, "/metrics")).json()) >= 1
            assert (await get(trtllm, "/prometheus/metrics")).status == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    ("snapshot", "present", "absent"),
    [
        (
            "new",
            [
                'trtllm_request_success_total{engine_type="pytorch",finished_reason="length",model_name="demo-8b"} 2.0',
                'trtllm_generation_tokens_total{engine_type="pytorch",model_name="demo-8b"} 12.0',
                'trtllm_prompt_cached_tokens_total{engine_type="pytorch",model_name="demo-8b"} 96.0',
                'trtllm_request_queue_time_seconds_count{engine_type="pytorch",model_name="demo-8b"} 2.0',
                'trtllm_kv_cache_reused_blocks_total{engine_type="pytorch",model_name="demo-8b"} 3.0',
                'trtllm_kv_cache_hit_rate{engine_type="pytorch",model_name="demo-8b"} 0.5',
            ],
            ["\nrequest_success_total"],
        ),
        (
            "mid",
            [
                'request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 2.0',
                'trtllm_kv_cache_hit_rate{engine_type="undefined",model_name="undefined"} 0.5',
            ],
            ["trtllm_num_requests_running", "trtllm_request_success_total"],
        ),
        (
            "old",
            [
                'request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 2.0',
                'e2e_request_latency_seconds_bucket{engine_type="undefined",le="+Inf",model_name="undefined"} 2.0',
            ],
            ["trtllm_"],
        ),
    ],
)
def test_prometheus_names(snapshot: str, present: list[str], absent: list[str]) -> None:
    """Three sets of names and labels."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": snapshot}) as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}]}
            for _ in range(2):
                await post(trtllm, "/v1/chat/completions", asked)
            text = (await get(trtllm, "/prometheus/metrics")).text
            assert set(present) <= set(text.splitlines())
            assert not any(name in text for name in absent)

    asyncio.run(run())


def test_perf_records() -> None:
    """Older servers keep one per request, until it is read."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": "mid"}) as trtllm:
            await post(trtllm, "/v1/chat/completions", CHAT)
            (record,) = (await get(trtllm, "/perf_metrics")).json()
            timing = record["perf_metrics"]["timing_metrics"]
            assert timing["arrival_time"] <= timing["first_scheduled_time"] <= timing["first_token_time"]
            assert (record["perf_metrics"]["first_iter"], record["perf_metrics"]["last_iter"]) == (1, 6)
            assert record["perf_metrics"]["kv_cache_metrics"]["num_new_allocated_blocks"] == 1
            assert (await get(trtllm, "/perf_metrics")).json() == []

    asyncio.run(run())
