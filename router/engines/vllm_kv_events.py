"""vLLM's KV event batches, as its ZMQ publisher sends them: bytes to values.

Layouts follow `vllm/distributed/kv_events.py`. Each event is a positional array up to v0.23 and a map with a
`type` since (pull request 42892); fields were only ever added at the end, and trailing defaults are left out.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from router.engines.kv_cache_events import (
    GPU,
    KEY_MASK,
    UNREADABLE,
    Batch,
    CacheEvent,
    Cleared,
    Key,
    Removed,
    Stored,
    extra_of,
)

_FULL_ATTENTION: Final = (None, "full_attention", "mla_attention")
"""Groups of other kinds forget what their window has passed: what they hold says nothing of a prefix."""

_TokenId = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Key = int | bytes
_Size = Annotated[int, Meta(gt=0)]


class _Fields(msgspec.Struct):
    """Fields of `BlockStored`, in the order in which releases added them."""

    block_hashes: list[_Key]
    parent_block_hash: _Key | None
    token_ids: list[_TokenId]
    block_size: _Size
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class _RemovedFields(msgspec.Struct):
    block_hashes: list[_Key]
    medium: str | None = None
    group_idx: int | None = None


class _StoredArray(_Fields, array_like=True, tag="BlockStored"):
    pass


class _StoredMap(_Fields, tag="BlockStored"):
    pass


class _RemovedArray(_RemovedFields, array_like=True, tag="BlockRemoved"):
    pass


class _RemovedMap(_RemovedFields, tag="BlockRemoved"):
    pass


class _TypeArray(msgspec.Struct, array_like=True):
    type: str


class _TypeMap(msgspec.Struct):
    type: str


class _BatchArray(msgspec.Struct, array_like=True):
    ts: float
    events: list[Raw]


class _BatchMap(msgspec.Struct):
    ts: float
    events: list[Raw]


def read_batch(payload: bytes) -> Batch:
    """One batch. Events of unknown types are left out. Raises `ValueError` for what is no batch."""
    try:
        batch = _BATCHES[_is_map(payload)].decode(payload)
        events = [event for raw in batch.events if (event := _read_event(bytes(raw))) is not None]
    except UNREADABLE as error:
        raise ValueError(f"not a batch of KV events: {error}") from None
    return Batch(batch.ts, events)


def _is_map(content: bytes) -> bool:
    """By its first byte: fixmap, map 16 and map 32 of MessagePack."""
    return content[:1] in _MAPS


def _read_event(content: bytes) -> CacheEvent | None:
    named = _is_map(content)
    match _TYPES[named].decode(content).type:
        case "BlockStored":
            return _stored(_STORED[named].decode(content))
        case "BlockRemoved":
            fields = _REMOVED[named].decode(content)
            return Removed(_keys(fields.block_hashes), fields.medium, fields.group_idx or 0)
        case "AllBlocksCleared":
            return Cleared()
    return None


def _stored(fields: _Fields) -> Stored | None:
    """None for groups that are no use, and where tokens and blocks disagree.

    Hybrid models leave out blocks and not their tokens (vLLM issue 44451); offloaded blocks come without any.
    """
    if fields.kv_cache_spec_kind not in _FULL_ATTENTION:
        return None
    if fields.token_ids and len(fields.token_ids) != len(fields.block_hashes) * fields.block_size:
        return None
    parent = fields.parent_block_hash
    return Stored(
        None if parent is None else _key(parent),
        _keys(fields.block_hashes),
        fields.token_ids,
        fields.block_size,
        _adapter(fields),
        _extras(fields),
        fields.medium or GPU,
        fields.group_idx or 0,
    )


def _adapter(fields: _Fields) -> str:
    if fields.lora_name is not None:
        return fields.lora_name
    return "" if fields.lora_id is None else f"#{fields.lora_id}"


def _extras(fields: _Fields) -> Sequence[bytes]:
    """Without the adapter, which comes first where there is one; () where all are empty, or do not fit."""
    given = fields.extra_keys or ()
    if len(given) != len(fields.block_hashes) or not any(given):
        return ()
    own = fields.lora_name
    return [extra_of(keys[1:] if keys and own is not None and keys[0] == own else keys) for keys in given]


def _keys(hashes: Sequence[Key]) -> list[Key]:
    return [_key(each) for each in hashes]


def _key(block_hash: Key) -> Key:
    """Before v0.11 numbers could be negative."""
    return block_hash & KEY_MASK if isinstance(block_hash, int) else block_hash


_MAPS: Final = frozenset(bytes((first,)) for first in (*range(0x80, 0x90), 0xDE, 0xDF))
# By whether the content is a map.
_BATCHES: Final = (msgspec.msgpack.Decoder(_BatchArray), msgspec.msgpack.Decoder(_BatchMap))
_TYPES: Final = (msgspec.msgpack.Decoder(_TypeArray), msgspec.msgpack.Decoder(_TypeMap))
_STORED: Final = (msgspec.msgpack.Decoder(_StoredArray), msgspec.msgpack.Decoder(_StoredMap))
_REMOVED: Final = (msgspec.msgpack.Decoder(_RemovedArray), msgspec.msgpack.Decoder(_RemovedMap))
