"""The buckets in the file, for whoever holds its lock: does what `policies.limits.book.Book` does.

A row is reused when its bucket is full again, or when nobody holds any of its slots. Where there is none,
what would need one is refused: nothing passes uncounted.
"""

import logging
from collections.abc import Container, Sequence

from policies.limits.ask import Ask, Verdict
from policies.limits.gcra import decide
from router.api.errors import Overloaded
from router.control.limits.bucket_file import WORD, BucketFile
from router.control.limits.places import Places
from router.control.limits.rows import NONE, Rows

log = logging.getLogger("turnout.control.limits")

_SURELY_FULL_US = 1_000_000
"""Longer than any process takes from looking at the clock to having the lock."""
_FAR_US = 1 << 62
_RETRY_S = 1.0


class Buckets:
    """`tat_us`, `held` and `share` may also be called without the lock, for values that nobody changes."""

    def __init__(self, file: BucketFile) -> None:
        geometry = file.geometry
        self._places = Places(file)
        self._budget_rows = Rows(file.map, geometry.budget_hashes_at, geometry.budgets)
        self._slots_rows = Rows(file.map, geometry.slots_hashes_at, geometry.slots)
        self._words = file.signed
        self._tats_at = geometry.tats_at // WORD
        self._complained = False

    def look(self, ask: Ask, now_us: int) -> Verdict:
        return self._decide(ask, *self._find(ask), now_us)

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        """Raises `Overloaded` where there is no row or no place for what it would take."""
        budgets, slots = self._find(ask)
        verdict = self._decide(ask, budgets, slots, now_us)
        if verdict.admitted:
            if NONE in budgets or NONE in slots:
                budgets, slots = self._claim(ask, budgets, slots, now_us)
            if slots:
                self._hold_one_more(slots)
            for row, backlog_us in zip(budgets, verdict.backlogs_us, strict=True):
                self._write(row, now_us + backlog_us)
        return verdict

    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None:
        for budget, shift_us in zip(ask.budgets, shifts_us, strict=True):
            if shift_us:
                self.move(budget.key, shift_us, now_us)
        for slots in ask.slots:
            self.open(slots.key, -1)

    def move(self, key: str, shift_us: int, now_us: int) -> None:
        """One budget, by so much. Does nothing where there is no row for a debt."""
        row = self._budget_rows.find(key)
        if row == NONE and shift_us > 0:
            row = self._claim_budget(key, (), now_us)
        if row != NONE:
            self._write(row, max(self._words[self._tats_at + row], now_us) + shift_us)

    def open(self, key: str, more: int) -> None:
        """So many more of these slots for this process. Does nothing where there is no row or no place."""
        row = self._slots_rows.find(key)
        if row == NONE and more > 0:
            row = self._claim_slots(key, ())
        if row != NONE and self.join():
            self._places.hold(row, max(0, self._places.own(row) + more))

    def tat_us(self, key: str) -> int:
        return self._words[self._tats_at + self._budget_rows.find(key)]

    def held(self, key: str) -> int:
        return self._places.held(self._slots_rows.find(key))

    def share(self) -> tuple[int, int]:
        """See `Places.share`."""
        return self._places.share()

    # ---- who takes part ----

    def join(self) -> bool:
        """Have a place to hold slots from. False if all are taken."""
        return self._places.taken or self._places.take()

    def leave(self) -> None:
        """What this process holds is free."""
        self._places.leave()

    def bury(self) -> bool:
        """What the dead held is free. True if somebody had died."""
        return self._places.bury()

    # ---- rows ----

    def _find(self, ask: Ask) -> tuple[list[int], list[int]]:
        budgets, slots = self._budget_rows, self._slots_rows
        return [budgets.find(key) for key, _, _ in ask.budgets], [slots.find(key) for key, _ in ask.slots]

    def _decide(self, ask: Ask, budgets: Sequence[int], slots: Sequence[int], now_us: int) -> Verdict:
        words, at, held = self._words, self._tats_at, self._places.held
        tats_us = [words[at + row] for row in budgets]
        verdict = decide(ask, tats_us, [held(row) for row in slots], now_us)
        if verdict.refused >= len(budgets) and self._places.bury():
            return decide(ask, tats_us, [held(row) for row in slots], now_us)
        return verdict

    def _write(self, row: int, tat_us: int) -> None:
        self._words[self._tats_at + row] = min(_FAR_US, tat_us)

    def _hold_one_more(self, slots: Sequence[int]) -> None:
        if not self.join():
            raise self._refusal("more processes than there are places for")
        own = [self._places.own(row) for row in slots]
        for row, count in zip(slots, own, strict=True):
            self._places.hold(row, count + 1)

    def _claim(
        self, ask: Ask, budgets: list[int], slots: list[int], now_us: int
    ) -> tuple[list[int], list[int]]:
        for index, row in enumerate(budgets):
            key = ask.budgets[index].key
            # Found again where an ask names a key twice.
            budgets[index] = row or self._budget_rows.find(key) or self._claim_budget(key, budgets, now_us)
        for index, row in enumerate(slots):
            key = ask.slots[index].key
            slots[index] = row or self._slots_rows.find(key) or self._claim_slots(key, slots)
        if NONE in budgets or NONE in slots:
            raise self._refusal("there is no row left for another bucket")
        return budgets, slots

    def _claim_budget(self, key: str, spared: Container[int], now_us: int) -> int:
        """A row, or `NONE` where all are in use."""
        past_us, words, at = max(0, now_us - _SURELY_FULL_US), self._words, self._tats_at
        row = self._budget_rows.claim(key, lambda row: words[at + row] <= past_us, spared)
        if row == NONE:
            self._complain("there is no row left for another token bucket")
        return row

    def _claim_slots(self, key: str, spared: Container[int]) -> int:
        row = self._slots_rows.claim(key, lambda row: not self._places.held(row), spared)
        if row == NONE:
            self._complain("there is no row left for other slots")
        return row

    def _refusal(self, reason: str) -> Overloaded:
        self._complain(reason)
        return Overloaded(f"limits cannot be counted: {reason}", retry_after_s=_RETRY_S)

    def _complain(self, reason: str) -> None:
        """Once: it may be so for every request."""
        if not self._complained:
            self._complained = True
            log.error("limits cannot be counted, and what needs them is refused: %s", reason)
