"""From an engine's names of blocks to the router's: what one replica caches for one version.

Sockets, clocks and policies are elsewhere: an event goes in, and what it changes comes out. An engine's names
are resolved within one rank of one process only.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from router.engines.kv_cache_events import CacheEvent, Cleared, Key, Removed, Stored
from router.fleet.token_blocks import TokenBlocks

_MEDIA: Final = {"GPU": 1, "CPU": 2}
"""Bits of the media that are a replica's own; storage that replicas share prefers none of them."""
_ALL: Final = 3

_Name = Key | tuple[int, Key]


class Change(NamedTuple):
    """Blocks by the router's hashes: all `lost`, then `stored` in the order of a chain, then `removed`."""

    stored: list[int]
    removed: list[int]
    lost: bool = False


class _Block(NamedTuple):
    hashes: tuple[int, ...]
    media: int
    whole: bool
    """It ends where a hash ends, so that others can follow."""


class BlockMap:
    """Of blocks whose adapter is `adapter`, at most `max_blocks` of the engine's; the oldest are given up.

    Storing what is known changes nothing: engines announce a block that they compute twice two times, and
    reused ones again. To count them would leave blocks behind that are gone.
    """

    def __init__(self, hasher: TokenBlocks, adapter: str, max_blocks: int) -> None:
        self.block_size = 0
        """The largest seen, tokens; the last block of a prompt may be a smaller one."""
        self.orphans = 0
        """Blocks that were not understood because what precedes them is not known."""
        self._hasher = hasher
        self._adapter = adapter
        self._max_blocks = max_blocks
        self._blocks: OrderedDict[_Name, _Block] = OrderedDict()
        self._holders: dict[int, int] = {}
        self._group: int | None = None

    def __len__(self) -> int:
        """The engine's blocks that are known."""
        return len(self._blocks)

    @property
    def unit(self) -> int:
        """Tokens per hash."""
        return self._hasher.unit

    @property
    def hashes(self) -> frozenset[int]:
        """What is cached, by the router's hashes."""
        return frozenset(self._holders)

    @property
    def fits(self) -> bool:
        """Whether the engine's blocks are whole multiples of the router's."""
        return self.block_size % self._hasher.unit == 0

    def apply(self, event: CacheEvent, rank: int = 0) -> Change:
        match event:
            case Stored():
                return self._store(event, rank)
            case Removed():
                return self._remove(event, rank)
            case Cleared():
                return self.clear(rank)

    def emptied(self) -> "BlockMap":
        """Another one that knows nothing yet."""
        return BlockMap(self._hasher, self._adapter, self._max_blocks)

    def clear(self, rank: int = 0) -> Change:
        """Nothing is known any more of what this rank caches."""
        names = [name for name in self._blocks if _rank_of(name) == rank]
        if len(names) < len(self._blocks):
            return Change([], self._drop(names))
        self._blocks.clear()
        self._holders.clear()
        return Change([], [], lost=True)

    # ---- inside ----

    def _store(self, event: Stored, rank: int) -> Change:
        medium = _MEDIA.get(event.medium, 0)
        if event.adapter != self._adapter or not medium or not self._heard(event.group):
            return Change([], [])
        if not event.token_ids:
            self._also_on(medium, event.keys, rank)
            return Change([], [])
        lost = self._regroup(event.group)
        self.block_size = max(self.block_size, event.block_size)
        change = Change([], [], lost)
        self._follow(event, rank, medium, change)
        return change

    def _heard(self, group: int) -> bool:
        """A hybrid model says everything once per group: the lowest is heard."""
        return self._group is None or group <= self._group

    def _regroup(self, group: int) -> bool:
        """True where this one is lower than the one heard so far, of which everything is dropped."""
        lower = self._group is not None and group < self._group
        self._group = group
        if lower:
            self._blocks.clear()
            self._holders.clear()
        return lower

    def _follow(self, event: Stored, rank: int, medium: int, change: Change) -> None:
        """Hash along the event's blocks, unless what precedes them is not known."""
        parent: int | None = None
        if event.parent is not None:
            before = self._blocks.get(_name(event.parent, rank))
            if before is None or not before.whole:
                self.orphans += len(event.keys)
                return
            parent = before.hashes[-1]
        size = event.block_size
        for at, key in enumerate(event.keys):
            ids = event.token_ids[at * size : (at + 1) * size]
            hashes = self._hasher.hash(ids, parent, event.extras[at] if event.extras else b"")
            whole = bool(hashes) and size % self._hasher.unit == 0
            change.removed.extend(self._put(_name(key, rank), _Block(hashes, medium, whole)))
            change.stored.extend(hashes)
            if not whole:
                break
            parent = hashes[-1]

    def _put(self, name: _Name, block: _Block) -> list[int]:
        """What had to go for it: another meaning of the name, or the oldest block."""
        known = self._blocks.pop(name, None)
        if known is not None and known.hashes == block.hashes:
            self._blocks[name] = block._replace(media=known.media | block.media)
            return []
        for each in block.hashes:
            self._holders[each] = self._holders.get(each, 0) + 1
        removed = [] if known is None else self._release(known.hashes)
        self._blocks[name] = block
        if len(self._blocks) > self._max_blocks:
            removed += self._release(self._blocks.popitem(last=False)[1].hashes)
        return removed

    def _also_on(self, medium: int, keys: Iterable[Key], rank: int) -> None:
        for key in keys:
            block = self._blocks.get(_name(key, rank))
            if block is not None:
                self._blocks[_name(key, rank)] = block._replace(media=block.media | medium)

    def _remove(self, event: Removed, rank: int) -> Change:
        if self._group is not None and event.group != self._group:
            return Change([], [])
        medium = _ALL if event.medium is None else _MEDIA.get(event.medium, 0)
        gone: list[_Name] = []
        for name in (_name(key, rank) for key in event.keys):
            block = self._blocks.get(name)
            if block is None:
                continue
            if block.media & ~medium:
                self._blocks[name] = block._replace(media=block.media & ~medium)
            else:
                gone.append(name)
        return Change([], self._drop(gone))

    def _drop(self, names: Iterable[_Name]) -> list[int]:
        removed: list[int] = []
        for name in names:
            block = self._blocks.pop(name, None)
            if block is not None:
                removed += self._release(block.hashes)
        return removed

    def _release(self, hashes: Iterable[int]) -> list[int]:
        """Those of them that no other block stands for."""
        gone = []
        for each in hashes:
            left = self._holders[each] - 1
            if left:
                self._holders[each] = left
            else:
                del self._holders[each]
                gone.append(each)
        return gone


def _name(key: Key, rank: int) -> _Name:
    return (rank, key) if rank else key


def _rank_of(name: _Name) -> int:
    return name[0] if isinstance(name, tuple) else 0
