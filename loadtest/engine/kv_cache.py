"""KV blocks: reference-counted while requests hold them, found again by chained hash, evicted least
recently used.

Every block is either held (references > 0) or in the free queue; a free block keeps its content until it is
taken.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol


class KvListener(Protocol):
    """Told what enters and leaves the prefix cache. Hashes are 64-bit and equal in every process."""

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        """Consecutive full blocks became reusable; `parent` precedes the first, None at the start."""

    def removed(self, hashes: Sequence[int]) -> None: ...

    def cleared(self) -> None: ...


def chain_hash(parent: int, token_ids: Sequence[int]) -> int:
    """A block's hash. Python hashes tuples of integers equally in every process."""
    return hash((parent, *token_ids)) & 0xFFFFFFFFFFFFFFFF


class KvCache:
    """A fixed number of blocks. Callers give back exactly what they took or found."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.allocated = 0
        self.listeners: list[KvListener] = []
        self._references = [0] * num_blocks
        self._hash_of: list[int | None] = [None] * num_blocks
        self._block_of: dict[int, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def free(self) -> int:
        """Blocks that could be taken, cached ones included."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks that a later prompt could find, held or free."""
        return len(self._block_of)

    def find(self, hashes: Sequence[int]) -> list[int]:
        """Blocks of the longest known prefix. They are not held yet."""
        found: list[int] = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def idle(self, blocks: Sequence[int]) -> int:
        """How many of these nobody holds, so that holding them costs free blocks."""
        return sum(1 for block in blocks if not self._references[block])

    def hold(self, blocks: Sequence[int]) -> None:
        """Take a reference on found blocks."""
        for block in blocks:
            if not self._references[block]:
                del self._free[block]
            self._references[block] += 1

    def take(self, count: int) -> list[int] | None:
        """Hold `count` blocks without content, evicting the least recently used; None if too few."""
        if count > len(self._free):
            return None
        taken: list[int] = []
        evicted: list[int] = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            block_hash = self._hash_of[block]
            if block_hash is not None:
                evicted.append(block_hash)
                self._forget(block, block_hash)
            self._references[block] = 1
            taken.append(block)
        self.allocated += count
        for listener in self.listeners if evicted else ():
            listener.removed(evicted)
        return taken

    def _forget(self, block: int, block_hash: int) -> None:
        self._hash_of[block] = None
        del self._block_of[block_hash]

    def publish(
        self, blocks: Sequence[int], hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]
    ) -> None:
        """Make consecutive full blocks reusable; a block whose content is known already stays private."""
        size = self.block_size
        run = 0
        for index, (block, block_hash) in enumerate(zip(blocks, hashes, strict=True)):
            if block_hash in self._block_of:
                self._announce(hashes, parent, token_ids, run, index, size)
                run = index + 1
                continue
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash
        self._announce(hashes, parent, token_ids, run, len(blocks), size)

    def _announce(
        self,
        hashes: Sequence[int],
        parent: int | None,
        token_ids: Sequence[int],
        start: int,
        end: int,
        size: int,
    ) -> None:
        if start == end:
            return
        before = hashes[start - 1] if start else parent
        for listener in self.listeners:
            listener.stored(hashes[start:end], before, token_ids[start * size : end * size])

    def release(self, blocks: Sequence[int]) -> None:
        """Give back a sequence's blocks, in its order: private ones are evicted first, then the tail."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            self._free[block] = None
            if self._hash_of[block] is None:
                self._free.move_to_end(block, last=False)

    def clear(self) -> bool:
        """Forget all content; refused (False) while any block is held, as vLLM does."""
        if len(self._free) < self.num_blocks:
            return False
        self.lose()
        return True

    def lose(self) -> None:
        """Forget all content, held blocks too: whoever holds them goes on, nobody finds them any more."""
        for block_hash, block in list(self._block_of.items()):
            self._forget(block, block_hash)
        for listener in self.listeners:
            listener.cleared()
