"""TensorRT-LLM's KV events over ZMQ (pull request 17023): vLLM's framing and names, its own block keys.

Keys leave as signed numbers; there are no adapters and no extra keys.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from loadtest.engine.kv_publisher import KvPublisher, Steps
from loadtest.engine.trtllm_events_wire import BlockKeys


class TrtllmKvPush:
    """Listens to a KV cache and publishes what it does, step by step."""

    def __init__(self, publisher: KvPublisher, block_size: int) -> None:
        self.publisher = publisher
        self._block_size = block_size
        self._keys = BlockKeys(block_size)
        self._steps = Steps(self._publish)

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        parent_key, blocks = self._keys.add(hashes, parent, token_ids)
        event: dict[str, Any] = {
            "type": "BlockStored",
            "block_hashes": [_signed(key) for key, _ in blocks],
            "parent_block_hash": None if parent_key is None else _signed(parent_key),
            "token_ids": token_ids,
            "block_size": self._block_size,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
        }
        self._steps.add(event)

    def removed(self, hashes: Sequence[int]) -> None:
        keys = [_signed(key) for key in self._keys.pop(hashes)]
        self._steps.add({"type": "BlockRemoved", "block_hashes": keys, "medium": "GPU"})

    def cleared(self) -> None:
        self._keys.clear()
        self._steps.add_between({"type": "AllBlocksCleared"})

    def _publish(self, events: list[object]) -> None:
        self.publisher.publish(msgspec.msgpack.encode([time.time(), events, 0]))


def _signed(key: int) -> int:
    return key - (1 << 64) if key >= 1 << 63 else key
