"""What one process allows while buckets cannot be counted together: its part of what was left of each.

Nobody can write to them then, so what is read of them stays as it was. Of n processes, each books every
request at n times its cost: it may use the n-th part of what is left, and earns the n-th part of the rate.
The mean of what all have booked is what the bucket would hold; `debts` are this process's addition to it.
"""

from collections.abc import Callable, Iterator, Sequence

from policies.limits.ask import Ask, Verdict
from policies.limits.gcra import decide

Read = Callable[[str], int]


class OwnShare:
    """`tat_us` and `held` read a bucket without a lock; `share` says how many processes there are, and which
    of them this one is, from 0."""

    def __init__(self, tat_us: Read, held: Read, share: Callable[[], tuple[int, int]]) -> None:
        self._tat_us = tat_us
        self._held = held
        self._share = share
        self._parts = 1
        self._rank = 0
        self._tats_us: dict[str, int] = {}
        self._bases_us: dict[str, int] = {}
        self._opened: dict[str, int] = {}

    @property
    def parts(self) -> int:
        return self._parts

    @property
    def owes(self) -> int:
        """So many buckets have to be told something."""
        return len(self._tats_us) + len(self._opened)

    def look(self, ask: Ask, now_us: int) -> Verdict:
        if not self.owes:
            self._parts, self._rank = self._share()
        tats_us = [self._tats_us.get(key, 0) or self._tat_us(key) for key, _, _ in ask.budgets]
        opened = [self._opened.get(key, 0) for key, _ in ask.slots]
        verdict = decide(self._part_of(ask), tats_us, opened, now_us)
        everywhere = [
            self._held(slots.key) + count for slots, count in zip(ask.slots, verdict.held, strict=True)
        ]
        return verdict._replace(held=everywhere)

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        verdict = self.look(ask, now_us)
        if verdict.admitted:
            for budget, backlog_us in zip(ask.budgets, verdict.backlogs_us, strict=True):
                self._touch(budget.key)
                self._tats_us[budget.key] = now_us + backlog_us
            for slots in ask.slots:
                self._opened[slots.key] = self._opened.get(slots.key, 0) + 1
        return verdict

    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None:
        """Also of what was admitted before."""
        if not self.owes:
            self._parts, self._rank = self._share()
        for budget, shift_us in zip(ask.budgets, shifts_us, strict=True):
            if shift_us:
                self._touch(budget.key)
                tat_us = max(self._tats_us[budget.key], now_us)
                self._tats_us[budget.key] = tat_us + shift_us * self._parts
        for slots in ask.slots:
            self._opened[slots.key] = self._opened.get(slots.key, 0) - 1

    def debts(self, now_us: int) -> Iterator[tuple[str, int]]:
        """By how much each budget has to be moved for what was booked here."""
        for key, tat_us in self._tats_us.items():
            booked_us = max(tat_us, now_us) - max(self._bases_us[key], now_us)
            yield key, -(-booked_us // self._parts)

    def opened(self) -> Iterator[tuple[str, int]]:
        """How many more of each slots this process has open than before; below 0 for fewer."""
        yield from self._opened.items()

    def forget(self) -> None:
        """All of it was told."""
        self._tats_us.clear()
        self._bases_us.clear()
        self._opened.clear()

    def _part_of(self, ask: Ask) -> Ask:
        budgets = [budget._replace(cost_us=budget.cost_us * self._parts) for budget in ask.budgets]
        slots = [each._replace(most=self._part(each.most - self._held(each.key))) for each in ask.slots]
        return Ask(ask.id, budgets, slots)

    def _part(self, free: int) -> int:
        """The parts of all add up to what is free: the first have one more."""
        return (max(0, free) + self._parts - 1 - self._rank) // self._parts

    def _touch(self, key: str) -> None:
        if key not in self._tats_us:
            self._tats_us[key] = self._bases_us[key] = self._tat_us(key)
