"""What policies choose from, without a router, and what tests measure of their choices."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt

from policies.routing.events import Prompt

NOW = 1_000.0
"""A moment, for policies that look at no clock."""


@dataclass(slots=True)
class FakeLoad:
    running_requests: float | None = None
    waiting_requests: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None


@dataclass(slots=True, eq=False)
class FakeReplica:
    id: str
    weight: float = 1.0
    in_flight: int = 0
    load: FakeLoad | None = None
    load_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FakeRequest:
    session: str | None = None
    prompt: Prompt | None = None


def replicas(*weights: float) -> list[FakeReplica]:
    return [FakeReplica(f"10.0.0.{number}:8000", weight) for number, weight in enumerate(weights)]


def prompt_of(text: str, block_tokens: float = 16.0) -> Prompt:
    """One block per character, chained: two prompts have equal blocks as far as their texts are alike."""
    blocks = [_hash(text[: end + 1]) for end in range(len(text))]
    return Prompt(blocks, round(len(text) * block_tokens), block_tokens)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def fits(counts: Counter[str], shares: Mapping[str, float]) -> bool:
    """Whether counts come from `shares` (any positive numbers), by Pearson's test at one in a thousand.

    The limit is Wilson and Hilferty's approximation of the chi-square distribution's 99.9th percentile.
    """
    assert counts.keys() <= shares.keys()
    scale = counts.total() / sum(shares.values())
    statistic = sum((counts[key] - share * scale) ** 2 / (share * scale) for key, share in shares.items())
    freedom = len(shares) - 1
    spread = 2 / (9 * freedom)
    return statistic < freedom * (1 - spread + 3.09 * sqrt(spread)) ** 3
