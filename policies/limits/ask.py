"""What a limiter is asked and what it answers, in integers: the one vocabulary of all its stores.

A budget is measured in time: a request costs the microseconds in which the limit earns what it uses.
"""

from collections.abc import Sequence
from typing import NamedTuple

ADMITTED = -1
ENDLESS = 1 << 40
"""More slots than there are: to look at how many are held."""


class Budget(NamedTuple):
    """A token bucket that a request draws on.

    `cost_us` is never above `window_us`, which is how much a full bucket holds. The part of `key` in braces
    says which keys live together: Redis Cluster keeps those of one tenant on one node.
    """

    key: str
    cost_us: int
    window_us: int


class Slots(NamedTuple):
    """A bound on the requests open at a time; a request holds one of `most` until it is settled."""

    key: str
    most: int


class Ask(NamedTuple):
    """All that one request draws on: it gets everything or nothing. `id` is unlike that of any other ask."""

    id: str
    budgets: Sequence[Budget] = ()
    slots: Sequence[Slots] = ()


class Verdict(NamedTuple):
    """The answer, and the state it leaves behind.

    `refused` is `ADMITTED`, or the index of the tightest that refuses, counted over budgets and then slots.
    `backlogs_us` are, of each budget, how long until its bucket is full again; `held` of each `Slots` how
    many are open, this request included. `wait_us`: when the same ask would be admitted if nobody else came,
    as far as budgets know; 0 where slots alone refuse.
    """

    refused: int
    backlogs_us: Sequence[int]
    held: Sequence[int]
    wait_us: int = 0

    @property
    def admitted(self) -> bool:
        return self.refused == ADMITTED
