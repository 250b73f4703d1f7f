"""What a number has been lately: two quantiles of the last so many, at hand at any time.

A window forgets by count: what a tenant did yesterday is as good as new until it does something else.
"""

from array import array
from typing import Final

_LARGEST: Final = 2**32 - 1


class Recent:
    """Holds at most `size` numbers, 4 bytes each. `middle` and `high` are the median and the 90th percentile.

    Both are those of the window as of at most an eighth of it ago, and 0 before the first number.
    """

    __slots__ = ("_next", "_size", "_unseen", "_values", "count", "high", "middle")

    def __init__(self, size: int = 64) -> None:
        self.middle = 0
        self.high = 0
        self.count = 0
        """Numbers in the window."""
        self._size = size
        self._values = array("I")
        self._next = 0
        self._unseen = 0

    def add(self, value: int) -> None:
        """Takes any number of 0 or more; what is beyond 32 bits counts as the largest there is."""
        value = min(value, _LARGEST)
        if self.count < self._size:
            self._values.append(value)
            self.count += 1
        else:
            self._values[self._next] = value
            self._next = (self._next + 1) % self._size
        self._unseen += 1
        if self._unseen * 8 > self.count:
            self._look()

    def _look(self) -> None:
        # To sort costs some microseconds: so it is done now and then, and never by who asks.
        ranked = sorted(self._values)
        self.middle = ranked[len(ranked) // 2]
        self.high = ranked[len(ranked) * 9 // 10]
        self._unseen = 0
