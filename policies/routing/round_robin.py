"""Each replica in its turn, exactly in proportion to weight: smooth weighted round robin."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from policies.routing.policy import R, RequestFacts

_SPARE_CREDITS = 64
"""How many replicas that are not candidates now keep their place in the turn."""


class RoundRobin:
    """Blind to load; for replicas and requests that are all alike.

    Every choice gives each candidate its weight in credit, and the richest pays for all (nginx's
    smooth weighted round robin): weights 5, 1, 1 give a a b a c a a, not five in a row. Credits sum to
    zero, so a newcomer, who has none, stands in the middle: it is neither flooded nor starved.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """There is nothing to tune: proportions are the replicas' weights."""

    def __init__(self, _options: Options, _random: Random) -> None:
        self._credits: dict[str, float] = {}

    def choose(self, request: RequestFacts, candidates: Sequence[R]) -> R:  # noqa: ARG002
        credit_of = self._credits
        chosen = candidates[0]
        most = float("-inf")
        total = 0.0
        for replica in candidates:
            weight = replica.weight
            credit = credit_of.get(replica.id, 0.0) + weight
            credit_of[replica.id] = credit
            total += weight
            if credit > most:
                chosen, most = replica, credit
        credit_of[chosen.id] = most - total
        if len(credit_of) > 2 * len(candidates) + _SPARE_CREDITS:
            self._forget_all_but(candidates)
        return chosen

    def _forget_all_but(self, candidates: Sequence[R]) -> None:
        """Drop the credits of replicas that left, and bring the sum of the others back to zero."""
        kept = {replica.id: self._credits[replica.id] for replica in candidates}
        mean = sum(kept.values()) / len(kept)
        self._credits = {id_: credit - mean for id_, credit in kept.items()}
