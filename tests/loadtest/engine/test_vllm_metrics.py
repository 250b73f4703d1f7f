import asyncio
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import engine, get, post, until
from tests.support.wire import recorded

BODY = {"prompt": "Tell me something long about the sea. " * 4, "max_tokens": 5, "ignore_eos": True}
Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(text: str) -> dict[Sample, float]:
    """Every sample by name and labels."""
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def kinds(text: str) -> dict[str, str]:
    """Type by family, as the TYPE lines say."""
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE ")]
    return {name: kind for _, _, name, kind in lines}


async def scraped(running: RunningEngine) -> dict[Sample, float]:
    return samples((await get(running, "/metrics")).text)


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    wanted = frozenset({"engine": "0", "model_name": "demo-8b", **labels}.items())
    return found[(f"vllm:{name}", wanted)]


def exposed(**extra: Any) -> str:
    """The text of a replica after two equal requests."""

    async def main() -> str:
        async with engine("vllm", extra=extra) as running:
            for _ in range(2):
                await post(running, "/v1/completions", BODY)
            return (await get(running, "/metrics")).text

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("fixture", "extra"),
    [
        ("vllm/metrics_v0.27.prom", {}),
        ("vllm/metrics_legacy_v0.9-0.11.prom", {"legacy_metrics": True}),
        ("vllm-recorded/metrics.prom", {}),
    ],
)
def test_names_kinds_help_and_labels_are_the_recorded_ones(fixture: str, extra: dict[str, Any]) -> None:
    """Every family of the recording is there with its type and help line, its labels and its buckets."""
    text, documented = exposed(**extra), recorded(fixture).decode()
    absent = [line for line in _comments(documented) if line not in _comments(text)]
    assert [line for line in absent if not _OTHERS.match(line)] == []
    names = {_form(*one) for one in samples(text)}
    wanted = {_form(*one) for one in samples(documented)}
    assert {one for one in wanted - names if not _OTHERS.match(f"# TYPE {one[0]}")} == set()


_OTHERS = re.compile(
    r"# (TYPE|HELP) (vllm:(estimated_|request_params_n|request_max_num_generation|cache_config_info|"
    r"prompt_tokens_cached_by_source)|python_|process_|http_)"
)
"""Left out: what belongs to the process or to the HTTP framework, estimates, and a few details."""


def _comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def _form(name: str, labels: frozenset[tuple[str, str]]) -> tuple[str, frozenset[str]]:
    """Name, label names, and the labels whose values belong to the protocol."""
    fixed = {
        f"{key}={value}" for key, value in labels if key in ("le", "reason", "source", "finished_reason")
    }
    long = name.endswith("_bucket") and "tokens" in name
    return name, frozenset({key for key, _ in labels} | (set() if long else fixed))


def test_counters_follow_the_work() -> None:
    """Two equal requests: tokens, hits, sources and reasons add up."""
    found = samples(exposed())
    prompt = value(found, "prompt_tokens_total") / 2
    hits = value(found, "prefix_cache_hits_total")
    assert value(found, "prefix_cache_queries_total") == 2 * prompt
    assert 0 < hits == (prompt - 1) // 16 * 16
    assert value(found, "prompt_tokens_by_source_total", source="local_compute") == 2 * prompt - hits
    assert value(found, "prompt_tokens_by_source_total", source="local_cache_hit") == hits
    assert value(found, "prompt_tokens_cached_total") == hits
    assert value(found, "generation_tokens_total") == 10
    assert value(found, "request_success_total", finished_reason="length") == 2
    assert value(found, "request_queue_time_seconds_count") == 2
    assert value(found, "time_to_first_token_seconds_count") == 2
    assert value(found, "inter_token_latency_seconds_count") == 8
    assert value(found, "iteration_tokens_total_sum") == 2 * prompt - hits + 10
    assert (
        value(found, "e2e_request_latency_seconds_sum") > value(found, "request_decode_time_seconds_sum") > 0
    )


def test_iteration_tokens_is_a_histogram() -> None:
    """In spite of its name."""
    assert kinds(exposed())["vllm:iteration_tokens_total"] == "histogram"


def test_gauges_show_what_runs_and_waits() -> None:
    """Running, waiting and cache usage while requests are there; nothing afterwards."""

    async def main() -> None:
        async with engine("vllm", speed=2.0, max_num_seqs=1, num_blocks=600) as running:
            body = {**BODY, "max_tokens": 400}
            asked = [asyncio.create_task(post(running, "/v1/completions", body)) for _ in range(3)]
            await until(lambda: running.core.stats().waiting == 2)
            running.core.stall()
            busy = await scraped(running)
            assert value(busy, "num_requests_running") == 1
            assert value(busy, "num_requests_waiting") == 2
            assert value(busy, "num_requests_waiting_by_reason", reason="capacity") == 2
            held = value(busy, "kv_cache_usage_perc")
            assert 0 < held == running.core.stats().blocks_used / 600
            running.core.slowdown = 0.01
            running.core.resume()
            await asyncio.gather(*asked)
            idle = await scraped(running)
            assert value(idle, "num_requests_running") == value(idle, "kv_cache_usage_perc") == 0

    asyncio.run(main())


def test_heartbeat_stands_still_while_hung() -> None:
    """The count of steps is how a hung engine is told from a busy one."""

    async def main() -> None:
        async with engine("vllm") as running:
            await post(running, "/v1/completions", BODY)
            running.core.stall()
            waiting = asyncio.create_task(post(running, "/v1/completions", BODY))
            await until(lambda: running.core.stats().waiting == 1)
            first = value(await scraped(running), "iteration_tokens_total_count")
            assert value(await scraped(running), "iteration_tokens_total_count") == first > 0
            running.core.resume()
            await waiting
            assert value(await scraped(running), "iteration_tokens_total_count") > first

    asyncio.run(main())


def test_infos() -> None:
    """Cache configuration as labels, adapters only where there are some."""

    async def main() -> None:
        async with engine("vllm", num_blocks=700, block_size=32, loras=("a",)) as running:
            found = await scraped(running)
            infos = {name: dict(labels) for name, labels in found if name.endswith("_info")}
            assert infos["vllm:cache_config_info"]["num_gpu_blocks"] == "700"
            assert infos["vllm:cache_config_info"]["block_size"] == "32"
            assert set(infos["vllm:lora_requests_info"]) == {
                "max_lora",
                "running_lora_adapters",
                "waiting_lora_adapters",
            }
        async with engine("vllm") as running:
            assert "lora" not in (await get(running, "/metrics")).text.replace("LoRA", "")

    asyncio.run(main())
