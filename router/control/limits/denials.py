"""Refusals are remembered for a moment: a client that hammers an empty bucket does not hammer Redis.

Never an admission: what is remembered can only be too strict, for as long as somebody gives back what they
did not use.
"""

from typing import Final, NamedTuple

from policies.limits.ask import Ask, Verdict

REMEMBERED_US: Final = 100_000
MOST: Final = 4096


class _Denial(NamedTuple):
    at_us: int
    ask: Ask
    verdict: Verdict


class Denials:
    """By the key of the bucket that refused."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Denial] = {}

    def note(self, now_us: int, ask: Ask, verdict: Verdict) -> None:
        """Who is refused for want of slots may find one free at any moment: that is not remembered."""
        if verdict.wait_us > 0:
            if len(self._by_key) >= MOST:
                self._by_key.clear()
            self._by_key[ask.budgets[verdict.refused].key] = _Denial(now_us, ask, verdict)

    def recall(self, now_us: int, ask: Ask) -> Verdict | None:
        """What Redis would say of an ask that takes as much or more of the same buckets."""
        if not self._by_key:
            return None
        for index, budget in enumerate(ask.budgets):
            denial = self._by_key.get(budget.key)
            if denial is not None and denial.verdict.refused == index:
                return self._repeated(now_us, ask, denial)
        return None

    def _repeated(self, now_us: int, ask: Ask, denial: _Denial) -> Verdict | None:
        gone_us, then = now_us - denial.at_us, denial.verdict
        index = then.refused
        budget = ask.budgets[index]
        more_us = budget.cost_us - denial.ask.budgets[index].cost_us
        wait_us = then.wait_us + more_us - gone_us
        if gone_us >= REMEMBERED_US or wait_us <= 0:
            del self._by_key[budget.key]
            return None
        if more_us < 0 or _buckets(ask) != _buckets(denial.ask):
            return None
        backlogs_us = [max(0, backlog_us - gone_us) for backlog_us in then.backlogs_us]
        return Verdict(index, backlogs_us, then.held, wait_us)


def _buckets(ask: Ask) -> list[tuple[str, int]]:
    return [(key, window_us) for key, _, window_us in ask.budgets]
