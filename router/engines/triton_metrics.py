"""What Triton says of itself and of its TensorRT-LLM backend: `GET /metrics` on a port of its own (8002).

Counters have no `_total`, durations are microseconds, the backend's figures are gauges; tokens are not
counted.
"""

from typing import Final

from router.engines.engine import ReplicaLoad
from router.engines.prometheus_text import Exposition, Families
from router.engines.unknown import difference, first, product, share, total

_REQUESTS: Final = "nv_trt_llm_request_metrics"
_BLOCKS: Final = "nv_trt_llm_kv_cache_block_metrics"
_PENDING: Final = "nv_inference_pending_request_count"
_QUEUED_US: Final = "nv_inference_queue_duration_us"
_SERVED: Final = "nv_inference_request_success"
_BATCHER: Final = "nv_trt_llm_inflight_batcher_metrics"
_GENERAL: Final = "nv_trt_llm_general_metrics"
_GPU: Final = "nv_gpu_utilization"

_FAMILIES: Final = Families(
    "Triton",
    prefixes=["nv_"],
    names=[_REQUESTS, _BLOCKS, _PENDING, _QUEUED_US, _SERVED, _BATCHER, _GENERAL, _GPU],
)


class TritonTelemetry:
    """Readiness answers 400 while a model is loading or its engine is dead, 200 otherwise.

    The options are used where the backend is silent, as the PyTorch one (`llmapi`) may be.
    """

    health_path = "/v2/health/ready"
    metrics_paths: tuple[str, ...] = ("/metrics",)
    lagging: frozenset[str] = frozenset()

    def __init__(self, *, max_running: float | None = None, kv_capacity_tokens: float | None = None) -> None:
        self._max_running = max_running
        self._kv_capacity_tokens = kv_capacity_tokens

    def load_from(self, path: str, content: bytes) -> ReplicaLoad:  # noqa: ARG002
        said = _FAMILIES.read(content)
        waiting = _requests(said, "waiting")
        most = first(_requests(said, "max"), self._max_running)
        blocks = _blocks(said, "max")
        block_tokens = said.mean(_BLOCKS, kv_cache_block_type="tokens_per")
        return ReplicaLoad(
            running_requests=difference(_requests(said, "active"), waiting),
            # Those in the backend's queue, and those that Triton has not handed to it yet.
            waiting_requests=_sum_of_known(waiting, said.total(_PENDING)),
            max_running_requests=most,
            kv_usage_ratio=first(
                share(_blocks(said, "used"), blocks), said.ratio(_BLOCKS, kv_cache_block_type="fraction")
            ),
            kv_capacity_tokens=first(product(blocks, block_tokens), self._kv_capacity_tokens),
            kv_block_tokens=block_tokens,
            prefix_hit_tokens=product(_blocks(said, "reused"), block_tokens),
            queue_wait_seconds_sum=product(_of_the_engine(said, _QUEUED_US), 1e-6),
            queue_wait_count=_of_the_engine(said, _SERVED),
            batch_utilisation=share(_requests(said, "scheduled"), most),
            gpu_utilisation=said.ratio(_GPU),
            preemptions=said.total(_BATCHER, inflight_batcher_specific_metric="paused_requests"),
            heartbeat=said.total(_GENERAL, general_type="iteration_counter"),
        )


def _requests(said: Exposition, type_: str) -> float | None:
    return said.total(_REQUESTS, request_type=type_)


def _blocks(said: Exposition, type_: str) -> float | None:
    return said.total(_BLOCKS, kv_cache_block_type=type_)


def _sum_of_known(*figures: float | None) -> float | None:
    return total(figure for figure in figures if figure is not None)


def _of_the_engine(said: Exposition, name: str) -> float | None:
    """A family of Triton's scheduler, for the models that are engines if the backend tells which.

    An ensemble counts each request again for each of its steps.
    """
    models = {labels["model"] for labels in said.labels(_REQUESTS) if "model" in labels}
    if not models:
        return said.total(name)
    return total(said.total(name, model=model) for model in models)
