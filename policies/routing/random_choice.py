"""Any replica, by chance in proportion to weight. Needs no state, so routers never fall into step."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts


class RandomChoice(Plain):
    """Blind to load; a baseline to measure others against."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """There is nothing to tune: proportions are the replicas' weights."""

    def __init__(self, _options: Options, random: Random) -> None:
        self._random = random

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        weights = [replica.weight for replica in candidates]
        return candidates[draw(weights, self._random)]


def draw(weights: Sequence[float], random: Random) -> int:
    """An index, by chance in proportion to weight. Weights are 0 or more, and not all are 0."""
    cumulative = list(accumulate(weights))
    # `random()` is at most 1 - 2**-53, so the product stays below the total also when rounded, and the
    # bisection to the right of it never ends at an index of weight 0.
    return bisect(cumulative, random.random() * cumulative[-1])
