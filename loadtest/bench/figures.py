"""What one run measured, as the client reports it and as it stands in the JSON output."""

import math
from collections.abc import Sequence

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Microseconds; None when nothing was measured."""

    count: int
    p50_us: float | None
    p99_us: float | None


def quantiles(values_us: Sequence[float]) -> Quantiles:
    """Nearest-rank quantiles."""
    return Quantiles(len(values_us), quantile(values_us, 0.5), quantile(values_us, 0.99))


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class RunFigures(msgspec.Struct, frozen=True):
    """One candidate under one workload, the measured window only."""

    window_s: float
    requests: int
    chunks: int
    """SSE events, `[DONE]` among them."""
    errors: dict[str, int]
    """What went wrong, by kind; since the first request, not only in the window."""
    router_cpu_s: float
    client_cpu_s: float
    upstream_cpu_s: float
    router_core_busy_s: float
    load_core_busy_s: float
    latency: Quantiles
    """From the request's first byte to its answer's last."""
    first_event: Quantiles
    """Streams: from the request's first byte to the first SSE event."""
    chunk_delay: Quantiles
    """Streams: from the replica's write of a content chunk to the client's read of it."""

    @property
    def requests_per_cpu_s(self) -> float | None:
        return self.requests / self.router_cpu_s if self.router_cpu_s else None

    @property
    def chunks_per_cpu_s(self) -> float | None:
        return self.chunks / self.router_cpu_s if self.router_cpu_s else None

    @property
    def router_share(self) -> float:
        """Of its core."""
        return self.router_cpu_s / self.window_s

    @property
    def load_share(self) -> float:
        """Of the core that client and replicas share; near 1 they, not the router, set the pace."""
        return (self.client_cpu_s + self.upstream_cpu_s) / self.window_s

    @property
    def foreign_share(self) -> float:
        """Of both cores, used by processes that do not belong to the run."""
        own = self.router_cpu_s + self.client_cpu_s + self.upstream_cpu_s
        return max(0.0, self.router_core_busy_s + self.load_core_busy_s - own) / (2 * self.window_s)
