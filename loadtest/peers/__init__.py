"""Other routers' rules as policies of ours, to run beside them under equal conditions; each once, by name."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from loadtest.peers.rules import (
    AIBrix,
    Dynamo,
    Gorgo,
    LlmDAffinity,
    LlmDDefault,
    LMetric,
    MooncakeConductor,
    Preble,
    PrefixHash,
)
from policies.routing import POLICIES
from policies.routing.policy import Policy


def _shipped(kind: str, **options: float) -> Callable[[Random, float], Policy]:
    """A policy that we have too, with its peer's defaults."""

    def make(random: Random, _cache_tokens: float) -> Policy:
        policy: Policy = POLICIES[kind](POLICIES[kind].Options(**options), random)
        return policy

    return make


PEERS: Final[Mapping[str, Callable[[Random, float], Policy]]] = MappingProxyType(
    {
        "round_robin": _shipped("round_robin"),
        "random": _shipped("random"),
        "least_requests": _shipped("least_requests"),
        "power_of_two": _shipped("power_of_two"),
        "prefix_hash": lambda random, _: PrefixHash(random),
        "vllm_router_cache_aware": _shipped("prefix_affinity"),
        "smg_cache_aware": _shipped(
            "prefix_affinity",
            cache_threshold=0.3,
            balance_abs_threshold=64,
            balance_rel_threshold=1.5,
            miss_to_least_loaded=True,
        ),
        "llm_d_default": LlmDDefault,
        "llm_d_affinity": LlmDAffinity,
        "lmetric": lambda random, _: LMetric(random),
        "lmetric_sized": LMetric,
        "gorgo": lambda random, _: Gorgo(random),
        "mooncake": MooncakeConductor,
        "dynamo": lambda random, _: Dynamo(random),
        "preble": lambda random, _: Preble(random),
        "aibrix": lambda random, _: AIBrix(random),
    }
)
"""Name to a maker, which is handed chance and the size of a replica's cache in tokens.

Where the latter is used the peer has it in its own form too, or is better with it than without.
"""

SCRAPES_FAST: Final = frozenset({"llm_d_default", "llm_d_affinity"})
"""Peers that read the engines' metrics every 50 ms."""
WANTS_KV_EVENTS: Final = frozenset({"dynamo"})
