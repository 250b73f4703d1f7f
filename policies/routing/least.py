"""The end of most policies: of the replicas' costs the least wins."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from policies.routing.policy import R
from policies.routing.random_choice import draw

C = TypeVar("C", float, tuple[float, float])


def least(candidates: Sequence[R], costs: Sequence[C], random: Random) -> R:
    """The candidate of the least cost, where `costs` are in the candidates' order.

    Equals go by chance in proportion to weight: always the first of them would send every router's requests
    to the same idle replica.
    """
    lowest = min(costs)
    if costs.count(lowest) == 1:
        return candidates[costs.index(lowest)]
    equals = [replica for replica, cost in zip(candidates, costs, strict=True) if cost == lowest]
    return equals[draw([replica.weight for replica in equals], random)]
