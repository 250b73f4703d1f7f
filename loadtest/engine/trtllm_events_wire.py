"""TensorRT-LLM's KV cache events: the pull format, and the `v1_block_key` hash that names a block.

The hash is the 64-bit mixing hash of `BlockKeyHasher`: integers only, reproducible anywhere.
"""

from collections import deque
from collections.abc import Sequence
from itertools import count

from msgspec import Struct

from loadtest.engine.kv_cache import chain_hash

_MASK_32 = 0xFFFFFFFF
_MASK_64 = 0xFFFFFFFFFFFFFFFF
_GOLDEN = 0x9E3779B9
PRIORITY = 35
GPU, HOST = 0, 1


def block_key(tokens: Sequence[int], parent: int | None = None, lora_task_id: int | None = None) -> int:
    """The `v1_block_key` of one block, given its parent's (None for the first block of a prompt)."""
    seed = (len(tokens) ^ ((parent or 0) * 0xBF58476D1CE4E5B9)) & _MASK_64
    for token in tokens:
        mixed = token & _MASK_32
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & _MASK_32
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & _MASK_32
        folded = ((mixed ^ (mixed >> 16)) + _GOLDEN) & _MASK_32
        seed ^= (folded + (seed << 6) + (seed >> 2)) & _MASK_64
    return seed if lora_task_id is None else _fold_64(seed, lora_task_id)


def _fold_64(seed: int, value: int) -> int:
    """Folds in a 64-bit value with splitmix64's finaliser."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK_64
    value ^= value >> 31
    return seed ^ ((value + _GOLDEN + (seed << 6) + (seed >> 2)) & _MASK_64)


class UniqueToken(Struct, frozen=True, tag="unique_token"):
    token_id: int
    token_extra_id: int = 0


class StoredBlock(Struct, frozen=True, tag="stored_block"):
    block_hash: int
    tokens: tuple[UniqueToken, ...]
    cache_level: int = GPU
    priority: int = PRIORITY


class Created(Struct, frozen=True, tag="created"):
    num_blocks_per_cache_level: tuple[int, ...]


class Stored(Struct, frozen=True, tag="stored"):
    parent_hash: int | None
    blocks: tuple[StoredBlock, ...]


class Diff(Struct, frozen=True, tag="event_diff"):
    new_value: int
    old_value: int


class Updated(Struct, frozen=True, tag="updated"):
    block_hash: int
    cache_level: Diff | None
    priority: Diff | None


class Removed(Struct, frozen=True, tag="removed"):
    block_hashes: tuple[int, ...]


Data = Created | Stored | Updated | Removed


class Event(Struct, frozen=True):
    """One element of the array that `POST /kv_cache_events` answers."""

    event_id: int
    data: Data
    window_size: int


def stored_block(block_hash: int, tokens: Sequence[int]) -> StoredBlock:
    return StoredBlock(block_hash, tuple(map(UniqueToken, tokens)))


class BlockKeys:
    """The keys of cached blocks, by the cache's own hashes."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._keys: dict[int, int] = {}

    def add(
        self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]
    ) -> tuple[int | None, list[tuple[int, Sequence[int]]]]:
        """The parent's key, and each block's key with its tokens."""
        parent_key = key = self._keys.get(parent) if parent is not None else None
        blocks = []
        for at, block_hash in enumerate(hashes):
            tokens = token_ids[at * self._block_size : (at + 1) * self._block_size]
            key = block_key(tokens, key, self._isolation(block_hash, tokens) if key is None else None)
            self._keys[block_hash] = key
            blocks.append((key, tokens))
        return parent_key, blocks

    def pop(self, hashes: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._keys.pop(block_hash) for block_hash in hashes)

    def clear(self) -> tuple[int, ...]:
        """All keys, forgotten."""
        keys = tuple(self._keys.values())
        self._keys.clear()
        return keys

    @staticmethod
    def _isolation(block_hash: int, tokens: Sequence[int]) -> int | None:
        """What keeps the first block of a salted or adapted prompt apart from a plain one of equal tokens."""
        return None if block_hash == chain_hash(0, tokens) else block_hash


class EventLog:
    """The events of one KV cache until they are read, at most `size` of them: the oldest are lost first.

    Numbers go on whatever is lost, so that a reader sees the gap.
    """

    def __init__(self, size: int, num_blocks: int, block_size: int, window_size: int) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._numbers = count()
        self._window_size = window_size
        self._keys = BlockKeys(block_size)
        self._add(Created((num_blocks, 0)))

    def drain(self) -> list[Event]:
        """Everything since the last reading, gone afterwards."""
        events = list(self._events)
        self._events.clear()
        return events

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        """Full blocks became reusable."""
        parent_key, blocks = self._keys.add(hashes, parent, token_ids)
        self._add(Stored(parent_key, tuple(stored_block(key, tokens) for key, tokens in blocks)))

    def removed(self, hashes: Sequence[int]) -> None:
        """Blocks were evicted."""
        self._add(Removed(self._keys.pop(hashes)))

    def cleared(self) -> None:
        """There is no event for this: every block is removed by name."""
        if keys := self._keys.clear():
            self._add(Removed(keys))

    def _add(self, data: Data) -> None:
        self._events.append(Event(next(self._numbers), data, self._window_size))
