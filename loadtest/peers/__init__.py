"""The routers of others, each as a policy made from its published rule with its published defaults.

They run beside this project's policies in the same simulation. A peer's function or its module says where the
rule comes from, and the function what liberties were taken. All share these: prompts come as this project
hashes them, requests without a prompt go to the fewest in flight, ties that a rule leaves open go by chance,
requests in flight are this router's own count, and none rejects or queues. Only those built on shipped
policies heed the weights of replicas.
"""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from loadtest.peers import (
    aibrix,
    cache_aware,
    dynamo,
    gorgo,
    llm_d,
    lmetric,
    mooncake,
    preble,
    prefix_hash,
    production_stack,
    shipped,
    smetric,
)
from loadtest.peers.facts import FleetFacts
from policies.routing.policy import Policy

__all__ = ["PEERS", "FleetFacts", "Peer", "scrape_interval_s", "wants_kv_events"]

Peer = Callable[[Random, FleetFacts], Policy]
"""Makes a peer's policy for one pool."""

PEERS: Final[Mapping[str, Peer]] = MappingProxyType(
    {
        "random": shipped.by_chance,
        "round_robin": shipped.round_robin,
        "least_requests": shipped.least_requests,
        "power_of_two": shipped.power_of_two,
        "session_hash": shipped.session_hash,
        "sglang": cache_aware.sglang_first,
        "vllm_router": cache_aware.vllm_router_library,
        "smg": cache_aware.smg,
        "smg_prefix_hash": prefix_hash.prefix_hash,
        "ray_serve": cache_aware.ray_serve,
        "vllm_router_smetric": smetric.smetric,
        "llm_d": llm_d.default,
        "llm_d_precise": llm_d.precise,
        "llm_d_no_hit_lru": llm_d.no_hit_lru,
        "llm_d_active_request": llm_d.active_request,
        "llm_d_affinity_filter": llm_d.affinity_filter,
        "lmetric": lmetric.lmetric,
        "lmetric_with_mirror": lmetric.lmetric_with_mirror,
        "dynamo": dynamo.kv_router,
        "preble": preble.e2,
        "aibrix": aibrix.prefix_cache,
        "mooncake": mooncake.conductor,
        "gorgo": gorgo.gorgo,
        "production_stack": production_stack.prefix_aware,
    }
)


def scrape_interval_s(name: str) -> float | None:
    """How often the peer reads the engines' metrics by its own default; None: it does not look at any."""
    return llm_d.SCRAPE_INTERVAL_S if PEERS[name].__module__ == llm_d.__name__ else None


def wants_kv_events(policy: Policy) -> bool:
    """Whether the policy knows caches from KV events; without those it routes as if all were empty."""
    return bool(getattr(policy, "wants_kv_events", False))
