"""What the number of a batch says: the publisher's numbers begin at 0 and grow by one for its whole life.

Live and replayed batches come on two connections, so that a number below the next one is no news of a new
life: only one below the last live one is. Decides only; whoever holds the sockets acts.
"""

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What to do with a live batch."""

    NEXT = "next"
    SEEN = "seen"
    """A replay told it before."""
    GAP = "gap"
    """Batches between are missing."""
    ANEW = "anew"
    """The publisher began again."""


@dataclass(slots=True)
class BatchOrder:
    """`expected`: the number of the next batch; `live`: the last one that came live, -1 before the first."""

    expected: int = 0
    live: int = -1

    def judge(self, number: int) -> Verdict:
        """Of a live batch; nothing is taken for applied yet."""
        if number <= self.live:
            return Verdict.ANEW
        self.live = number
        if number < self.expected:
            return Verdict.SEEN
        return Verdict.NEXT if number == self.expected else Verdict.GAP

    def applied(self, number: int) -> None:
        self.expected = number + 1

    def begin_anew(self) -> None:
        self.expected = 0
        self.live = -1
