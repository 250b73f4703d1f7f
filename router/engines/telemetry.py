"""Which class reads what an engine says of itself."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from router.engines.engine import Telemetry
from router.engines.tgi_metrics import TgiTelemetry
from router.engines.triton_metrics import TritonTelemetry
from router.engines.trtllm_metrics import TrtllmTelemetry
from router.engines.vllm_metrics import VllmTelemetry


class ReplicaTelemetry(Telemetry, Protocol):
    """One replica's telemetry; an object of its own for each replica."""

    lagging: frozenset[str]
    """Names of `router.fleet.figures.Figures` that this engine renews only when a request completes."""


class TelemetryKind(Protocol):
    """Builds a replica's telemetry from its options of the same names, for what the engine does not say."""

    def __call__(
        self, *, max_running: float | None = None, kv_capacity_tokens: float | None = None
    ) -> ReplicaTelemetry: ...


TELEMETRY: Final[Mapping[str, TelemetryKind]] = MappingProxyType(
    {
        "vllm": VllmTelemetry,
        "tgi": TgiTelemetry,
        "trtllm": TrtllmTelemetry,
        "triton": TritonTelemetry,
    }
)
