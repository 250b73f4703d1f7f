"""Which replica was given which prefix blocks of late: an approximate index of the replicas' caches.

One table holds, for every block, the replicas that have it as bits of one integer, so one walk along a prompt
answers for all of them. Beside it each replica's blocks in the order of last use bound what is kept.

The order is exact, as in the routers whose rules are built on this, and costs an ordered dictionary a
replica; that of `prefix_index`, the default policy's, is nearly exact and costs a fraction.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from policies.routing.events import Prompt

_MOST_REPLICAS: Final = 1024
"""How many replicas are remembered, so that addresses that change for ever take no more memory."""


class RecentBlocks:
    """Blocks are chained hashes, so a hit is a run of leading blocks; one past a gap counts for nothing."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._free_bits: list[int] = []

    def hits(self, blocks: Sequence[int], replicas: Sequence[str]) -> list[int]:
        """How many leading `blocks` each of `replicas` has, in their order."""
        bits = [shelf.bit if (shelf := self._shelves.get(replica)) else 0 for replica in replicas]
        found = [0] * len(bits)
        still = 0
        for bit in bits:
            still |= bit
        holders = self._holders.get
        for depth, block in enumerate(blocks):
            have = still & holders(block, 0)
            if have != still:
                _settle(found, bits, still ^ have, depth)
                still = have
            if not still:
                return found
        _settle(found, bits, still, len(blocks))
        return found

    def is_known(self, block: int) -> bool:
        """Whether any replica has it."""
        return block in self._holders

    def size(self, replica: str) -> int:
        """Blocks that it has."""
        shelf = self._shelves.get(replica)
        return len(shelf.blocks) if shelf else 0

    def add(self, replica: str, blocks: Sequence[int], capacity: float = inf) -> None:
        """The replica has `blocks` now, and of all it had the `capacity` last used.

        Of a prompt the deepest is evicted first, as engines do: it is of no use without those before it.
        """
        shelf = self._shelf(replica)
        bit, kept, holders = shelf.bit, shelf.blocks, self._holders
        for block in reversed(blocks):
            if block in kept:
                kept.move_to_end(block)
            else:
                kept[block] = None
                holders[block] = holders.get(block, 0) | bit
        evicted = []
        while len(kept) > capacity:
            evicted.append(kept.popitem(last=False)[0])
        self._drop(evicted, bit)

    def remove(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica has `blocks` no longer."""
        shelf = self._shelves.get(replica)
        if shelf is None:
            return
        gone = {block for block in blocks if block in shelf.blocks}
        for block in gone:
            del shelf.blocks[block]
        self._drop(gone, shelf.bit)

    def forget(self, replica: str) -> None:
        """The replica has nothing."""
        shelf = self._shelves.pop(replica, None)
        if shelf is None:
            return
        self._drop(shelf.blocks, shelf.bit)
        self._free_bits.append(shelf.bit)

    def _shelf(self, replica: str) -> "_Shelf":
        shelf = self._shelves.get(replica)
        if shelf is None:
            if len(self._shelves) == _MOST_REPLICAS:
                self.forget(next(iter(self._shelves)))
            bit = self._free_bits.pop() if self._free_bits else 1 << len(self._shelves)
            shelf = self._shelves[replica] = _Shelf(bit)
        self._shelves.move_to_end(replica)
        return shelf

    def _drop(self, blocks: Iterable[int], bit: int) -> None:
        """Takes the bit out of `blocks`, each of which has it."""
        holders = self._holders
        for block in blocks:
            left = holders[block] ^ bit
            if left:
                holders[block] = left
            else:
                del holders[block]


class _Shelf:
    """One replica's blocks, the least recent first, and its bit in the table."""

    __slots__ = ("bit", "blocks")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.blocks: OrderedDict[int, None] = OrderedDict()


def _settle(found: list[int], bits: list[int], lost: int, depth: int) -> None:
    """Writes `depth` for the replicas whose bit is in `lost`."""
    for index, bit in enumerate(bits):
        if bit & lost:
            found[index] = depth


def tokens_of(prompt: Prompt, blocks: float) -> float:
    """Tokens that the first `blocks` blocks of `prompt` stand for, never more than its length."""
    return min(prompt.tokens, blocks * prompt.block_tokens)
