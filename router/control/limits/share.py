"""While Redis is away: this process admits its share of every limit from a book of its own.

All that live divide a limit evenly: a request costs as many times more as there are processes, and slots are
divided. What was used is owed to Redis afterwards.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from policies.limits.ask import Ask, Budget, Slots, Verdict
from policies.limits.book import Book

FRESH_US = 2_000_000
"""What this process saw of a bucket longer ago says little: others draw on it too."""
REMEMBERED_ASKS = 4096
UNSEEN = 20
"""A bucket that was not seen starts with this part of a full one: all that live admit 5 % more at most."""


class LastSeen:
    """What the last asks said of their buckets, by this process's own clock."""

    def __init__(self) -> None:
        self._asks: deque[tuple[int, Ask, Verdict]] = deque(maxlen=REMEMBERED_ASKS)

    def note(self, now_us: int, ask: Ask, verdict: Verdict) -> None:
        self._asks.append((now_us, ask, verdict))

    def forget(self) -> None:
        self._asks.clear()

    def tats_us(self, now_us: int) -> dict[str, int]:
        """When each bucket that was seen lately will be full."""
        tats: dict[str, int] = {}
        for at_us, ask, verdict in self._asks:
            if now_us - at_us < FRESH_US:
                for budget, backlog_us in zip(ask.budgets, verdict.backlogs_us, strict=True):
                    tats[budget.key] = at_us + backlog_us
        return tats


class Share:
    """From the moment in which Redis is not there to that in which it is told what was used.

    `held` says how many this process holds of some slots in Redis. All times are this process's own.
    """

    def __init__(self, shares: int, tats_us: Mapping[str, int], held: Callable[[str], int]) -> None:
        self._shares = shares
        self._tats_us = tats_us
        self._held = held
        self._book = Book()
        self._starts: dict[str, tuple[int, int]] = {}
        self._open: dict[str, Ask] = {}
        self.ended = False

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        verdict = self._look(ask, now_us, self._book.admit)
        if verdict.admitted:
            self._open[ask.id] = ask
            # What did not fit into the window is owed too.
            more = [self._shares * cost - min(self._shares * cost, window) for _, cost, window in ask.budgets]
            self._book.settle(Ask(ask.id, ask.budgets), more, now_us)
        return verdict

    def look(self, ask: Ask, now_us: int) -> Verdict:
        return self._look(ask, now_us, self._book.look)

    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None:
        if self._open.pop(ask.id, None) is not None:
            self._book.settle(ask, [shift_us * self._shares for shift_us in shifts_us], now_us)

    def end(self, now_us: int) -> tuple[list[Budget], list[Ask]]:
        """What Redis has to be told: the use of each budget that time has not brought back, and who is open.

        The share's backlog is its use times the shares, less the time that went by. What it would be without
        that use is in Redis already, so of all processes together the rest is what Redis does not know.
        """
        self.ended = True
        used = []
        for key, (start_us, window_us) in self._starts.items():
            (backlog_us,) = self._book.look(Ask("", [Budget(key, 0, window_us)]), now_us).backlogs_us
            unknown_us = backlog_us - max(0, start_us - now_us)
            if unknown_us > 0:
                used.append(Budget(key, -(-unknown_us // self._shares), window_us))
        return used, list(self._open.values())

    def backlogs(self, now_us: int) -> tuple[Ask, Verdict]:
        """What `LastSeen` should know of its buckets afterwards."""
        budgets = [Budget(key, 0, window_us) for key, (_, window_us) in self._starts.items()]
        return Ask("", budgets), self._book.look(Ask("", budgets), now_us)

    def _look(self, ask: Ask, now_us: int, decide: Callable[[Ask, int], Verdict]) -> Verdict:
        budgets = []
        for key, cost_us, window_us in ask.budgets:
            share_us = min(self._shares * cost_us, window_us)
            budgets.append(Budget(key, share_us, window_us))
            if key not in self._starts:
                self._begin(key, share_us, window_us, now_us)
        held = [self._held(key) for key, _ in ask.slots]
        slots = [
            Slots(key, max(1, most // self._shares) - held[index])
            for index, (key, most) in enumerate(ask.slots)
        ]
        verdict = decide(Ask(ask.id, budgets, slots), now_us)
        return verdict._replace(held=[mine + before for mine, before in zip(verdict.held, held, strict=True)])

    def _begin(self, key: str, cost_us: int, window_us: int, now_us: int) -> None:
        """A bucket starts from what was last seen; else nearly empty, but with room for one request."""
        unseen_us = now_us + min(window_us - window_us // UNSEEN, window_us - cost_us)
        tat_us = self._tats_us.get(key, unseen_us)
        self._starts[key] = (tat_us, window_us)
        if tat_us > now_us:
            self._book.settle(Ask("", [Budget(key, 0, window_us)]), [tat_us - now_us], now_us)
