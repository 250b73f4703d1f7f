"""The seam between what a request may use and where that is counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from policies.limits.ask import Ask, Verdict


class Reservation(Protocol):
    """The answer to one ask. An admitted one is settled exactly once, whatever becomes of its request."""

    @property
    def verdict(self) -> Verdict: ...

    def settle(self, shifts_us: Sequence[int]) -> None:
        """What was reserved becomes what was used: each budget moves by its shift, and slots are given back.

        Never waits and never fails: what cannot be written now is written later, once.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoreState:
    """How a store is. `place` says in words where buckets live now; the counters only grow."""

    place: str
    healthy: bool = True
    shares: int = 1
    """Among how many processes limits are divided while they cannot be counted together."""
    unsettled: int = 0
    """Settlements that wait to be written."""
    unknown: int = 0
    """Settlements of reservations that the store no longer knew."""
    resets: int = 0
    """Times that all buckets were lost."""
    lost: int = 0
    """Times that the store went away."""
    dropped: int = 0
    """Settlements that were given up, as too many waited or the store would not have them."""


def combined(states: Sequence[StoreState]) -> StoreState:
    """Of several processes; the place is the first's that is not well. Raises ValueError for none."""
    if not states:
        raise ValueError("there is no state of no store")
    shown = min(states, key=lambda state: state.healthy)
    return replace(
        shown,
        shares=max(state.shares for state in states),
        unsettled=sum(state.unsettled for state in states),
        unknown=sum(state.unknown for state in states),
        resets=max(state.resets for state in states),
        lost=sum(state.lost for state in states),
        dropped=sum(state.dropped for state in states),
    )


class LimitStore(Protocol):
    """Counts for everybody who uses the same store. Raises `Overloaded` where nothing may pass uncounted."""

    async def admit(self, ask: Ask) -> Reservation: ...

    async def look(self, ask: Ask) -> Verdict:
        """What `admit` would say now; takes nothing."""
        ...

    @property
    def state(self) -> StoreState: ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Write what waits to be written, for a moment."""
        ...
