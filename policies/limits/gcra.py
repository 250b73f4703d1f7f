"""Token buckets as one integer each: the generic cell rate algorithm, and its arithmetic.

The integer is the theoretical arrival time (TAT): the moment at which the bucket will be full again. What a
request takes moves it on; time alone brings it back. ITU-T I.371 (1996), annex A; as a limiter of requests:
https://brandur.org/rate-limiting. All stores follow `decide`, the one in Redis included.
"""

from collections.abc import Sequence
from fractions import Fraction

from policies.limits.ask import ADMITTED, Ask, Verdict

_MINUTE_US = 60_000_000


class Rate:
    """So many units a minute, of which `burst_s` seconds' worth may be used at once."""

    __slots__ = ("_denominator", "_numerator", "capacity", "window_us")

    def __init__(self, per_minute: float, burst_s: float) -> None:
        # Whole numbers: a float's quotient could sell a fraction of a unit twice.
        self._numerator, denominator = Fraction(per_minute).as_integer_ratio()
        self._denominator = denominator * _MINUTE_US
        self.window_us = round(burst_s * 1_000_000)
        self.capacity = self.units(self.window_us)
        """Whole units in a full bucket."""

    def cost_us(self, units: int) -> int:
        """The time in which `units` are earned, rounded up: so it is never sold twice.

        The rounding undersells by less than 1 us a request: of 1,000 requests a second, 0.1 %.
        """
        return -(-units * self._denominator // self._numerator)

    def units(self, time_us: int) -> int:
        """Whole units earned in that time."""
        return time_us * self._numerator // self._denominator


def decide(ask: Ask, tats_us: Sequence[int], held: Sequence[int], now_us: int) -> Verdict:
    """All or nothing. `tats_us` are the TATs of the ask's budgets, `held` the open requests of its slots.

    When admitted, a budget's new TAT is `now_us` plus its backlog, and one more is held of each slot.
    """
    before: list[int] = []
    after: list[int] = []
    refused, wait_us = ADMITTED, 0
    for (_, cost_us, window_us), tat_us in zip(ask.budgets, tats_us, strict=True):
        backlog_us = tat_us - now_us if tat_us > now_us else 0
        before.append(backlog_us)
        backlog_us += cost_us
        after.append(backlog_us)
        if backlog_us - window_us > wait_us:
            refused, wait_us = len(before) - 1, backlog_us - window_us
    if refused == ADMITTED:
        for slots, count in zip(ask.slots, held, strict=True):
            if count >= slots.most:
                return Verdict(len(before) + ask.slots.index(slots), before, held)
        return Verdict(ADMITTED, after, [count + 1 for count in held])
    return Verdict(refused, before, held, wait_us)
