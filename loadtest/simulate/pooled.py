"""A bound on hits: one LRU cache as large as all replicas' together, which every request can use."""

from collections.abc import Sequence

from loadtest.engine.host_tier import HostTier
from loadtest.simulate.results import WARM_UP, Served
from loadtest.simulate.setup import Setup


def pooled_hit_rate(served: Sequence[Served], setup: Setup, block_tokens: int) -> float:
    """Share of prompt tokens that the pool would have had, in the order of arrival, after the warm-up."""
    tokens = sum(max(one.hardware.kv_tokens, one.hardware.host_tokens) for one in setup.replicas)
    pool = HostTier(tokens // block_tokens)
    ordered = sorted(served, key=lambda one: one.at)
    warm_up = int(len(ordered) * WARM_UP)
    known = asked = 0
    for number, one in enumerate(ordered):
        prompt = one.call.prompt
        hit = block_tokens * pool.find(prompt.blocks[: (prompt.tokens - 1) // block_tokens])
        pool.stored(one.call.answer or prompt.blocks, None, ())
        if number >= warm_up:
            known += hit
            asked += prompt.tokens
    return known / asked if asked else 0.0
