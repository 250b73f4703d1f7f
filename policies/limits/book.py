"""Buckets in the memory of one process: the same semantics as those in Redis, without the way there."""

from collections.abc import Sequence

from policies.limits.ask import ADMITTED, Ask, Verdict
from policies.limits.gcra import decide

_SWEEP_EVERY = 4096


class Book:
    """Holds no more than the buckets that are not full: every so many asks, the full ones are forgotten."""

    def __init__(self) -> None:
        self._tats_us: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._asks = 0

    def look(self, ask: Ask, now_us: int) -> Verdict:
        """What `admit` would say; takes nothing."""
        tats_us, held = self._tats_us, self._held
        return decide(
            ask,
            [tats_us.get(budget[0], 0) for budget in ask.budgets],
            [held.get(slots[0], 0) for slots in ask.slots],
            now_us,
        )

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        verdict = self.look(ask, now_us)
        if verdict.refused == ADMITTED:
            tats_us = self._tats_us
            for budget, backlog_us in zip(ask.budgets, verdict.backlogs_us, strict=True):
                tats_us[budget[0]] = now_us + backlog_us
            for slots, held in zip(ask.slots, verdict.held, strict=True):
                self._held[slots[0]] = held
        self._asks += 1
        if self._asks % _SWEEP_EVERY == 0:
            self._sweep(now_us)
        return verdict

    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None:
        """What was reserved becomes what was used: each budget moves by its shift; the slots are given back.

        A shift above 0 is debt and may go beyond the window. One below 0 gives back at most a full bucket.
        Call it once for an admitted ask.
        """
        tats_us, held = self._tats_us, self._held
        for (key, _, _), shift_us in zip(ask.budgets, shifts_us, strict=True):
            if shift_us:
                tats_us[key] = max(tats_us.get(key, 0), now_us) + shift_us
        for key, _ in ask.slots:
            left = held.get(key, 0) - 1
            if left > 0:
                held[key] = left
            else:
                held.pop(key, None)

    def __len__(self) -> int:
        return len(self._tats_us) + len(self._held)

    def _sweep(self, now_us: int) -> None:
        self._tats_us = {key: tat_us for key, tat_us in self._tats_us.items() if tat_us > now_us}
