"""Who is next when the fleet is full: priority, then fairness between tenants, then who came first.

Classes are strict, but for a floor: each class below the best that waits gets `FLOOR` of the tokens served.
Inside a class tenants take turns by tokens (deficit round robin: Shreedhar and Varghese, 1996), inside a
tenant the earliest deadline goes first, which without deadlines is first come, first served.

Whoever is cancelled is out at once: marks that are left in heaps hold no place, and are swept.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from policies.limits.drain_rate import DrainRate
from policies.limits.priority import PRIORITIES, Priority
from policies.limits.tenant_turns import TenantTurns, Waiting

FLOOR: Final = 0.05
"""Share of the tokens that a lower class gets whatever waits above it."""
_OWED_PER_TOKEN: Final = FLOOR / (1 - FLOOR)

Fits = Callable[[Hashable], bool]
"""Whether there is room now for this `Waiting.kind`."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait. A tenant's share is of both, but `least_of_tenant` requests are always its own."""

    max_requests: int = 1000
    max_bytes: int = 256 * 1024 * 1024
    tenant_share: float = 0.2
    least_of_tenant: int = 10


class Refusal(NamedTuple):
    """Why there is no place: for anybody, for this tenant, or none that is reached in time.

    `wait_s`: how long what is ahead of it will take; None: nobody can say yet.
    """

    reason: Literal["full", "tenant", "late"]
    wait_s: float | None


class FairQueue:
    """All that waits for one pool. Times are seconds and never go back."""

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._classes = {priority: TenantTurns() for priority in PRIORITIES}
        self._owed = dict.fromkeys(PRIORITIES, 0.0)
        self._drain = DrainRate()
        self.bytes = 0

    def bound(self, bounds: QueueBounds) -> None:
        """For what comes from now on; nobody who waits is sent away."""
        self._bounds = bounds

    def __len__(self) -> int:
        return sum(len(turns) for turns in self._classes.values())

    @property
    def tokens(self) -> int:
        return sum(turns.tokens for turns in self._classes.values())

    # ---- in ----

    def put(self, waiting: Waiting, now: float) -> list[Waiting] | Refusal:
        """Let it wait, and say who had to give way to it: the newest of the lowest class below its own."""
        refusal = self._refusal(waiting, now)
        if refusal is not None:
            return refusal
        displaced = self._make_room(waiting)
        if displaced is None:
            return Refusal("full", self.wait_s(waiting, now))
        self._drain.waits(now)
        self._classes[waiting.priority].add(waiting)
        self.bytes += waiting.bytes
        return displaced

    def wait_s(self, waiting: Waiting, now: float) -> float | None:
        """How long what would be ahead of it takes, as fast as the queue drains now; None: not known yet.

        Ahead are the classes above, and of its own class as much of each tenant as of its own.
        """
        ahead = self._classes[waiting.priority].tokens_ahead(waiting)
        for priority in PRIORITIES[: PRIORITIES.index(waiting.priority)]:
            ahead += self._classes[priority].tokens
        return self._drain.wait_s(ahead, now)

    def _refusal(self, waiting: Waiting, now: float) -> Refusal | None:
        wait_s = self.wait_s(waiting, now)
        if self._bounds.tenant_share < 1 and self._tenant_is_full(waiting):
            return Refusal("tenant", wait_s)
        if now + (wait_s or 0.0) >= waiting.expires_at:
            return Refusal("late", wait_s)
        return None

    def _tenant_is_full(self, waiting: Waiting) -> bool:
        """It has its share in all classes together. One request, however large, is always its own."""
        requests, size = 0, 0
        for turns in self._classes.values():
            tenant = turns.of(waiting.tenant)
            if tenant is not None:
                requests, size = requests + len(tenant), size + tenant.bytes
        bounds = self._bounds
        most = max(bounds.least_of_tenant, int(bounds.tenant_share * bounds.max_requests))
        most_bytes = bounds.tenant_share * bounds.max_bytes
        return requests >= most or (requests > 0 and size + waiting.bytes > most_bytes)

    def _make_room(self, waiting: Waiting) -> list[Waiting] | None:
        """Take out whom it displaces; None: not even that makes room, and nobody was."""
        requests = len(self) + 1 - self._bounds.max_requests
        size = self.bytes + waiting.bytes - self._bounds.max_bytes
        displaced: list[Waiting] = []
        for priority in reversed(PRIORITIES[PRIORITIES.index(waiting.priority) + 1 :]):
            for victim in self._classes[priority].newest_first():
                if requests <= 0 and size <= 0:
                    break
                displaced.append(victim)
                requests, size = requests - 1, size - victim.bytes
        if requests > 0 or size > 0:
            return None
        for victim in displaced:
            self._remove(victim)
        return displaced

    # ---- out ----

    def take(self, now: float, fits: Fits | None = None) -> Waiting | None:
        """Who is next of those for whom there is room; None: nobody is. Take the `expired` out before."""
        for priority in self._order():
            taken = self._classes[priority].take(fits)
            if taken is not None:
                self._owe(priority, taken.tokens)
                self._left(taken)
                self._drain.took(taken.tokens, now)
                self._rest_if_empty(now)
                return taken
        return None

    def cancel(self, waiting: Waiting, now: float) -> bool:
        """It left. False: it does not wait here (any more)."""
        if not self._remove(waiting):
            return False
        self._rest_if_empty(now)
        return True

    def expired(self, now: float) -> list[Waiting]:
        """Those that have waited as long as they may; they are out."""
        late = [waiting for turns in self._classes.values() for waiting in turns.expired(now)]
        for waiting in late:
            self._left(waiting)
        if late:
            self._rest_if_empty(now)
        return late

    def _order(self) -> list[Priority]:
        """Classes that are owed their floor, the lowest first, then all by rank."""
        waiting = [priority for priority in PRIORITIES if self._classes[priority]]
        return [each for each in reversed(waiting[1:]) if self._owed[each] > 0] + waiting

    def _owe(self, served: Priority, tokens: int) -> None:
        """Every class that waits below the best earns its floor when another one is served."""
        best = next(each for each in PRIORITIES if self._classes[each] or each == served)
        if served != best:
            # May go below 0: a class that waits with one request at a time gets no more than its floor.
            self._owed[served] -= tokens
        for priority in PRIORITIES[PRIORITIES.index(best) + 1 :]:
            if priority != served and self._classes[priority]:
                self._owed[priority] += tokens * _OWED_PER_TOKEN

    def _remove(self, waiting: Waiting) -> bool:
        removed = self._classes[waiting.priority].remove(waiting)
        if removed:
            self._left(waiting)
        return removed

    def _left(self, waiting: Waiting) -> None:
        self.bytes -= waiting.bytes
        if not self._classes[waiting.priority]:
            # Nobody is owed anything who does not wait.
            self._owed[waiting.priority] = min(self._owed[waiting.priority], 0.0)

    def _rest_if_empty(self, now: float) -> None:
        if not len(self):
            self._drain.rests(now)
