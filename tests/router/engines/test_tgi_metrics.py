import pytest

from router.engines.engine import ReplicaLoad
from router.engines.tgi_metrics import TgiTelemetry
from tests.support.wire import recorded


def load(content: bytes, **options: float) -> ReplicaLoad:
    return TgiTelemetry(**options).load_from("/metrics", content)


def test_everything_it_says() -> None:
    """A batch of 16 that reserved half of a configured 56,320 tokens; 640 prefills and 20,111 decodes so far."""
    assert load(recorded("tgi/metrics.prom"), max_running=128, kv_capacity_tokens=56_320) == ReplicaLoad(
        running_requests=16,
        waiting_requests=4,
        max_running_requests=128,
        kv_usage_ratio=0.5,
        kv_capacity_tokens=56_320,
        kv_block_tokens=1,
        prefill_tokens=901_120,
        decode_tokens=204_800,
        queue_wait_seconds_sum=73.5,
        queue_wait_count=851,
        batch_utilisation=0.5,
        heartbeat=20_751,
    )


def test_without_a_capacity_the_cache_is_unknown() -> None:
    """A token budget alone says nothing of how full the cache is."""
    said = load(recorded("tgi/metrics.prom"))
    assert said.kv_usage_ratio is said.batch_utilisation is said.kv_capacity_tokens is None
    assert said.running_requests == 16


def test_a_budget_above_the_configured_capacity_is_full() -> None:
    """The option may be set too low; the cache is not more than full."""
    assert load(recorded("tgi/metrics.prom"), kv_capacity_tokens=10_000).kv_usage_ratio == 1.0


@pytest.mark.parametrize("content", [b"", b"# TYPE tgi_request_count counter\ntgi_request_count 1\n"])
def test_a_fresh_server_has_said_nothing_yet(content: bytes) -> None:
    """Families appear with their first use: unknown is not zero."""
    assert load(content) == ReplicaLoad(kv_block_tokens=1)


def test_two_thousand_bucket_lines_change_nothing() -> None:
    """`tgi_batch_next_size` alone has 1,024 buckets."""
    buckets = b"".join(b'tgi_batch_next_size_bucket{le="%d"} 640\n' % le for le in range(2_000))
    recording = recorded("tgi/metrics.prom")
    assert load(buckets + recording) == load(recording + buckets) == load(recording)


def test_another_engine_is_refused() -> None:
    """A replica configured as TGI that is something else."""
    with pytest.raises(ValueError, match="not the metrics of TGI"):
        load(recorded("vllm/metrics_v0.27.prom"))


def test_where_to_ask_and_what_lags() -> None:
    """Generated tokens are counted when a request ends."""
    assert (TgiTelemetry.health_path, TgiTelemetry.metrics_paths) == ("/health", ("/metrics",))
    assert TgiTelemetry.lagging == {"decode_tokens_per_s"}
