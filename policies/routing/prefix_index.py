"""Which replica holds which prefix: a mirror of every replica's cache, as true as its capacity is known.

One table maps a block's hash to the replicas that hold it: one walk along a prompt answers for all. Beside
who holds a block it says in which eighth of that mirror's past the block was last used: enough to evict in
nearly the engine's own order, least recently used first, at 8 to 16 bytes a block instead of 42 to 84.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from operator import attrgetter
from typing import Final

SCOPE_BITS: Final = 12
"""The low bits of a hash are its scope's (a tenant's), whose blocks can be counted by them."""
_ERAS: Final = 8
_HELD: Final = 8
"""A mirror has four bits of each mask: this one, and the number of the era of the block's last use."""
_ALL: Final = 15
_MAX_MASKS: Final = 1 << 16
_ZERO_IS_FALSE: Final = bytes(byte if byte != ord("0") else 0 for byte in range(256))
_STALE_PER_BLOCK: Final = 4
_AGED_PER_BLOCK: Final = 4


class _Era:
    """A stretch of a mirror's past: the blocks used in it, in their order, and how masks call it."""

    __slots__ = ("blocks", "code", "next")

    def __init__(self, code: int) -> None:
        self.code = code
        self.blocks: array[int] = array("Q")
        self.next = 0
        """Place of the first one that was not yet looked at for eviction."""


