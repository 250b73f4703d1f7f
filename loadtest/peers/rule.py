"""What the peers' rules have in common: each candidate has a cost, and the least wins."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from policies.routing.events import Event, Prompt
from policies.routing.least import least
from policies.routing.policy import R, ReplicaView, RequestFacts, Weighed

Costs = Sequence[tuple[float, float]]
"""In the order of the candidates: what the rule compares, and what breaks ties; after that it is chance."""


class Rule(ABC):
    """A policy made of a peer's rule. Requests without a prompt go to the fewest requests in flight."""

    learns = True
    wants_kv_events = False
    """Whether it knows caches from `BlocksStored` and `BlocksRemoved`; without those it is blind."""

    def __init__(self, random: Random) -> None:
        self._random = random

    @abstractmethod
    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:
        """Changes nothing."""

    @abstractmethod
    def observe(self, event: Event) -> None: ...

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        return least(candidates, self._costs(request, candidates, now), self._random)

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        costs = self._costs(request, candidates, now)
        return [
            Weighed(replica.id, cost, {"in_flight": replica.in_flight, "tie": tie})
            for replica, (cost, tie) in zip(candidates, costs, strict=True)
        ]

    def _costs(self, request: RequestFacts, candidates: Sequence[ReplicaView], now: float) -> Costs:
        if request.prompt is None:
            return [(replica.in_flight, 0.0) for replica in candidates]
        return self.costs(request.prompt, candidates, now)


def ids_of(replicas: Sequence[ReplicaView]) -> list[str]:
    return [replica.id for replica in replicas]
