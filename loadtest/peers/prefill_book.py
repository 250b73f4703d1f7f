"""What a router knows by itself: prompts given to each replica, and tokens still to be prefilled there."""

from collections.abc import Sequence
from math import inf

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
from policies.routing.recent_blocks import RecentBlocks, tokens_of


class PrefillBook:
    """Tokens wait from dispatch to first token. With `kv_events` only what engines say is cached."""

    def __init__(
        self, capacity_tokens: float = inf, *, kv_events: bool = False, counts_cached: bool = False
    ) -> None:
        self._capacity_tokens = capacity_tokens
        self._kv_events = kv_events
        self._counts_cached = counts_cached
        self._seen = RecentBlocks()
        self._pending = PendingWork()

    def uncached(self, prompt: Prompt, replicas: Sequence[str]) -> list[float]:
        """Tokens that each of `replicas` would have to prefill; the last is always computed anew."""
        return [
            max(1.0, prompt.tokens - tokens_of(prompt, hit))
            for hit in self._seen.hits(prompt.blocks, replicas)
        ]

    def pending(self, replica: str) -> float:
        """Tokens of requests without first token: uncached ones, or all if `counts_cached`."""
        return self._pending.total(replica)

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                tokens = prompt.tokens if self._counts_cached else self.uncached(prompt, [replica])[0]
                self._pending.add(replica, event.ticket, tokens, event.at)
                if not self._kv_events:
                    self._seen.add(replica, prompt.blocks, self._capacity_tokens / prompt.block_tokens)
            case FirstToken(replica=replica, ticket=ticket) | Done(replica=replica, ticket=ticket):
                self._pending.release(replica, ticket)
            case Forgotten(replica=replica):
                self._pending.forget(replica)
                self._seen.forget(replica)
            case CacheLost(replica=replica) if self._kv_events:
                self._seen.forget(replica)
            case BlocksStored(replica=replica, blocks=blocks) if self._kv_events:
                self._seen.add(replica, blocks)
            case BlocksRemoved(replica=replica, blocks=blocks) if self._kv_events:
                self._seen.remove(replica, blocks)
            case _:
                pass
