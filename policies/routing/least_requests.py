"""The replica with the fewest requests in flight for its weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from policies.routing.least import least
from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts


class LeastRequests(Plain):
    """Counts what this router has in flight, which is never stale. Ties go by chance, by weight."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """There is nothing to tune: load is requests in flight over weight."""

    def __init__(self, _options: Options, random: Random) -> None:
        self._random = random

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        return least(candidates, [replica.in_flight / replica.weight for replica in candidates], self._random)
