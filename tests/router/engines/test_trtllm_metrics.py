import pytest

from router.engines.engine import ReplicaLoad
from router.engines.trtllm_metrics import TrtllmTelemetry
from tests.support.wire import recorded

TEXT = "/prometheus/metrics"


def load(content: bytes, **options: float) -> ReplicaLoad:
    return TrtllmTelemetry(**options).load_from(TEXT, content)


def test_everything_a_present_release_says() -> None:
    """7 running, 8192 blocks of 32 tokens, 901120 prompt tokens of which 612352 were cached."""
    assert load(recorded("trtllm/prometheus_2026.prom")) == ReplicaLoad(
        running_requests=7,
        waiting_requests=2,
        max_running_requests=64,
        kv_usage_ratio=0.375,
        kv_capacity_tokens=262_144,
        kv_block_tokens=32,
        prefix_query_tokens=901_120,
        prefix_hit_tokens=612_352,
        prefix_hit_ratio=0.6125,
        prefill_tokens=901_120,
        prefill_tokens_computed=288_768,
        decode_tokens=204_800,
        queue_wait_seconds_sum=73.5,
        queue_wait_count=851,
    )


def test_everything_an_old_release_says() -> None:
    """2025: bare names, and of these figures the queue alone."""
    assert load(
        recorded("trtllm/prometheus_2025.prom"), max_running=32, kv_capacity_tokens=9_000
    ) == ReplicaLoad(
        max_running_requests=32, kv_capacity_tokens=9_000, queue_wait_seconds_sum=73.5, queue_wait_count=851
    )


def test_scheduled_and_paused_requests() -> None:
    """16 of the 64 places of the batch at run time."""
    said = load(
        b"""
trtllm_num_scheduled_requests{model_name="m"} 16
trtllm_max_batch_size_runtime{model_name="m"} 64
trtllm_num_paused_requests{model_name="m"} 3
"""
    )
    assert (said.batch_utilisation, said.preemptions) == (0.25, 3)


def test_gauges_of_several_processes() -> None:
    """In multiprocess mode every process has its copy (`pid`), and one of them is live."""
    said = load(b'trtllm_num_requests_running{pid="1"} 0.0\ntrtllm_num_requests_running{pid="2"} 7.0\n')
    assert said.running_requests == 7


def test_a_fresh_server_has_said_nothing_yet() -> None:
    """Before the first request the text is empty; the records are not to be emptied instead."""
    assert load(b"") == ReplicaLoad()


def test_another_engine_is_refused() -> None:
    """Then the next path is tried."""
    with pytest.raises(ValueError, match="not the metrics of trtllm-serve"):
        load(recorded("tgi/metrics.prom"))


def test_records_are_the_second_choice() -> None:
    """Text first, because reading the records takes them from everybody else."""
    assert TrtllmTelemetry.metrics_paths == ("/prometheus/metrics", "/metrics")
    said = TrtllmTelemetry().load_from("/metrics", recorded("trtllm/metrics_iteration_stats.json"))
    assert said.heartbeat == 8_842


def test_the_form_is_told_by_the_content() -> None:
    """A proxy may serve either under a path of its own."""
    telemetry = TrtllmTelemetry()
    assert telemetry.load_from("/mine", recorded("trtllm/prometheus_2026.prom")).decode_tokens == 204_800
    assert telemetry.load_from("/mine", recorded("trtllm/metrics_iteration_stats.json")).decode_tokens == 13
    with pytest.raises(ValueError, match="not the iteration records"):
        telemetry.load_from("/mine", b'{"error": "busy"}')


def test_where_to_ask_and_what_lags() -> None:
    """Gauges stand still while a few long streams run."""
    assert TrtllmTelemetry.health_path == "/health"
    assert {"running_requests", "waiting_requests", "decode_tokens_per_s"} <= TrtllmTelemetry.lagging
