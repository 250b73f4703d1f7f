"""What a pipeline remembers of the replicas: prefixes, tokens they have yet to prefill, and cold requests."""

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil
from typing import Final

from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    CacheLost,
    Dispatched,
    Done,
    Event,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.pending_work import PendingWork
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.policy import ReplicaView
from policies.routing.recent_blocks import RecentBlocks, tokens_of

_MOST_COLD: Final = 1024
"""Replicas whose last cold request is remembered: llm-d's lruSize."""


class Memory:
    """Only uncached tokens wait, and until the first token: llm-d's inflight-load-producer."""

    def __init__(self, options: PipelineOptions) -> None:
        self.pending = PendingWork()
        self.cold: OrderedDict[str, None] = OrderedDict()
        self._seen = RecentBlocks()
        self._options = options
        self._from_events = options.prefix_from == "kv_events"
        self._capacity_tokens = options.lru_capacity_per_replica * options.block_tokens
        self._kv_tokens: dict[str, float] = {}

    def block_view(self, prompt: Prompt) -> Prompt:
        """The prompt in blocks of `block_tokens` or more: a chained hash stands for all before it."""
        stride = ceil(self._options.block_tokens / prompt.block_tokens)
        if stride == 1 or self._from_events:  # events may start anywhere in a chain
            return prompt
        return Prompt(prompt.blocks[stride - 1 :: stride], prompt.tokens, prompt.block_tokens * stride)

    def hits(self, prompt: Prompt, replicas: Sequence[ReplicaView]) -> list[int]:
        """Leading blocks each replica should have; `prompt` is a `block_view`."""
        return self._seen.hits(prompt.blocks, [replica.id for replica in replicas])

    def note_sizes(self, replicas: Sequence[ReplicaView]) -> None:
        """Engines that tell the size of their KV cache set how much is remembered of them."""
        for replica in replicas if self._options.auto_tune else ():
            load = replica.load
            if load is not None and load.kv_capacity_tokens:
                self._kv_tokens[replica.id] = load.kv_capacity_tokens

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(prompt=prompt) if prompt is not None:
                self._given(event, self.block_view(prompt))
            case FirstToken(replica=replica, ticket=ticket) | Done(replica=replica, ticket=ticket):
                self.pending.release(replica, ticket)
            case Forgotten(replica=replica):
                self._forget(replica)
            case CacheLost(replica=replica):
                self._seen.forget(replica)
            case BlocksStored(replica=replica, blocks=blocks) if self._from_events:
                self._seen.add(replica, blocks)
            case BlocksRemoved(replica=replica, blocks=blocks) if self._from_events:
                self._seen.remove(replica, blocks)
            case _:
                pass

    def _given(self, event: Dispatched, prompt: Prompt) -> None:
        replica, blocks = event.replica, prompt.blocks
        cached = tokens_of(prompt, self._seen.hits(blocks, [replica])[0])
        self.pending.add(replica, event.ticket, prompt.tokens - cached, event.at)
        if not blocks or not self._seen.is_known(blocks[0]):
            self.cold[replica] = None
            self.cold.move_to_end(replica)
            if len(self.cold) > _MOST_COLD:
                self.cold.popitem(last=False)
        if not self._from_events:
            capacity_tokens = self._kv_tokens.get(replica, self._capacity_tokens)
            self._seen.add(replica, blocks, capacity_tokens / prompt.block_tokens)

    def _forget(self, replica: str) -> None:
        self.pending.forget(replica)
        self.cold.pop(replica, None)
        self._seen.forget(replica)
        self._kv_tokens.pop(replica, None)
