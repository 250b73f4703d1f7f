import pytest

from router.engines.engine import ReplicaLoad
from router.engines.triton_metrics import TritonTelemetry
from tests.support.wire import recorded


def load(content: bytes, **options: float) -> ReplicaLoad:
    return TritonTelemetry(**options).load_from("/metrics", content)


def test_everything_it_says() -> None:
    """9 active of which 2 wait, 7 of 64 scheduled, 3072 of 8192 blocks of 32 tokens, 48,211 us of queueing."""
    assert load(recorded("triton/metrics.prom")) == ReplicaLoad(
        running_requests=7,
        waiting_requests=2,
        max_running_requests=64,
        kv_usage_ratio=0.375,
        kv_capacity_tokens=262_144,
        kv_block_tokens=32,
        queue_wait_seconds_sum=pytest.approx(0.048211),
        queue_wait_count=851,
        batch_utilisation=7 / 64,
        gpu_utilisation=0.87,
        heartbeat=8_841,
    )


def test_requests_wait_in_two_places() -> None:
    """Those that Triton has not handed over yet wait too."""
    waiting = b'nv_trt_llm_request_metrics{request_type="waiting"} 2\n'
    pending = b'nv_inference_pending_request_count{model="tensorrt_llm"} 5\n'
    assert load(waiting + pending).waiting_requests == 7
    assert load(pending).waiting_requests == 5
    assert load(waiting).waiting_requests == 2


def test_an_ensemble_counts_each_request_once() -> None:
    """Only the engine's own queue and count are a request's wait, not those of every step around it."""
    said = load(
        b"""
nv_inference_request_success{model="ensemble",version="1"} 10
nv_inference_request_success{model="preprocessing",version="1"} 10
nv_inference_request_success{model="tensorrt_llm",version="1"} 8
nv_inference_queue_duration_us{model="preprocessing",version="1"} 9000000
nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} 4000000
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 1
"""
    )
    assert (said.queue_wait_seconds_sum, said.queue_wait_count) == (4.0, 8)


@pytest.mark.parametrize(
    ("blocks", "ratio"),
    [
        ({"used": 1, "max": 4, "fraction": 0.9}, 0.25),
        ({"fraction": 0.9}, 0.9),
        ({"used": 0, "max": 0, "fraction": 0.1}, 0.1),
        ({"used": 1}, None),
    ],
)
def test_kv_usage_by_the_best_source(blocks: dict[str, float], ratio: float | None) -> None:
    """Used over all; the fraction where those are missing. Used and free need not add up to all."""
    lines = [
        f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="{k}"}} {v}\n' for k, v in blocks.items()
    ]
    assert load("".join(lines).encode()).kv_usage_ratio == ratio


def test_later_releases_tell_reused_blocks_and_pauses() -> None:
    """70 reused blocks of 32 tokens."""
    said = load(
        b"""
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"} 32
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="reused"} 70
nv_trt_llm_inflight_batcher_metrics{inflight_batcher_specific_metric="paused_requests"} 4
"""
    )
    assert (said.prefix_hit_tokens, said.preemptions) == (2_240, 4)


def test_a_backend_without_figures_leaves_the_server_s() -> None:
    """The PyTorch backend may say nothing: the options stand in, the GPUs have a mean, the rest is unknown."""
    gpus = b'nv_gpu_utilization{gpu_uuid="a"} 0.5\nnv_gpu_utilization{gpu_uuid="b"} 0.7\n'
    assert load(gpus, max_running=64, kv_capacity_tokens=9_000) == ReplicaLoad(
        gpu_utilisation=pytest.approx(0.6), max_running_requests=64, kv_capacity_tokens=9_000
    )


def test_where_to_ask() -> None:
    """Readiness, not liveness: it answers 400 while models load."""
    assert (TritonTelemetry.health_path, TritonTelemetry.metrics_paths) == ("/v2/health/ready", ("/metrics",))
