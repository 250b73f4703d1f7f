"""Which blocks the running requests of each replica occupy, shared ones once."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

_LONGEST_S: Final = 3600.0
"""No request takes longer; what is older lost its end."""


class _Request(NamedTuple):
    blocks: Sequence[int]
    at: float


class ActiveBlocks:
    """Tickets may be told twice or never end; to end one that is not there does nothing."""

    def __init__(self) -> None:
        self._requests: dict[str, dict[int, _Request]] = {}
        self._uses: dict[str, Counter[int]] = {}

    def after(self, blocks: Sequence[int], replica: str) -> int:
        """Blocks that `replica` would hold if it also ran a request of `blocks`.

        Whoever uses a block uses those before it, so what is shared is a run of leading blocks.
        """
        uses = self._uses.get(replica)
        if not uses:
            return len(blocks)
        shared = bisect_left(range(len(blocks)), 1, key=lambda position: blocks[position] not in uses)
        return len(uses) + len(blocks) - shared

    def begin(self, replica: str, ticket: int, blocks: Sequence[int], at: float) -> None:
        self.end(replica, ticket)
        requests = self._requests.setdefault(replica, {})
        requests[ticket] = _Request(blocks, at)
        self._uses.setdefault(replica, Counter()).update(blocks)
        while (oldest := next(iter(requests))) != ticket and requests[oldest].at < at - _LONGEST_S:
            self.end(replica, oldest)

    def end(self, replica: str, ticket: int) -> None:
        request = self._requests.get(replica, {}).pop(ticket, None)
        if request is None:
            return
        uses = self._uses[replica]
        for block in request.blocks:
            left = uses[block] - 1
            if left:
                uses[block] = left
            else:
                uses.pop(block)

    def forget(self, replica: str) -> None:
        """The replica was restarted: nothing runs there."""
        self._requests.pop(replica, None)
        self._uses.pop(replica, None)
