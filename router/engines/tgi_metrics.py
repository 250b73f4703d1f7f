"""What TGI says of itself: `GET /metrics`, counters without `_total`, families absent until first used.

It names no KV capacity, no cache hits and no limit of its batch; the token budget of the running batch stands
for its KV cache.
"""

from typing import Final

from router.engines.engine import ReplicaLoad
from router.engines.prometheus_text import Families
from router.engines.unknown import share

_FAMILIES: Final = Families(
    "TGI",
    prefixes=["tgi_"],
    names=[
        "tgi_batch_current_size",
        "tgi_queue_size",
        "tgi_batch_current_max_tokens",
        "tgi_request_input_length_sum",
        "tgi_request_generated_tokens_sum",
        "tgi_request_queue_duration_sum",
        "tgi_request_queue_duration_count",
        "tgi_batch_inference_count",
    ],
)


class TgiTelemetry:
    """`max_running` is `max_concurrent_requests` of `GET /info`.

    `kv_capacity_tokens` is what its log calls `max batch total tokens` at start-up.
    """

    health_path = "/health"
    metrics_paths: tuple[str, ...] = ("/metrics",)
    lagging: frozenset[str] = frozenset({"decode_tokens_per_s"})
    """Generated tokens are counted in one lump when a request ends."""

    def __init__(self, *, max_running: float | None = None, kv_capacity_tokens: float | None = None) -> None:
        self._max_running = max_running
        self._kv_capacity_tokens = kv_capacity_tokens

    def load_from(self, path: str, content: bytes) -> ReplicaLoad:  # noqa: ARG002
        said = _FAMILIES.read(content)
        # Input and the most that may still be generated, reserved for the whole running batch.
        budget_used = share(said.total("tgi_batch_current_max_tokens"), self._kv_capacity_tokens)
        return ReplicaLoad(
            running_requests=said.total("tgi_batch_current_size"),
            waiting_requests=said.total("tgi_queue_size"),
            max_running_requests=self._max_running,
            kv_usage_ratio=budget_used,
            kv_capacity_tokens=self._kv_capacity_tokens,
            # With flashinfer, its default, the prefix cache is a trie of single tokens.
            kv_block_tokens=1.0,
            # Counted on arrival, cached tokens included.
            prefill_tokens=said.total("tgi_request_input_length_sum"),
            decode_tokens=said.total("tgi_request_generated_tokens_sum"),
            queue_wait_seconds_sum=said.total("tgi_request_queue_duration_sum"),
            queue_wait_count=said.total("tgi_request_queue_duration_count"),
            batch_utilisation=budget_used,
            heartbeat=said.total("tgi_batch_inference_count"),
        )
