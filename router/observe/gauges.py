"""The `turnout_replica_*` gauges: one replica at the moment of the scrape, alike for every engine.

What is unknown has no sample. It is never 0: silence must not look like idleness.
"""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.fleet.figures import Figures
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet

LABELS = ("model", "version", "replica", "engine")

_ABOUT_FIGURES = {
    "running_requests": ("running_requests", "Requests that the engine computes."),
    "waiting_requests": ("waiting_requests", "Requests that wait for the engine's first token."),
    "kv_usage_ratio": ("kv_usage_ratio", "Share of the KV cache in use, 0 to 1."),
    "prefix_hit_ratio": ("prefix_hit_ratio", "Prompt tokens found in the prefix cache, 0 to 1."),
    "prefill_tokens_per_s": ("prefill_tokens_per_second", "Prompt tokens computed per second."),
    "decode_tokens_per_s": ("decode_tokens_per_second", "Tokens generated per second."),
    "queue_wait_s": ("queue_wait_seconds", "Mean wait in the engine before a request is computed."),
    "batch_utilisation": ("batch_utilisation", "Share of the batch in use, 0 to 1."),
    "gpu_utilisation": ("gpu_utilisation", "Share of the GPU's time in use, 0 to 1; few engines tell."),
}
"""By field of `Figures`: the metric, and what it is. The engine's own figure, else the router's."""


class ReplicaGauges(Collector):
    """Reads the fleet and its figures when it is collected. `now` is the clock of `Replica.load_at`."""

    def __init__(
        self,
        fleet: Callable[[], Fleet],
        figures: Callable[[Replica], Figures | None],
        now: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._figures = figures
        self._now = now

    def collect(self) -> Iterator[Metric]:
        now = self._now()
        # One dict for all gauges of a replica: its text is then written once.
        rows = [(labels_of(each), each, self._figures(each)) for each in self._fleet().replicas]
        yield _gauge(
            "up",
            "1 if its health probes are good and it is verified.",
            ((at, float(r.up)) for at, r, _ in rows),
        )
        yield _gauge(
            "verified",
            "1 if it is what its version says, 0 if it is not or cannot be asked yet.",
            ((at, float(r.verdict.verified)) for at, r, _ in rows),
        )
        yield _gauge(
            "in_flight",
            "Requests that this router has there now.",
            ((at, float(r.own_in_flight)) for at, r, _ in rows),
        )
        yield _gauge(
            "metrics_age_seconds",
            "Time since the engine's own metrics were read.",
            ((at, None if r.load is None else max(0.0, now - r.load_at)) for at, r, _ in rows),
        )
        for field, (name, about) in _ABOUT_FIGURES.items():
            yield _gauge(name, about, ((at, _value(figures, field)) for at, _, figures in rows))


def labels_of(replica: Replica) -> dict[str, str]:
    identity = replica.identity
    return dict(zip(LABELS, (identity.model, identity.version, replica.id, replica.engine.kind), strict=True))


def _value(figures: Figures | None, field: str) -> float | None:
    figure = None if figures is None else getattr(figures, field)
    return None if figure is None else figure.value


def _gauge(name: str, about: str, values: Iterator[tuple[dict[str, str], float | None]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"turnout_replica_{name}", about, labels=LABELS)
    for labels, value in values:
        if value is not None:
            family.add_sample(family.name, labels, value)
    return family
