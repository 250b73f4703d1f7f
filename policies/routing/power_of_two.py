"""The least busy of a few replicas drawn by chance: nearly as even as looking at all, without herding.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts
from policies.routing.random_choice import draw


class PowerOfTwo(Plain):
    """For many routers in front of one fleet: each sees only its own requests, and chance keeps them apart.

    Draws are distinct and in proportion to weight; of those drawn, the one with the fewest requests in
    flight for its weight is chosen, the first drawn if they are equal.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        choices: int = field(
            default=2,
            metadata={"advice": "Replicas compared per request; more evens the load and herds more."},
        )

        def __post_init__(self) -> None:
            if self.choices < 2:
                raise ValueError(f"choices must be at least 2, got {self.choices}; 1 is the policy 'random'")

    def __init__(self, options: Options, random: Random) -> None:
        self._choices = options.choices
        self._random = random

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        weights = [replica.weight for replica in candidates]
        chosen = candidates[0]
        least = float("inf")
        for _ in range(min(self._choices, len(candidates))):
            index = draw(weights, self._random)
            load = candidates[index].in_flight / weights[index]
            weights[index] = 0.0
            if load < least:
                chosen, least = candidates[index], load
        return chosen
