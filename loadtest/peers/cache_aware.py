"""The family of SGLang's cache_aware rule: a radix tree of prompts, a threshold, and a gate on imbalance.

Liberties of all: blocks of tokens in place of characters; eviction at once; of equal matches the least
loaded, where a tree names any one.
"""

from math import inf
from random import Random
from typing import Final

from loadtest.peers.facts import FleetFacts
from policies.routing.policy import Policy
from policies.routing.prefix_affinity import PrefixAffinity

_UNBOUNDED: Final = 1 << 60


def sglang_first(random: Random, _facts: FleetFacts) -> Policy:
    """SGLang's router as announced with SGLang v0.4: 0.5, 32, 1.0001, a miss goes to the smallest tree.

    Source: sgl-project/sglang, sgl-router/src/router.rs and py_src/sglang_router/launch_router.py of its
    first releases; 2**24 characters per worker.
    """
    options = PrefixAffinity.Options(
        balance_rel_threshold=1.0001, on_miss="smallest_tree", max_tree_size=1 << 24
    )
    return PrefixAffinity(options, random)


def vllm_router_library(random: Random, _facts: FleetFacts) -> Policy:
    """vllm-project/router with the defaults of its library: 0.5, 32, 1.1, a miss goes to the least loaded.

    Source: docs/load_balancing/README.md, whose smallest tree src/policies/cache_aware.rs has given up.
    Liberty: its limit of 10,000 per worker, which holds hardly one prompt, is that of its command line.
    """
    return PrefixAffinity(PrefixAffinity.Options(max_tree_size=1 << 26), random)


def smg(random: Random, _facts: FleetFacts) -> Policy:
    """SMG, and vllm-project/router as its command line starts it: 0.3, 64, 1.5, a miss to the least loaded.

    Source: lightseekorg/smg, model_gateway/src/policies/cache_aware.rs and src/main.rs; vllm-project/router,
    docs/cli_reference.md. Its gates on KV usage are off by default. Liberty: ties of load go by chance, where
    SMG takes who has served fewest requests.
    """
    options = PrefixAffinity.Options(
        cache_threshold=0.3, balance_abs_threshold=64, balance_rel_threshold=1.5, max_tree_size=1 << 26
    )
    return PrefixAffinity(options, random)


def ray_serve(random: Random, _facts: FleetFacts) -> Policy:
    """Ray Serve LLM's PrefixCacheAffinityRouter: best match from 10 % on, else the smallest tree.

    Source: ray-project/ray, llm/_internal/serve/routing_policies/prefix_aware/prefix_aware_router.py. Its
    imbalance gate is infinite and its eviction off by default. Liberties: requests without a prompt go to the
    least loaded of all, not of two; exactly 10 % is a miss.
    """
    options = PrefixAffinity.Options(
        cache_threshold=0.1,
        balance_abs_threshold=inf,
        on_miss="smallest_tree",
        max_tree_size=_UNBOUNDED,
    )
    return PrefixAffinity(options, random)
