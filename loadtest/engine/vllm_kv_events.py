"""vLLM's KV events: what its prefix cache does, in the layout of a release.

Layouts follow the history of `vllm/distributed/kv_events.py`: positional arrays that grew at their end, and
from v0.24 on (pull request 42892) maps.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from loadtest.engine.kv_cache import chain_hash
from loadtest.engine.kv_publisher import KvPublisher, Steps
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.sequence import root_of

_KEPT_ROOTS: Final = 10_000
_MEDIUM: Final = "GPU"


class Isolation(NamedTuple):
    """What keeps equal tokens of different prompts apart."""

    lora: str | None = None
    salt: str | None = None

    def extra_keys(self, *, first: bool) -> list[str] | None:
        """Of one block: the adapter in every one, the salt in the first."""
        keys = [key for key in (self.lora, self.salt if first else None) if key is not None]
        return keys or None


class Stored(NamedTuple):
    hashes: Sequence[int]
    parent: int | None
    token_ids: Sequence[int]
    block_size: int
    isolation: Isolation


class Removed(NamedTuple):
    block_hash: int


class Cleared(NamedTuple):
    pass


class Layout:
    """Events as the release `version` encodes them, with hashes as numbers or as whole digests."""

    def __init__(self, version: tuple[int, ...], *, int_hashes: bool = True) -> None:
        self._version = version
        self._int_hashes = int_hashes
        self._encode = msgspec.msgpack.Encoder().encode
        self.replays_topic = version >= (0, 25)

    def batch(self, at: float, events: Sequence[object], rank: int) -> bytes:
        """One payload; `at`: seconds since 1970."""
        values: list[Any] = [at, [self._event(event) for event in events]]
        return self._encode(values if self._version < (0, 10) else [*values, rank])

    def _event(self, event: object) -> object:
        fields = self._fields(event)
        return fields if self._version >= (0, 24) else list(fields.values())

    def _fields(self, event: object) -> dict[str, Any]:
        """By name, in the order of the arrays."""
        match event:
            case Stored():
                return self._stored(event)
            case Removed():
                removed = {"type": "BlockRemoved", "block_hashes": [self._hash(event.block_hash)]}
                return {
                    **removed,
                    **self._since((0, 10, 2), medium=_MEDIUM),
                    **self._since((0, 17), group_idx=0),
                }
        return {"type": "AllBlocksCleared"}

    def _stored(self, event: Stored) -> dict[str, Any]:
        lora = event.isolation.lora
        starts = event.parent is None
        keys = [event.isolation.extra_keys(first=starts and not at) for at in range(len(event.hashes))]
        return {
            "type": "BlockStored",
            "block_hashes": [self._hash(each) for each in event.hashes],
            "parent_block_hash": None if event.parent is None else self._hash(event.parent),
            "token_ids": event.token_ids,
            "block_size": event.block_size,
            "lora_id": None if lora is None else 1,
            **self._since((0, 10, 2), medium=_MEDIUM),
            **self._since((0, 14), lora_name=lora),
            **self._since((0, 17), extra_keys=keys, group_idx=0),
            **self._since((0, 24), kv_cache_spec_kind="full_attention"),
        }

    def _since(self, version: tuple[int, ...], **fields: object) -> dict[str, object]:
        return fields if self._version >= version else {}

    def _hash(self, block_hash: int) -> int | bytes:
        """Before v0.11 numbers could be negative."""
        if not self._int_hashes:
            return hashlib.sha256(block_hash.to_bytes(8, "big")).digest()
        negative = self._version < (0, 11) and block_hash >= 1 << 63
        return block_hash - (1 << 64) if negative else block_hash


class VllmKvEvents:
    """Listens to a prefix cache and publishes what it does, step by step."""

    def __init__(self, publisher: KvPublisher, layout: Layout, block_size: int, rank: int = 0) -> None:
        self.publisher = publisher
        self._layout = layout
        self._block_size = block_size
        self._rank = rank
        self._roots: dict[int, Isolation] = {root_of(SamplingParams(max_tokens=1)): Isolation()}
        self._isolations: dict[int, Isolation] = {}
        self._steps = Steps(self._publish)

    def expect(self, params: SamplingParams) -> None:
        """A request with these was submitted: the cache tells hashes, not what went into them."""
        root = root_of(params)
        if root not in self._roots:
            self._roots[root] = Isolation(params.lora, params.cache_salt)
            if len(self._roots) > _KEPT_ROOTS:
                del self._roots[next(iter(self._roots))]

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        isolation = self._isolation(hashes[0], parent, token_ids[: self._block_size])
        if isolation != Isolation():
            self._isolations.update(dict.fromkeys(hashes, isolation))
        self._steps.add(Stored(hashes, parent, token_ids, self._block_size, isolation))

    def removed(self, hashes: Sequence[int]) -> None:
        for block_hash in hashes:
            self._isolations.pop(block_hash, None)
            self._steps.add(Removed(block_hash))

    def cleared(self) -> None:
        self._isolations.clear()
        self._steps.add_between(Cleared())

    def _isolation(self, first: int, parent: int | None, token_ids: Sequence[int]) -> Isolation:
        if parent is not None:
            return self._isolations.get(parent, Isolation())
        if first == chain_hash(0, token_ids):
            return Isolation()
        known = (one for root, one in self._roots.items() if chain_hash(root, token_ids) == first)
        return next(known, Isolation(salt="forgotten"))

    def _publish(self, events: list[object]) -> None:
        self.publisher.publish(self._layout.batch(time.time(), events, self._rank))
