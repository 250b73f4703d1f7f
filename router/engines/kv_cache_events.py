"""What engines say of their prefix caches, in one form: blocks that came, blocks that went, all gone.

A block's key is the engine's own hash of it and means nothing outside that engine's process.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

Key = int | bytes
"""Unsigned 64 bits, or a whole digest."""

KEY_MASK: Final = (1 << 64) - 1
GPU: Final = "GPU"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be."""


class Stored(NamedTuple):
    """Consecutive blocks became reusable. `parent` precedes the first; None at the start of a prompt.

    Block i holds `token_ids[i * block_size : (i + 1) * block_size]`. Without `token_ids` only known blocks
    are named: they are on another medium, too.
    """

    parent: Key | None
    keys: Sequence[Key]
    token_ids: Sequence[int]
    block_size: int
    adapter: str = ""
    """Name of the LoRA adapter; `#N` where only its number is told."""
    extras: Sequence[bytes] = ()
    """What else decides that a block is the same (images, a salt), one per block as `extra_of`; or none."""
    medium: str = GPU
    group: int = 0
    """Of a hybrid model's caches."""


class Removed(NamedTuple):
    """These blocks are gone from a medium; None: from all."""

    keys: Sequence[Key]
    medium: str | None = GPU
    group: int = 0


class Cleared(NamedTuple):
    """Nothing is cached any more."""


CacheEvent = Stored | Removed | Cleared


class Batch(NamedTuple):
    """What one step of an engine changed. `at`: seconds since 1970 on the engine's own clock."""

    at: float
    events: Sequence[CacheEvent]


def extra_of(keys: Sequence[Any] | None) -> bytes:
    """The extra keys of a block as bytes that are equal when they are; no bytes where there are none."""
    return msgspec.msgpack.encode(keys) if keys else b""
