"""Which replica holds which prefix: a mirror of every replica's cache, as true as its capacity is known.

One table maps a block's hash to the replicas that hold it: one walk along a prompt answers for all.
Each mirror evicts by CLOCK, which is least recently used but for the order among the old ones (Corbato, "A
Paging Experiment with the Multics System", 1968): to keep that would cost as much memory as the table.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

SCOPE_BITS: Final = 12
"""The low bits of a hash are its scope's (a tenant's), whose blocks can be counted by them."""
_HASH_BYTES: Final = 32
"""An integer of up to 60 bits in CPython; one of 64 takes 48."""
_FACE_BYTES: Final = 8
_SLOT_BYTES: Final = 20
"""Of a dictionary: 4 in its index, and two thirds of an entry of 24."""
_MAX_SWEEP: Final = 32
_MAX_MASKS: Final = 1 << 16
_STALE_PER_BLOCK: Final = 4


class _Mirror:
    """One replica's blocks, on a clock face. `present` and `used` are its bits in the table's masks."""

    __slots__ = ("blocks", "capacity", "hand", "present", "used")

    def __init__(self, number: int, capacity: int) -> None:
        self.present = 1 << 2 * number
        self.used = self.present << 1
        self.capacity = capacity
        self.blocks = array("Q")
        self.hand = -1


def blocks_within(budget_bytes: int) -> int:
    """How many blocks of hashes of 60 bits an index may hold and stay within `budget_bytes`.

    A dictionary that is full of removed entries is remade for three times what it holds, rounded up to a
    power of two (CPython's `dictobject.c`): 82 bytes a block at first, up to 160 later.
    """
    best = 0
    slots = 8
    while slots * _SLOT_BYTES < budget_bytes:
        rest = budget_bytes - slots * _SLOT_BYTES
        best = max(best, min(slots // 3, rest // (_HASH_BYTES + _FACE_BYTES)))
        slots *= 2
    return best


class PrefixIndex:
    """Mirrors by replica name, made when first written to; `capacity` is theirs in blocks until told better.

    `max_blocks` bounds all mirrors together, `scope_share` (0 to 1) what one scope may take of each.
    """

    def __init__(self, max_blocks: int, capacity: int, scope_share: float = 1.0) -> None:
        self._max_blocks = max_blocks
        self._capacity = capacity
        self._scope_share = scope_share
        self._table: dict[int, int] = {}
        self._mirrors: dict[str, _Mirror] = {}
        self._names: dict[int, str] = {}
        self._live = 0
        self._size = 0
        # Equal masks are one object: there are few different ones among millions of blocks.
        self._masks: dict[int, int] = {}
        self._stale: list[_Mirror] = []
        self._free_numbers: list[int] = []
        self._next_number = 0
        self._by_scope: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Blocks in all mirrors, each counted once per mirror, forgotten ones until they are swept."""
        return self._size

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        """For each replica that holds the first block: how many from the first on it holds without a gap."""
        holders = self._live
        table = self._table
        found: dict[str, int] = {}
        names = self._names
        depth = 0
        for block in blocks:
            remaining = holders & table.get(block, 0)
            if remaining != holders:
                if depth:
                    for present in _bits(holders ^ remaining):
                        found[names[present]] = depth
                holders = remaining
                if not holders:
                    return found
            depth += 1
        if depth:
            for present in _bits(holders):
                found[names[present]] = depth
        return found

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica has been given a prompt of these blocks: it will hold them, and they are its newest.

        Deepest first: what the clock's hand meets first is what the engine evicts first.
        """
        mirror = self._mirrors.get(replica) or self._add(replica)
        table, masks = self._table, self._masks
        present, used = mirror.present, mirror.used
        new = 0
        for block in reversed(blocks):
            mask = table.get(block, 0)
            if not mask & present:
                if not self._admit(mirror, block):
                    continue
                # The hand has just been here: one round is as long as a block unused may stay.
                mask = table.get(block, 0) | present
                new += 1
            elif mask & used:
                continue
            else:
                mask |= used
            table[block] = masks.setdefault(mask, mask)
        if len(masks) > _MAX_MASKS:
            masks.clear()
        if self._stale:
            self._sweep(_STALE_PER_BLOCK * (new + 1))

    def remove(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica said that it no longer holds these."""
        mirror = self._mirrors.get(replica)
        for block in blocks if mirror else ():
            assert mirror is not None
            if self._table.get(block, 0) & mirror.present:
                # Its place on the clock face is found empty when the hand comes by.
                self._drop(mirror, block)

    def forget(self, replica: str) -> None:
        """The replica holds nothing any more. At once, however much it held: the sweep follows by and by."""
        mirror = self._mirrors.pop(replica, None)
        if mirror is None:
            return
        self._live &= ~mirror.present
        del self._names[mirror.present]
        self._stale.append(mirror)

    def resize(self, replica: str, capacity: int) -> None:
        """Set how many blocks the replica's cache holds."""
        mirror = self._mirrors.get(replica) or self._add(replica)
        mirror.capacity = max(1, capacity)
        while len(mirror.blocks) > mirror.capacity:
            self._shrink(mirror)

    def capacity_of(self, replica: str) -> int:
        """In blocks."""
        mirror = self._mirrors.get(replica)
        return self._capacity if mirror is None else mirror.capacity

    def sizes(self) -> Mapping[str, int]:
        """Blocks per replica."""
        return {replica: len(mirror.blocks) for replica, mirror in self._mirrors.items()}

    # ---- inside ----

    def _add(self, replica: str) -> _Mirror:
        if self._free_numbers:
            number = self._free_numbers.pop()
        else:
            number = self._next_number
            self._next_number += 1
        mirror = self._mirrors[replica] = _Mirror(number, self._capacity)
        self._names[mirror.present] = replica
        self._live |= mirror.present
        return mirror

    def _admit(self, mirror: _Mirror, block: int) -> bool:
        """Find a place for a block that the mirror does not hold; False if its scope has had its share."""
        if self._scope_share < 1.0 and not self._count_in(mirror, block):
            return False
        if len(mirror.blocks) < mirror.capacity:
            if self._size >= self._max_blocks:
                self._shrink(max(self._mirrors.values(), key=_size_of))
            mirror.blocks.append(block)
            self._size += 1
        else:
            mirror.blocks[self._reclaim(mirror)] = block
        return True

    def _count_in(self, mirror: _Mirror, block: int) -> bool:
        key = mirror.present, block & ((1 << SCOPE_BITS) - 1)
        count = self._by_scope.get(key, 0)
        if count >= self._scope_share * mirror.capacity:
            return False
        self._by_scope[key] = count + 1
        return True

    def _reclaim(self, mirror: _Mirror) -> int:
        """Evict a block that was not used since the hand last came by; its place on the face."""
        blocks, table, masks = mirror.blocks, self._table, self._masks
        for _ in range(_MAX_SWEEP):
            place = mirror.hand = mirror.hand + 1 if mirror.hand + 1 < len(blocks) else 0
            mask = table.get(blocks[place], 0)
            if not mask & mirror.present:
                return place
            if not mask & mirror.used:
                break
            unused = mask ^ mirror.used
            table[blocks[place]] = masks.setdefault(unused, unused)
        self._drop(mirror, blocks[mirror.hand])
        return mirror.hand

    def _shrink(self, mirror: _Mirror) -> None:
        """One place less on the face."""
        place = self._reclaim(mirror)
        last = mirror.blocks.pop()
        if place < len(mirror.blocks):
            mirror.blocks[place] = last
        self._size -= 1

    def _drop(self, mirror: _Mirror, block: int) -> None:
        left = self._table[block] & ~(mirror.present | mirror.used)
        if left:
            self._table[block] = self._masks.setdefault(left, left)
        else:
            del self._table[block]
        if self._scope_share < 1.0:
            key = mirror.present, block & ((1 << SCOPE_BITS) - 1)
            self._by_scope[key] -= 1
            if not self._by_scope[key]:
                del self._by_scope[key]

    def _sweep(self, count: int) -> None:
        """Take some blocks of forgotten mirrors out of the table; a mirror's number is free once all are."""
        while count and self._stale:
            mirror = self._stale[-1]
            while count and mirror.blocks:
                block = mirror.blocks.pop()
                self._size -= 1
                count -= 1
                if self._table.get(block, 0) & mirror.present:
                    self._drop(mirror, block)
            if mirror.blocks:
                return
            self._stale.pop()
            self._free_numbers.append(mirror.present.bit_length() // 2)


def _size_of(mirror: _Mirror) -> int:
    return len(mirror.blocks)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest
        mask ^= lowest
