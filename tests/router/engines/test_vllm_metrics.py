import pytest

from router.engines.engine import ReplicaLoad
from router.engines.vllm_metrics import VllmTelemetry
from tests.support.wire import recorded


def load(content: bytes, **options: float) -> ReplicaLoad:
    return VllmTelemetry(**options).load_from("/metrics", content)


def test_everything_a_present_release_says() -> None:
    """v0.27: 7 of 28 slots run, 27888 blocks of 16 tokens, 901120 prompt tokens of which 612352 were cached."""
    assert load(recorded("vllm/metrics_v0.27.prom"), max_running=28) == ReplicaLoad(
        running_requests=7,
        waiting_requests=2,
        max_running_requests=28,
        kv_usage_ratio=0.4217687074829932,
        kv_capacity_tokens=446_208,
        kv_block_tokens=16,
        prefix_query_tokens=918_273,
        prefix_hit_tokens=612_352,
        prefill_tokens=901_120,
        prefill_tokens_computed=288_768,
        decode_tokens=204_800,
        queue_wait_seconds_sum=61.25,
        queue_wait_count=856,
        batch_utilisation=0.25,
        preemptions=3,
        sleeping=False,
    )


def test_everything_an_old_release_says() -> None:
    """v0.9 to v0.11: the `gpu_` names, and computed tokens are all prompt tokens but the hits."""
    assert load(recorded("vllm/metrics_legacy_v0.9-0.11.prom"), kv_capacity_tokens=400_000) == ReplicaLoad(
        running_requests=7,
        waiting_requests=2,
        kv_usage_ratio=0.42,
        kv_capacity_tokens=400_000,
        prefix_query_tokens=918_273,
        prefix_hit_tokens=612_352,
        prefill_tokens=901_120,
        prefill_tokens_computed=288_768,
        decode_tokens=204_800,
    )


def test_the_oldest_name_of_kv_usage() -> None:
    """Before v0.9.2 there was `gpu_cache_usage_perc` alone."""
    assert load(b"vllm:gpu_cache_usage_perc 0.3\n").kv_usage_ratio == 0.3


def test_ranks_are_one_replica() -> None:
    """Two data-parallel ranks: requests, tokens and capacity add up, cache usage has a mean."""
    said = load(
        b"""
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:generation_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="1",model_name="m"} 200.0
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="3000"} 1.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 9.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 40.0
vllm:iteration_tokens_total_count{engine="1",model_name="m"} 50.0
""",
        max_running=16,
    )
    assert (said.running_requests, said.batch_utilisation) == (8, 0.5)
    assert said.kv_usage_ratio == 0.5
    assert said.decode_tokens == 300
    assert (said.kv_capacity_tokens, said.kv_block_tokens) == (128_000, 32)
    assert said.heartbeat == 90


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        (b'block_size="16",kv_cache_size_tokens="50000",num_gpu_blocks="1000"', 50_000),
        (b'block_size="16",kv_cache_size_tokens="None",num_gpu_blocks="1000"', 16_000),
        (b'block_size="16",num_gpu_blocks="None"', 7_000),
        (b'num_gpu_blocks="1000"', 7_000),
    ],
)
def test_kv_capacity_is_in_labels(labels: bytes, tokens: float) -> None:
    """Tokens if it says them, else blocks times their size, else what was configured."""
    said = load(b"vllm:cache_config_info{" + labels + b"} 1.0\n", kv_capacity_tokens=7_000)
    assert said.kv_capacity_tokens == tokens


@pytest.mark.parametrize(
    ("families", "tokens"),
    [
        (
            b'vllm:prompt_tokens_by_source_total{source="local_compute"} 10\nvllm:prompt_tokens_cached_total 9\n',
            10,
        ),
        (b"vllm:prompt_tokens_cached_total 60\nvllm:request_prefill_kv_computed_tokens_sum 9\n", 40),
        (b"vllm:request_prefill_kv_computed_tokens_sum 35\nvllm:prefix_cache_hits_total 50\n", 35),
        (b"vllm:prefix_cache_hits_total 30\n", 70),
        (b"", None),
    ],
)
def test_computed_tokens_by_the_best_source(families: bytes, tokens: float | None) -> None:
    """Of 100 prompt tokens; releases differ in what they tell of the cached part."""
    assert load(b"vllm:prompt_tokens_total 100\n" + families).prefill_tokens_computed == tokens


@pytest.mark.parametrize(("awake", "sleeping"), [(b"1.0", False), (b"0.0", True)])
def test_sleep_is_told(awake: bytes, sleeping: bool) -> None:
    """An engine put to sleep answers probes and must get no traffic."""
    state = b'vllm:engine_sleep_state{sleep_state="weights_offloaded"} 0\nvllm:engine_sleep_state{sleep_state="awake"} '
    assert load(state + awake + b"\n").sleeping is sleeping


def test_a_server_without_statistics_is_refused() -> None:
    """With --disable-log-stats only the process speaks, and no metrics must not look like an idle engine."""
    with pytest.raises(ValueError, match="not the metrics of vLLM"):
        load(b"process_cpu_seconds_total 12.5\n")


def test_where_to_ask() -> None:
    """The paths of vLLM's server."""
    assert (VllmTelemetry.health_path, VllmTelemetry.metrics_paths) == ("/health", ("/metrics",))
