"""The options of `expected_latency`. Speeds are none of them: those it learns."""

from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedLatencyOptions:
    others: float = field(
        default=0.5,
        metadata={
            "advice": "Weight of what a request costs others; 0.1 if only the first token counts, 1 for "
            "even streams."
        },
    )
    own_work: float = field(
        default=0.0,
        metadata={"advice": "Extra weight of the request's own prefill; raise it to hit caches more."},
    )
    cache_tokens: float = field(
        default=400_000,
        metadata={"advice": "Tokens a replica's cache holds, until its metrics say; too large is safer."},
    )
    offload_tokens: float = field(
        default=0,
        metadata={"advice": "Tokens that host memory holds behind each cache (LMCache, HiCache)."},
    )
    cache_step: float = field(
        default=0.02,
        metadata={"advice": "How fast a mirror's size follows the cached tokens reported; 0 is never."},
    )
    index_mb: float = field(
        default=256.0,
        metadata={"advice": "Memory for all mirrors of one version in one process, in MB."},
    )
    scope_share: float = field(
        default=1.0,
        metadata={"advice": "Most of a mirror that one tenant may fill; below 1 where tenants are hostile."},
    )
    metrics_fresh_s: float = field(
        default=10.0,
        metadata={"advice": "Age at which scraped figures are no longer believed, in seconds."},
    )
    slow_start_s: float = field(
        default=5.0,
        metadata={"advice": "How long a replica that came or was restarted takes load slowly, in seconds."},
    )
    drift: float = field(
        default=1e-5,
        metadata={"advice": "How fast learned speeds follow change; 1e-4 where speeds vary by the minute."},
    )

    def __post_init__(self) -> None:
        for name in ("others", "own_work", "cache_step", "offload_tokens", "slow_start_s", "drift"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("cache_tokens", "index_mb", "metrics_fresh_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        if not 0 < self.scope_share <= 1:
            raise ValueError(f"scope_share must be more than 0 and at most 1, got {self.scope_share}")
