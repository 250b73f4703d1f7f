"""The replica with the fewest requests in flight for its weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts
from policies.routing.random_choice import draw


class LeastRequests(Plain):
    """Counts what this router has in flight, which is never stale.

    Ties go by chance in proportion to weight: always the first of equals would send every router's
    requests to the same idle replica.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """There is nothing to tune: load is requests in flight over weight."""

    def __init__(self, _options: Options, random: Random) -> None:
        self._random = random

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        loads = [replica.in_flight / replica.weight for replica in candidates]
        least = min(loads)
        if loads.count(least) == 1:
            return candidates[loads.index(least)]
        equals = [replica for replica, load in zip(candidates, loads, strict=True) if load == least]
        return equals[draw([replica.weight for replica in equals], self._random)]
