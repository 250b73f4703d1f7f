"""What a virtual replica runs on: latency, KV memory and batch limits, by model and hardware."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from loadtest.engine.latency import PROFILES, LatencyModel
from loadtest.engine.scheduler import SchedulerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One kind of replica."""

    latency: LatencyModel = field(default_factory=LatencyModel)
    kv_tokens: int = 420_000
    host_tokens: int = 0
    """Host memory behind the KV cache, in tokens; 0 is none."""
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256

    @property
    def limits(self) -> SchedulerLimits:
        return SchedulerLimits(
            max_num_seqs=self.max_num_seqs, max_num_batched_tokens=self.max_num_batched_tokens
        )


HARDWARE: Final[Mapping[str, Hardware]] = MappingProxyType(
    {
        "8b-h100": Hardware(latency=PROFILES["8b-h100"]),
        "70b-4xh100": Hardware(latency=PROFILES["70b-4xh100"], kv_tokens=421_000),
        "8b-a10g": Hardware(latency=PROFILES["8b-a10g"], kv_tokens=36_000, max_num_batched_tokens=2048),
    }
)
"""KV memory: what is left beside the weights at 131 (8B) and 327 (70B) KB a token. Budgets: vLLM's defaults
for an API server on H100-class and on smaller GPUs."""

TPOT_SLO_S: Final[Mapping[str, float]] = MappingProxyType(
    {"8b-h100": 0.05, "70b-4xh100": 0.1, "8b-a10g": 0.1}
)
"""Mean seconds per output token after the first that a user of such a replica may expect."""
