"""What is done while Redis cannot be asked, by `[redis] on_failure`; and what it is told afterwards."""

from collections.abc import Callable, Iterator
from secrets import token_hex

from policies.limits.ask import Ask, Verdict
from router.api.errors import Overloaded
from router.config.process import OnRedisFailure
from router.control.limits.leases import Leases
from router.control.limits.local import monotonic_us
from router.control.limits.node import Node
from router.control.limits.reservations import FreeReservation, Settle, SharedReservation, adopted, free
from router.control.limits.share import LastSeen, Share
from router.control.limits.store import Reservation

RETRY_S = 1.0
BUDGETS_PER_CALL = 50

PLACES = {
    "local_share": "this process, for its share",
    "deny": "nowhere: nothing is let in",
    "allow": "nowhere: everything is let in",
}


class Away:
    """The shares of this process: one for a server, or one for each tag of a cluster (its home).

    `settle` is what settles a reservation in Redis.
    """

    def __init__(
        self, on_failure: OnRedisFailure, leases: Leases, last_seen: LastSeen, settle: Settle
    ) -> None:
        self._on_failure = on_failure
        self._leases = leases
        self._last_seen = last_seen
        self._settle = settle
        self._shares: dict[str, Share] = {}

    @property
    def place(self) -> str:
        """Where buckets live meanwhile, in words."""
        return PLACES[self._on_failure]

    def admit(self, node: Node, home: str, ask: Ask) -> Reservation:
        """Raises `Overloaded` where nothing may pass uncounted."""
        if self._on_failure == "deny":
            raise _uncounted()
        if self._on_failure == "allow":
            return FreeReservation(ask)
        share = self._shares.get(home)
        if share is None:
            share = self._shares[home] = self._new_share(node)
        return SharedReservation(ask, share.admit(ask, monotonic_us()), share, self._settle, monotonic_us)

    def look(self, node: Node, home: str, ask: Ask) -> Verdict:
        """Raises `Overloaded` where nothing may pass uncounted."""
        if self._on_failure == "deny":
            raise _uncounted()
        if self._on_failure == "allow":
            return free(ask)
        share = self._shares.get(home) or self._new_share(node)
        return share.look(ask, monotonic_us())

    def end(self, over: Callable[[str], bool]) -> Iterator[Ask]:
        """End the shares of the homes that are `over`: what Redis has to take, whatever is left there."""
        for home in [home for home in self._shares if over(home)]:
            yield from self._end(self._shares.pop(home))

    def __len__(self) -> int:
        return len(self._shares)

    def _new_share(self, node: Node) -> Share:
        return Share(node.members.shares, self._last_seen.tats_us(monotonic_us()), self._leases.held)

    def _end(self, share: Share) -> Iterator[Ask]:
        now_us = monotonic_us()
        self._last_seen.note(now_us, *share.backlogs(now_us))
        used, still_open = share.end(now_us)
        for start in range(0, len(used), BUDGETS_PER_CALL):
            yield Ask(f"used-{token_hex(8)}", used[start : start + BUDGETS_PER_CALL])
        for ask in still_open:
            known = adopted(ask)
            self._leases.add(known)
            yield Ask(known.id, [budget._replace(cost_us=0) for budget in known.budgets], known.slots)


def _uncounted() -> Overloaded:
    return Overloaded("limits cannot be counted at the moment", retry_after_s=RETRY_S)
