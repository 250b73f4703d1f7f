"""Which blocks the running requests of each replica occupy, shared ones once."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from policies.routing.recent_blocks import RecentBlocks

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
        self._occupied = RecentBlocks()

    def after(self, blocks: Sequence[int], replicas: Sequence[str]) -> list[int]:
        """Blocks that each of `replicas` would hold if it also ran a request of `blocks`."""
        shared = self._occupied.hits(blocks, replicas)
        return [
            self._occupied.size(replica) + len(blocks) - hit
            for replica, hit in zip(replicas, shared, strict=True)
        ]

    def begin(self, replica: str, ticket: int, blocks: Sequence[int], at: float) -> None:
        self.end(replica, ticket)
        requests = self._requests.setdefault(replica, {})
        requests[ticket] = _Request(blocks, at)
        self._uses.setdefault(replica, Counter()).update(blocks)
        self._occupied.add(replica, blocks)
        while (oldest := next(iter(requests))) != ticket and requests[oldest].at < at - _LONGEST_S:
            self.end(replica, oldest)

    def end(self, replica: str, ticket: int) -> None:
        request = self._requests.get(replica, {}).pop(ticket, None)
        if request is None:
            return
        uses = self._uses[replica]
        unused = []
        for block in request.blocks:
            uses[block] -= 1
            if not uses[block]:
                del uses[block]
                unused.append(block)
        self._occupied.remove(replica, unused)

    def forget(self, replica: str) -> None:
        """The replica was restarted: nothing runs there."""
        self._requests.pop(replica, None)
        self._uses.pop(replica, None)
        self._occupied.forget(replica)
