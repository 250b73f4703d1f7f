"""Streams that use more than was reserved, under limits that end such streams when nothing is left."""

from collections.abc import Sequence
from typing import Final

from policies.limits.ask import Ask, Budget
from policies.limits.rules import Bucket
from router.control.limits.store import LimitStore, Reservation

STEP_TOKENS: Final = 64
"""Taken at a time: a second of a usual stream."""
AHEAD_TOKENS: Final = 16
"""How soon before the end of what is granted more is asked for; an answer takes a millisecond."""


class Overrun:
    """Grows one stream's reservation while it runs. `buckets` are those that end a stream.

    `granted` are output tokens that it may have by now.
    """

    __slots__ = ("_buckets", "_extra", "_id", "_reservations", "_settled", "_store", "granted")

    def __init__(self, store: LimitStore, ask_id: str, buckets: Sequence[Bucket], granted: int) -> None:
        self._store = store
        self._id = ask_id
        self._buckets = buckets
        self._reservations: list[Reservation] = []
        self._settled = False
        self._extra = dict.fromkeys((bucket.budget.key for bucket in buckets), 0)
        self.granted = granted

    @property
    def due_at(self) -> int:
        """After so many tokens `extend` is due."""
        return max(1, self.granted - AHEAD_TOKENS)

    @property
    def name(self) -> str:
        """The limit that ends the stream, or the first that may."""
        return self._buckets[0].limit.name

    async def extend(self) -> bool:
        """Take more, or what is left if that is less. False: there is nothing. Raises `Overloaded`.

        What is granted after `settle` is given back at once.
        """
        reservation = await self._take(STEP_TOKENS)
        if not reservation.verdict.admitted and not self._settled:
            left = min(map(_left, self._buckets, reservation.verdict.backlogs_us))
            if left < 1:
                return False
            reservation = await self._take(min(left, STEP_TOKENS))
        return reservation.verdict.admitted

    def extra_us(self, bucket: Bucket) -> int:
        """What was taken of a bucket beyond the first reservation."""
        return self._extra.get(bucket.budget.key, 0)

    def settle(self) -> None:
        """What was taken stays; the first reservation's settlement gives back what was not used of it."""
        self._settled = True
        for reservation in self._reservations:
            reservation.settle([0] * len(self._buckets))
        self._reservations.clear()

    async def _take(self, tokens: int) -> Reservation:
        budgets = [_budget(bucket, tokens) for bucket in self._buckets]
        number = len(self._reservations)
        reservation = await self._store.admit(Ask(f"{self._id}+{number}.{tokens}", budgets))
        if reservation.verdict.admitted and self._settled:
            # The stream ended while this was asked, and `extra_us` was counted without it.
            reservation.settle([-budget.cost_us for budget in budgets])
        elif reservation.verdict.admitted:
            self._reservations.append(reservation)
            self.granted += tokens
            for budget in budgets:
                self._extra[budget.key] += budget.cost_us
        return reservation


def _budget(bucket: Bucket, tokens: int) -> Budget:
    units = min(tokens, bucket.rate.capacity)
    return bucket.budget._replace(cost_us=bucket.rate.cost_us(units))


def _left(bucket: Bucket, backlog_us: int) -> int:
    return bucket.rate.units(max(0, bucket.rate.window_us - backlog_us))
