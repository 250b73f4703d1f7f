"""Host memory behind the KV cache, as LMCache and HiCache have it: what was cached once is copied back in for
a fraction of its prefill.

Written through: a block is in the tier from the moment it is in the cache, and leaves by its own LRU order.
"""

from collections import OrderedDict
from collections.abc import Sequence


class HostTier:
    """At most `num_blocks` hashes. A `KvListener` of the cache before it."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._known: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, hashes: Sequence[int]) -> int:
        """How many of these are there, from the first on without a gap."""
        known = self._known
        for count, block_hash in enumerate(hashes):
            if block_hash not in known:
                return count
        return len(hashes)

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:  # noqa: ARG002
        self.touch(hashes)
        while len(self._known) > self.num_blocks:
            self._known.popitem(last=False)

    def touch(self, hashes: Sequence[int]) -> None:
        """Used now; of one chain the deepest block is the first to go."""
        known = self._known
        for block_hash in reversed(hashes):
            known[block_hash] = None
            known.move_to_end(block_hash)

    def removed(self, hashes: Sequence[int]) -> None:
        """Eviction from the cache is no loss here."""

    def cleared(self) -> None:
        self._known.clear()
