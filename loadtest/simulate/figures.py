"""What a run came to, in what users feel: time to first token, time per token, promises that were kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Record(NamedTuple):
    """One answered request. Seconds, tokens."""

    asked_at: float
    ttft_s: float
    tpot_s: float
    ended_at: float
    prompt_tokens: int
    cached_tokens: int
    replica: str


@dataclass(frozen=True, slots=True)
class Promise:
    """What a good answer is: both hold."""

    ttft_s: float = 2.0
    tpot_s: float = 0.05

    def kept(self, record: Record) -> bool:
        return record.ttft_s <= self.ttft_s and record.tpot_s <= self.tpot_s


@dataclass(frozen=True, slots=True)
class Figures:
    """Over the requests after the warm-up. Seconds; `hit` and `goodput` are shares."""

    requests: int
    hit: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    goodput: float


WARM_UP = 0.15
"""The first requests of a run, whose caches are cold, are not judged."""


def judged(records: Sequence[Record], warm_up: float = WARM_UP) -> list[Record]:
    """Without the first ones to be asked."""
    ordered = sorted(records, key=_asked_at)
    return ordered[int(len(ordered) * warm_up) :]


def figures(records: Sequence[Record], promise: Promise, warm_up: float = WARM_UP) -> Figures:
    """Of one run."""
    kept = judged(records, warm_up)
    ttft = sorted(record.ttft_s for record in kept)
    tpot = sorted(record.tpot_s for record in kept)
    prompt_tokens = sum(record.prompt_tokens for record in kept)
    return Figures(
        requests=len(kept),
        hit=sum(record.cached_tokens for record in kept) / max(1, prompt_tokens),
        ttft_mean_s=sum(ttft) / len(ttft),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p90_s=quantile(ttft, 0.9),
        ttft_p99_s=quantile(ttft, 0.99),
        tpot_p50_s=quantile(tpot, 0.5),
        tpot_p99_s=quantile(tpot, 0.99),
        goodput=sum(map(promise.kept, kept)) / len(kept),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _asked_at(record: Record) -> float:
    return record.asked_at
