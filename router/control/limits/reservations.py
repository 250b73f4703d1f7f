"""What an admitted ask holds, by where it was admitted."""

from collections.abc import Callable, Sequence

from policies.limits.ask import ADMITTED, Ask, Verdict
from router.control.limits.parts import Part
from router.control.limits.share import Share
from router.control.limits.store import Reservation

Settle = Callable[[Ask, Sequence[int]], None]


class CountedReservation:
    """Made in Redis. `stamp` is the server's time in us and the number of the decision, where asked for."""

    __slots__ = ("_ask", "_settle", "stamp", "verdict")

    def __init__(self, ask: Ask, verdict: Verdict, stamp: tuple[int, int], settle: Settle) -> None:
        self.verdict = verdict
        self.stamp = stamp
        self._ask = ask
        self._settle = settle

    def settle(self, shifts_us: Sequence[int]) -> None:
        self._settle(self._ask, shifts_us)


class SharedReservation:
    """Made from this process's share. Once Redis was told of it, it is settled there, by another id.

    The id of the ask itself may have been cancelled there.
    """

    __slots__ = ("_ask", "_now_us", "_settle", "_share", "verdict")

    def __init__(
        self, ask: Ask, verdict: Verdict, share: Share, settle: Settle, now_us: Callable[[], int]
    ) -> None:
        self.verdict = verdict
        self._ask = ask
        self._share = share
        self._settle = settle
        self._now_us = now_us

    def settle(self, shifts_us: Sequence[int]) -> None:
        if self._share.ended:
            self._settle(adopted(self._ask), shifts_us)
        else:
            self._share.settle(self._ask, shifts_us, self._now_us())


class PartedReservation:
    """Made at several nodes; `reservations` are of its `parts`, or fewer where a later one has refused."""

    __slots__ = ("_parts", "_reservations", "verdict")

    def __init__(self, verdict: Verdict, parts: Sequence[Part], reservations: Sequence[Reservation]) -> None:
        self.verdict = verdict
        self._parts = parts
        self._reservations = reservations

    def settle(self, shifts_us: Sequence[int]) -> None:
        for part, reservation in zip(self._parts, self._reservations, strict=True):
            reservation.settle(part.shifts(shifts_us))


class FreeReservation:
    """Counted nowhere."""

    __slots__ = ("verdict",)

    def __init__(self, ask: Ask) -> None:
        self.verdict = free(ask)

    def settle(self, shifts_us: Sequence[int]) -> None:
        """Nothing was taken."""


def free(ask: Ask) -> Verdict:
    return Verdict(ADMITTED, [0] * len(ask.budgets), [0] * len(ask.slots))


def adopted(ask: Ask) -> Ask:
    """What Redis knows an ask as that was admitted without it."""
    return Ask(f"{ask.id}:l", ask.budgets, ask.slots)
