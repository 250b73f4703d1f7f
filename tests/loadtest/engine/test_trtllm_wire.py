"""trtllm-serve's bytes against the golden files: same ids, times, words and numbers give the same bytes."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from loadtest.engine import trtllm_events_wire as events
from loadtest.engine import trtllm_metrics_wire as metrics
from loadtest.engine import trtllm_wire as wire
from loadtest.engine.exposition_wire import PYTHON, Family, Histogram, Labels, Value, exposition
from loadtest.engine.stats import Stats, StepRecord

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm"
CREATED = 1787000000
TIMING = wire.server_timing(0.00125, 0.0085, 0.024)
STARTED = wire.start_end_time(12345.123456, 12345.147456)
STATS = Stats(
    running=7,
    waiting=2,
    running_max_tokens=0,
    max_num_seqs=64,
    blocks_total=8192,
    blocks_used=3072,
    block_size=32,
    blocks_reused=2213,
    blocks_missed=1400,
    blocks_allocated=2210,
    prefix_query_tokens=0,
    prefix_hit_tokens=0,
    prompt_tokens=901120,
    computed_prompt_tokens=0,
    generation_tokens=204800,
    preemptions=0,
    steps=8842,
    finished={},
    busy_s=0.0,
)
STEP = StepRecord(
    number=8841,
    ended_s=0.0,
    latency_s=0.01425,
    context_requests=1,
    context_tokens=512,
    generation_requests=6,
    new_tokens=7,
    new_active=1,
    new_active_queue_s=0.0015,
    paused=0,
    completed=1,
)


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def role() -> bytes:
    choice = wire.ChunkChoice(0, wire.Delta(role="assistant"))
    return wire.first_frame(
        wire.ChatChunk(id="chatcmpl-17", created=CREATED, model="demo-8b", choices=(choice,))
    )


def chat(content: str, finish_reason: str | msgspec.UnsetType = msgspec.UNSET) -> bytes:
    choice = wire.ChunkChoice(
        0, wire.Delta(content=content, reasoning_content=""), finish_reason=finish_reason
    )
    return wire.frame(wire.ChatChunk(id="chatcmpl-17", created=CREATED, model="demo-8b", choices=(choice,)))


def chat_stream() -> bytes:
    usage = wire.ChatChunk(id="chatcmpl-17", created=CREATED, model="demo-8b", usage=wire.usage(11, 3, 0))
    return role() + chat("Hello") + chat(" there") + chat("", "stop") + wire.frame(usage) + wire.DONE


def text(content: str, finish_reason: str | None = None) -> bytes:
    choice = wire.TextChunkChoice(0, content, finish_reason=finish_reason)
    return wire.frame(wire.TextChunk(id="cmpl-17", created=CREATED, model="demo-8b", choices=(choice,)))


def test_chat_stream() -> None:
    """A space after the role chunk, missing keys instead of nulls, cached tokens in the usage."""
    assert chat_stream() == fixture("chat_stream_include_usage.sse")


def test_trailer_after_done() -> None:
    """A named event follows `[DONE]` when metrics were asked for."""
    stream = chat_stream() + wire.perf_trailer(TIMING, STARTED)
    assert stream == fixture("chat_stream_perf_trailer_after_done.sse")


def test_a_broken_chat_stream_just_ends() -> None:
    """No error event and no `[DONE]`."""
    assert role() + chat("Hello") == fixture("chat_stream_truncated_by_error.sse")


def test_completions_stream() -> None:
    """Every null is written."""
    assert text("Hello") + text(" there") + text("", "stop") + wire.DONE == fixture("completions_stream.sse")


def test_a_broken_completions_stream_says_done_twice() -> None:
    """The error has the spaces of `json.dumps`."""
    stream = text("Hello") + b"".join(wire.error_frames("Internal server error"))
    assert stream == fixture("completions_stream_midstream_error_double_done.sse")


def test_whole_answers_write_their_nulls() -> None:
    """Unlike chunks, whole answers are full dumps."""
    choice = wire.ChatChoice(0, wire.Message("assistant", "Hello"), finish_reason="stop")
    answer = wire.ChatAnswer(
        id="chatcmpl-17", created=CREATED, model="demo-8b", choices=(choice,), usage=wire.usage(11, 1, 4)
    )
    assert msgspec.json.encode(answer) == (
        b'{"id":"chatcmpl-17","object":"chat.completion","created":1787000000,"model":"demo-8b","choices":'
        b'[{"index":0,"message":{"role":"assistant","content":"Hello","reasoning_content":null,'
        b'"reasoning":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null,'
        b'"mm_embedding_handle":null,"disaggregated_params":null,"avg_decoded_tokens_per_iter":null}],'
        b'"usage":{"prompt_tokens":11,"total_tokens":12,"completion_tokens":1,'
        b'"prompt_tokens_details":{"cached_tokens":4}},"prompt_token_ids":null}'
    )


def test_errors() -> None:
    """Validation answers with a string, everything else with a flat object."""
    known = {entry["case"]: entry.get("body") for entry in json.loads(fixture("errors.json"))}
    flat = wire.FlatError(message="...")
    assert msgspec.to_builtins(flat) == known["any exception in the handler, context too long included"]
    assert msgspec.json.encode(flat) == (
        b'{"object":"error","message":"...","type":"BadRequestError","param":null,"code":400}'
    )
    assert known["health, dead, newest"] == wire.UNAVAILABLE


def test_iteration_records() -> None:
    """Two steps give the golden array, keys in alphabetical order."""
    later = replace(
        STEP,
        number=8842,
        context_requests=0,
        context_tokens=0,
        generation_requests=7,
        new_active=0,
        completed=0,
    )
    when = datetime(2026, 8, 17, 10, 13, 20, 140189)  # noqa: DTZ001  the engine writes local time without a zone
    records = [metrics.iteration(step, STATS, 8192, when) for step in (STEP, later)]
    given = json.loads(fixture("metrics_iteration_stats.json"))
    for record in given:
        record["kvCacheStats"]["cacheHitRate"] = 2213 / (2213 + 1400)
        record["newActiveRequestsQueueLatencyMS"] = 1.5
    assert msgspec.json.encode(records) == json.dumps(given, separators=(",", ":")).encode()
    assert list(given[0]) == sorted(given[0])


def test_no_iterations_is_an_empty_array() -> None:
    """Before the first request and when idle."""
    assert msgspec.json.encode([]) == fixture("metrics_empty.json")


COMMON: Labels = (("engine_type", "pytorch"), ("model_name", "demo-8b"))


def family(name: str, value: Value, labels: Labels = COMMON) -> Family:
    known = metrics.REQUESTS_2026 if name.startswith("trtllm_") else metrics.REQUESTS_2025
    about = "queue time" if name == "trtllm_request_queue_time_seconds" else known[name].about
    return Family(name, known[name].kind, about, ((labels, value),))


def test_prometheus_of_2026() -> None:
    """Prefixed names, filled labels in alphabetical order, every number a float."""
    values: dict[str, Value] = {
        "num_requests_running": 7,
        "num_requests_waiting": 2,
        "max_num_active_requests": 64,
        "kv_cache_utilization": 0.375,
        "kv_cache_hit_rate": 0.6125,
        "kv_cache_max_blocks": 8192,
        "kv_cache_used_blocks": 3072,
        "kv_cache_free_blocks": 5120,
        "kv_cache_tokens_per_block": 32,
        "kv_cache_reused_blocks_total": 2213,
        "kv_cache_missed_blocks_total": 1400,
        "prompt_tokens_total": 901120,
        "prompt_cached_tokens_total": 612352,
        "generation_tokens_total": 204800,
        "request_queue_time_seconds": Histogram(((0.5, 840), (float("inf"), 851)), 73.5, 851),
    }
    families = [family(f"trtllm_{name}", value) for name, value in values.items()]
    assert exposition(families, PYTHON) == fixture("prometheus_2026.prom")


def test_prometheus_of_2025() -> None:
    """Unprefixed names, labels that nobody filled in."""
    undefined: Labels = (("model_name", "undefined"), ("engine_type", "undefined"))
    queue = Histogram(((0.3, 840), (float("inf"), 851)), 73.5, 851)
    families = [
        family("request_success_total", 851, (*undefined, ("finished_reason", "stop"))),
        family("request_queue_time_seconds", queue, undefined),
    ]
    assert exposition(families, PYTHON) == fixture("prometheus_2025.prom")


def test_gauges_come_from_the_last_iteration() -> None:
    """Every gauge has a value, and the ratios are right."""
    record = metrics.iteration(STEP, STATS, 8192, datetime(2026, 8, 17))  # noqa: DTZ001
    values = metrics.gauges(record)
    assert values.keys() == metrics.GAUGES.keys()
    assert values["kv_cache_utilization"] == 0.375
    assert values["num_scheduled_requests"] == 7
    assert values["iteration_latency_seconds"] == pytest.approx(0.01425)


@pytest.mark.parametrize(("chain", "lora_task_id"), [("plain", None), ("lora_task_id=7", 7)])
def test_block_hashes(chain: str, lora_task_id: int | None) -> None:
    """Our `v1_block_key` gives the published vectors."""
    vectors = json.loads(fixture("hash_vectors_v1_block_key.json"))
    tokens, size = vectors["token_ids"], vectors["tokens_per_block"]
    parent = None
    for at, expected in enumerate(vectors["chains"][chain]):
        parent = events.block_key(tokens[at * size : (at + 1) * size], parent, lora_task_id)
        assert parent == expected


def test_kv_events() -> None:
    """Created, stored, updated, removed, byte for byte."""
    tokens = range(100, 164)
    first = events.block_key(tokens[:32])
    second = events.block_key(tokens[32:], first)
    blocks = (events.stored_block(first, tokens[:32]), events.stored_block(second, tokens[32:]))
    data: tuple[events.Data, ...] = (
        events.Created((8192, 0)),
        events.Stored(None, blocks),
        events.Updated(first, None, events.Diff(80, events.PRIORITY)),
        events.Removed((second,)),
    )
    array = [events.Event(number, one, 131072) for number, one in enumerate(data)]
    assert msgspec.json.encode(array) == fixture("kv_cache_events.json")
