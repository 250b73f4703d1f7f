"""Pickers: one position of those scored. `weights` are the replicas' own."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from policies.routing.random_choice import draw

Picker = Callable[[Sequence[float], Sequence[float], Random], int]


def _max_score(scores: Sequence[float], weights: Sequence[float], random: Random) -> int:
    """The best; equals by chance in proportion to weight."""
    best = max(scores)
    if scores.count(best) == 1:
        return scores.index(best)
    return draw(
        [weight if score == best else 0.0 for score, weight in zip(scores, weights, strict=True)], random
    )


def _weighted_random(scores: Sequence[float], weights: Sequence[float], random: Random) -> int:
    """By chance in proportion to score; if nobody scores, by weight."""
    return draw(scores if any(scores) else weights, random)


def _random(_scores: Sequence[float], weights: Sequence[float], random: Random) -> int:
    """By chance in proportion to weight."""
    return draw(weights, random)


PICKERS: Final[Mapping[str, Picker]] = MappingProxyType(
    {"max_score": _max_score, "weighted_random": _weighted_random, "random": _random}
)
