"""Work that replicas were given and have not done: sums per replica, from dispatch to whatever ends it.

Events may be late, missing or told twice: to add a ticket again replaces it, to release one that is not there
does nothing, and one that is never released expires.
"""

from typing import Final, NamedTuple

_LONGEST_S: Final = 3600.0
"""No request takes longer; what is older lost its end."""


class Given(NamedTuple):
    """One request's part: an amount, and when it was given (seconds on the events' clock)."""

    amount: float
    at: float


class PendingWork:
    """Amounts are in whatever unit they are added in, for example tokens to prefill."""

    def __init__(self) -> None:
        self._given: dict[str, dict[int, Given]] = {}
        self._totals: dict[str, float] = {}

    def total(self, replica: str) -> float:
        return self._totals.get(replica, 0.0)

    def add(self, replica: str, ticket: int, amount: float, at: float) -> None:
        self.release(replica, ticket)
        given = self._given.setdefault(replica, {})
        given[ticket] = Given(amount, at)
        self._totals[replica] = self._totals.get(replica, 0.0) + amount
        while (oldest := next(iter(given))) != ticket and given[oldest].at < at - _LONGEST_S:
            self.release(replica, oldest)

    def release(self, replica: str, ticket: int) -> Given | None:
        """What it was; None if it is not there (any more)."""
        given = self._given.get(replica, {})
        entry = given.pop(ticket, None)
        if entry is None:
            return None
        if given:
            self._totals[replica] -= entry.amount
        else:  # also ends whatever rounding has piled up
            self.forget(replica)
        return entry

    def forget(self, replica: str) -> None:
        """The replica was restarted: nothing waits there."""
        self._given.pop(replica, None)
        self._totals.pop(replica, None)
