"""AIBrix's prefix-cache strategy: the best match that is not much busier than the mean.

Source: vllm-project/aibrix, pkg/plugins/gateway/algorithms/prefix_cache.go and
pkg/utils/prefixcacheindexer/hash.go; where its readme and its code differ, the code.
"""

from collections.abc import Sequence
from random import Random
from statistics import stdev
from typing import Final

from loadtest.peers.facts import FleetFacts
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Dispatched, Event, Forgotten, Prompt
from policies.routing.policy import Policy, ReplicaView
from policies.routing.recent_blocks import RecentBlocks

_IMBALANCE: Final = 8
"""Difference of requests beyond which only the least loaded are looked at."""
_DEVIATIONS: Final = 1.0
"""How far above the mean a replica with a match may be, in standard deviations."""
_BLOCKS: Final = 200_000
_NO_MATCH: Final = 101.0


class PrefixCache(Rule):
    """Matches are in whole per cent of the prompt; of equal ones the less loaded, then chance."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._seen = RecentBlocks()

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        """100 less the match, for who may be chosen for its match; for the others more."""
        loads = [replica.in_flight for replica in candidates]
        fewest = min(loads)
        bound = sum(loads) / len(loads) + _DEVIATIONS * (stdev(loads) if len(loads) > 1 else 0.0)
        if max(loads) - fewest > _IMBALANCE:
            bound = min(bound, fewest)
        hits = self._seen.hits(prompt.blocks, ids_of(candidates))
        total = max(1, len(prompt.blocks))
        return [
            (100.0 - hit * 100 // total if hit and load <= bound else _NO_MATCH, load)
            for hit, load in zip(hits, loads, strict=True)
        ]

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                self._seen.add(replica, prompt.blocks, _BLOCKS)
            case Forgotten(replica=replica):
                self._seen.forget(replica)
            case _:
                pass


def prefix_cache(random: Random, _facts: FleetFacts) -> Policy:
    """Routing strategy prefix-cache with its defaults.

    Liberties: its index of 200,000 blocks of 4 characters for the whole fleet, 0.8 MB of text, is as many
    blocks of the prompt's size for each replica; blocks idle for 20 minutes stay.
    """
    return PrefixCache(random)