class _Mirror:
    """One replica's blocks by era, the oldest first; an entry whose block has another era by now is void."""

    __slots__ = ("capacity", "era_blocks", "eras", "every", "held", "number", "size")

    def __init__(self, number: int, capacity: int) -> None:
        self.number = number
        self.held = _HELD << 4 * number
        self.every = _ALL << 4 * number
        self.size = 0
        self.eras = [_Era(self.held)]
        self.resize(capacity)

    def resize(self, capacity: int) -> None:
        self.capacity = capacity
        self.era_blocks = max(1, capacity // _ERAS)

    def begin_era(self) -> None:
        used = {era.code for era in self.eras}
        codes = (self.held | number << 4 * self.number for number in range(_ERAS))
        self.eras.append(_Era(next(code for code in codes if code not in used)))


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
        self._names: list[str] = []
        self._live = 0
        self._size = 0
        # Equal masks are one object: there are few different ones among millions of blocks.
        self._masks: dict[int, int] = {}
        self._stale: list[_Mirror] = []
        self._free_numbers: list[int] = []
        self._by_scope: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Blocks in all mirrors, each counted once per mirror, forgotten ones until they are swept."""
        return self._size

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        """For each replica that holds the first block: how many from the first on it holds without a gap."""
        holders = self._live
        table = self._table
        found: dict[str, int] = {}
        depth = 0
        for block in blocks:
            remaining = holders & table.get(block, 0)
            if remaining != holders:
                if depth:
                    found.update(dict.fromkeys(self._named(holders ^ remaining), depth))
                holders = remaining
                if not holders:
                    return found
            depth += 1
        if depth:
            found.update(dict.fromkeys(self._named(holders), depth))
        return found

    def _named(self, holders: int) -> Iterable[str]:
        """Whose held bits these are; a mirror's four bits are one hexadecimal digit, the last the first's."""
        return compress(self._names, f"{holders:x}"[::-1].encode().translate(_ZERO_IS_FALSE))

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica has been given a prompt of these blocks: it will hold them, and they are its newest.

        Deepest first: they are evicted first.
        """
        mirror = self._mirrors.get(replica) or self._add(replica)
        table, masks = self._table, self._masks
        era, every = mirror.eras[-1], mirror.every
        code, newest = era.code, era.blocks
        new = 0
        for block in reversed(blocks):
            mask = table.get(block, 0)
            if mask & every == code:
                continue
            if not mask & mirror.held:
                if not self._admit(mirror, block):
                    continue
                mask = table.get(block, 0)
                new += 1
            mask = mask & ~every | code
            table[block] = masks.setdefault(mask, mask)
            newest.append(block)
        self._age(mirror, _AGED_PER_BLOCK * len(blocks))
        if len(masks) > _MAX_MASKS:
            masks.clear()
        if self._stale:
            self._sweep(_STALE_PER_BLOCK * (new + 1))

    def remove(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica said that it no longer holds these."""
        mirror = self._mirrors.get(replica)
        for block in blocks if mirror else ():
            assert mirror is not None
            if self._table.get(block, 0) & mirror.held:
                self._drop(mirror, block)

    def forget(self, replica: str) -> None:
        """The replica holds nothing any more. At once, however much it held: the sweep follows by and by."""
        mirror = self._mirrors.pop(replica, None)
        if mirror is None:
            return
        self._live &= ~mirror.held
        self._stale.append(mirror)

    def resize(self, replica: str, capacity: int) -> None:
        """Set how many blocks the replica's cache holds."""
        mirror = self._mirrors.get(replica) or self._add(replica)
        mirror.resize(max(1, capacity))
        while mirror.size > mirror.capacity:
            self._evict(mirror)

    def capacity_of(self, replica: str) -> int:
        """In blocks."""
        mirror = self._mirrors.get(replica)
        return self._capacity if mirror is None else mirror.capacity

    def held(self, replica: str) -> list[int]:
        """The replica's blocks, the least recently used first."""
        mirror = self._mirrors.get(replica)
        if mirror is None:
            return []
        table, every = self._table, mirror.every
        return [
            block
            for era in mirror.eras
            for block in era.blocks[era.next :]
            if table.get(block, 0) & every == era.code
        ]

    def sizes(self) -> Mapping[str, int]:
        """Blocks per replica."""
        return {replica: mirror.size for replica, mirror in self._mirrors.items()}

    # ---- inside ----

    def _add(self, replica: str) -> _Mirror:
        if self._free_numbers:
            number = self._free_numbers.pop()
        else:
            number = len(self._names)
            self._names.append("")
        mirror = self._mirrors[replica] = _Mirror(number, self._capacity)
        self._names[number] = replica
        self._live |= mirror.held
        return mirror

    def _admit(self, mirror: _Mirror, block: int) -> bool:
        """Make room for a block that the mirror does not hold; False if its scope has had its share."""
        if self._scope_share < 1.0 and not self._count_in(mirror, block):
            return False
        if mirror.size >= mirror.capacity:
            self._evict(mirror)
        elif self._size >= self._max_blocks:
            self._evict(max(self._mirrors.values(), key=attrgetter("size")))
        mirror.size += 1
        self._size += 1
        return True

    def _count_in(self, mirror: _Mirror, block: int) -> bool:
        key = mirror.held, block & ((1 << SCOPE_BITS) - 1)
        count = self._by_scope.get(key, 0)
        if count >= self._scope_share * mirror.capacity:
            return False
        self._by_scope[key] = count + 1
        return True

    def _age(self, mirror: _Mirror, count: int) -> None:
        """Begin an era when the present one is full; where there are eight, join the oldest two in steps."""
        eras = mirror.eras
        if len(eras) < _ERAS:
            if len(eras[-1].blocks) >= mirror.era_blocks:
                mirror.begin_era()
            return
        table, masks, every = self._table, self._masks, mirror.every
        older, old = eras[0], eras[1]
        for block in old.blocks[old.next : old.next + count]:
            mask = table.get(block, 0)
            if mask & every == old.code:
                older.blocks.append(block)
                mask = mask & ~every | older.code
                table[block] = masks.setdefault(mask, mask)
        old.next += count
        if old.next >= len(old.blocks):
            del eras[1]
            del older.blocks[: older.next]
            older.next = 0

    def _evict(self, mirror: _Mirror) -> None:
        """The block that was not used for the longest time."""
        table, every = self._table, mirror.every
        while True:
            era = mirror.eras[0]
            while era.next < len(era.blocks):
                block = era.blocks[era.next]
                era.next += 1
                if table.get(block, 0) & every == era.code:
                    self._drop(mirror, block)
                    return
            if len(mirror.eras) == 1:
                mirror.begin_era()
            del mirror.eras[0]

    def _drop(self, mirror: _Mirror, block: int) -> None:
        mirror.size -= 1
        self._size -= 1
        left = self._table[block] & ~mirror.every
        if left:
            self._table[block] = self._masks.setdefault(left, left)
        else:
            del self._table[block]
        if self._scope_share < 1.0:
            key = mirror.held, block & ((1 << SCOPE_BITS) - 1)
            self._by_scope[key] -= 1
            if not self._by_scope[key]:
                del self._by_scope[key]

    def _sweep(self, count: int) -> None:
        """Take some blocks of forgotten mirrors out of the table; a mirror's number is free once all are."""
        while count and self._stale:
            mirror = self._stale[-1]
            blocks = mirror.eras[-1].blocks
            while count and blocks:
                block = blocks.pop()
                count -= 1
                if self._table.get(block, 0) & mirror.held:
                    self._drop(mirror, block)
            if blocks:
                return
            mirror.eras.pop()
            if not mirror.eras:
                self._stale.pop()
                self._free_numbers.append(mirror.number)
