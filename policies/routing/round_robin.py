"""Each replica in its turn, exactly in proportion to weight: smooth weighted round robin."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts

_SPARE_CREDITS: Final = 64
"""How many replicas that are no candidates now keep their place in the turn, at least."""


class RoundRobin(Plain):
    """Blind to load; for replicas and requests that are all alike.

    Every choice gives each candidate its weight in credit, and the richest pays for all (nginx's
    smooth weighted round robin): weights 5, 1, 1 give a a b a c a a, not five in a row. Credits never
    stray further from 0 than one round is worth, so a newcomer, who has none, is at most a round early
    or late.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """There is nothing to tune: proportions are the replicas' weights."""

    def __init__(self, _options: Options, _random: Random) -> None:
        self._credits: dict[str, float] = {}

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        credit_of = self._credits
        chosen = candidates[0]
        most = -inf
        total = 0.0
        for replica in candidates:
            id_, weight = replica.id, replica.weight
            total += weight
            credit = credit_of[id_] = credit_of.get(id_, 0.0) + weight
            if credit > most:
                chosen, most = replica, credit
        credit_of[chosen.id] = most - total
        if len(credit_of) > 2 * len(candidates) + _SPARE_CREDITS:
            self._credits = {replica.id: credit_of[replica.id] for replica in candidates}
        return chosen
