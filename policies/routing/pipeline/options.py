"""What a pipeline is made of, and its parts' parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

FilterName = Literal["prefix_affinity", "utilisation"]
ScorerName = Literal[
    "prefix",
    "queue",
    "kv_utilisation",
    "running",
    "active",
    "token_load",
    "load_aware",
    "no_hit_lru",
    "session",
]
PickerName = Literal["max_score", "weighted_random", "random"]

_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "block_tokens": (1, inf),
        "lru_capacity_per_replica": (1, inf),
        "match_length_weight": (0, 1),
        "match_length_scale_tokens": (1, inf),
        "affinity_threshold": (0, 1),
        "exploration_probability": (0, 1),
        "max_ttft_penalty_s": (0, inf),
        "peak_prefill_tokens_per_s": (1, inf),
        "max_waiting_requests": (0, inf),
        "max_kv_utilisation": (0, 1),
        "queue_threshold_tokens": (1, inf),
        "queue_threshold": (1, inf),
        "idle_threshold": (0, inf),
        "max_busy_score": (0, 1),
    }
)


def _default_scorers() -> Mapping[ScorerName, float]:
    return {"prefix": 3.0, "queue": 2.0, "kv_utilisation": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """Without any, llm-d's default profile: prefix 3, queue 2, KV use 2, the best score wins."""

    filters: tuple[FilterName, ...] = field(
        default=(),
        metadata={
            "advice": "Who may be scored, in this order; 'prefix_affinity' and 'utilisation' are there."
        },
    )
    scorers: Mapping[ScorerName, float] = field(
        default_factory=_default_scorers,
        metadata={
            "advice": "How much each counts of prefix, queue, kv_utilisation, running, active, token_load, "
            "load_aware, no_hit_lru, session."
        },
    )
    picker: PickerName = field(
        default="max_score",
        metadata={"advice": "Who of those scored: 'max_score', or by chance 'weighted_random' or 'random'."},
    )
    prefix_from: Literal["dispatched", "kv_events"] = field(
        default="dispatched",
        metadata={
            "advice": "Where prefixes are known from: requests 'dispatched', or the engines' own 'kv_events'."
        },
    )
    block_tokens: int = field(
        default=64,
        metadata={"advice": "Tokens per block of the prefix index, at least; less is finer and dearer."},
    )
    auto_tune: bool = field(
        default=True,
        metadata={"advice": "Remember as much of a replica as the engine says that its KV cache holds."},
    )
    lru_capacity_per_replica: int = field(
        default=31_250,
        metadata={
            "advice": "Blocks of block_tokens remembered per replica without auto_tune, or a word from it."
        },
    )
    match_length_weight: float = field(
        default=0.0,
        metadata={
            "advice": "prefix: weight of a match's length, 0 to 1; the rest is its share of the prompt."
        },
    )
    match_length_scale_tokens: int = field(
        default=8192,
        metadata={"advice": "prefix: the length that counts in full; the longest usual prompt is apt."},
    )
    affinity_threshold: float = field(
        default=0.8,
        metadata={
            "advice": "prefix_affinity: share of the prompt that makes a replica sticky; 0 turns it off."
        },
    )
    exploration_probability: float = field(
        default=0.0,
        metadata={"advice": "prefix_affinity: share of requests that go anywhere, so that caches spread."},
    )
    max_ttft_penalty_s: float = field(
        default=18.0,
        metadata={
            "advice": "prefix_affinity: yields if sticky replicas would answer this much later; 0 is never."
        },
    )
    peak_prefill_tokens_per_s: float = field(
        default=15_928.0,
        metadata={
            "advice": "prefix_affinity: turns waiting tokens into seconds; measure your model on your GPU."
        },
    )
    max_waiting_requests: int = field(
        default=5, metadata={"advice": "utilisation: a replica with more in its queue is left out."}
    )
    max_kv_utilisation: float = field(
        default=0.8, metadata={"advice": "utilisation: a replica with more of its KV cache in use, too."}
    )
    queue_threshold_tokens: int = field(
        default=4_194_304, metadata={"advice": "token_load: tokens to prefill that score 0."}
    )
    queue_threshold: int = field(
        default=128, metadata={"advice": "load_aware: requests in the queue that score 0."}
    )
    idle_threshold: int = field(
        default=0, metadata={"advice": "active: up to so many requests in flight score 1."}
    )
    max_busy_score: float = field(
        default=1.0, metadata={"advice": "active: the most that more can score, 0 to 1."}
    )

    def __post_init__(self) -> None:
        _expect(self.filters, get_args(FilterName), "filters")
        _expect(self.scorers, get_args(ScorerName), "scorers")
        _expect([self.picker], get_args(PickerName), "picker")
        if not all(0.0 <= weight < inf for weight in self.scorers.values()):
            raise ValueError(f"scorers must have weights of 0 or more, got {dict(self.scorers)}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                bounds = f"at least {low}" if high == inf else f"{low} to {high}"
                raise ValueError(f"{name} must be {bounds}, got {value}")


def _expect(names: Any, known: tuple[str, ...], option: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{option} must be of {', '.join(known)}, got {unknown[0]!r}")
