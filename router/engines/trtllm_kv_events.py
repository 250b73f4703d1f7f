"""trtllm-serve's KV cache events, as `POST /kv_cache_events` answers them: bytes to values.

A JSON array that reading empties. `event_id` grows by one: where it jumps, the engine's buffer overflowed,
and where it falls, another process answers.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw

from router.engines.kv_cache_events import KEY_MASK, UNREADABLE, CacheEvent, Key, Removed, Stored, extra_of


class Numbered(NamedTuple):
    """One entry: its number, the attention window of its cache in tokens, and what it says of blocks."""

    number: int
    window: int
    events: tuple[CacheEvent, ...]


class _Entry(msgspec.Struct):
    event_id: Annotated[int, Meta(ge=0)]
    data: Raw
    window_size: int = 0
    attention_dp_rank: int | None = None


class _Data(msgspec.Struct):
    type: str


class _Token(msgspec.Struct):
    token_id: Annotated[int, Meta(ge=0, lt=1 << 32)]
    token_extra_id: int = 0


class _Block(msgspec.Struct):
    block_hash: int | str
    tokens: list[_Token]
    mm_keys: list[Any] = msgspec.field(default_factory=list)


class _Stored(msgspec.Struct):
    blocks: list[_Block]
    parent_hash: int | str | None = None


class _Removed(msgspec.Struct):
    block_hashes: list[int | str]


def read_events(content: bytes) -> list[Numbered]:
    """All entries, oldest first. Raises `ValueError` for what is no list of events.

    Blocks that move to the host's memory can still be reused: those entries, like unknown ones, say nothing.
    """
    try:
        return [_numbered(entry) for entry in _ENTRIES.decode(content)]
    except UNREADABLE as error:
        raise ValueError(f"not the KV cache events of trtllm-serve: {error}") from None


def _numbered(entry: _Entry) -> Numbered:
    rank = entry.attention_dp_rank or 0
    kind = _DATA.decode(entry.data).type
    events: tuple[CacheEvent, ...] = ()
    if kind == "stored":
        events = tuple(_stored(_STORED.decode(entry.data), rank))
    elif kind == "removed":
        removed = _REMOVED.decode(entry.data)
        events = (Removed([_key(each, rank) for each in removed.block_hashes], None),)
    return Numbered(entry.event_id, entry.window_size, events)


def _stored(data: _Stored, rank: int) -> Iterator[Stored]:
    """One event per block: the last one may hold fewer tokens than the others."""
    parent = None if data.parent_hash is None else _key(data.parent_hash, rank)
    for block in data.blocks:
        key = _key(block.block_hash, rank)
        if block.tokens:
            ids = [token.token_id for token in block.tokens]
            yield Stored(parent, [key], ids, len(ids), extras=[_extra(block)])
        parent = key


def _extra(block: _Block) -> bytes:
    """Images stand in blocks as numbers beside the tokens, or as keys of their own."""
    numbers = [token.token_extra_id for token in block.tokens]
    return extra_of([*(numbers if any(numbers) else ()), *block.mm_keys])


def _key(block_hash: int | str, rank: int) -> Key:
    """Ranks of attention data parallelism have caches of their own behind one path."""
    if isinstance(block_hash, str):
        return f"{rank}:{block_hash}".encode()
    return (block_hash & KEY_MASK) | rank << 64


_ENTRIES: Final = msgspec.json.Decoder(list[_Entry])
_DATA: Final = msgspec.json.Decoder(_Data)
_STORED: Final = msgspec.json.Decoder(_Stored)
_REMOVED: Final = msgspec.json.Decoder(_Removed)
