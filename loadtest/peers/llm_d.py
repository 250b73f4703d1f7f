"""llm-d's scheduler in the profiles that its charts, deploy files and plugin documents give.

Source: llm-d/llm-d-router, pkg/epp/config/loader/defaults.go and pkg/epp/framework/plugins.

Helped by an index of the true size of the replicas' caches, host memory too, where it tunes itself by what
GPUs hold. Liberty: an engine that was not scraped yet counts as the mean of the others, not as 0.
"""

from random import Random
from typing import Any, Final

from loadtest.peers.facts import FleetFacts
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.pipeline import Pipeline
from policies.routing.policy import Policy

SCRAPE_INTERVAL_S: Final = 0.05
"""pkg/epp/server/options.go: engines are asked twenty times a second."""


def _pipeline(random: Random, facts: FleetFacts, **options: Any) -> Policy:
    capacity = max(1, round(facts.kv_capacity_tokens / PipelineOptions().block_tokens))
    return Pipeline(PipelineOptions(auto_tune=False, lru_capacity_per_replica=capacity, **options), random)


def default(random: Random, facts: FleetFacts) -> Policy:
    """prefix 3, queue 2, KV use 2, the best score: defaults.go."""
    return _pipeline(random, facts)


def precise(random: Random, facts: FleetFacts) -> Policy:
    """The default with precise-prefix-cache-scorer, which lives by KV events.

    Liberty: speculative entries, off by default there, are not there.
    """
    return _pipeline(random, facts, prefix_from="kv_events")


def no_hit_lru(random: Random, facts: FleetFacts) -> Policy:
    """The default with no-hit-lru-scorer: cold prompts go round, so that caches grow evenly.

    Liberty: its sample, deploy/config/sim-epp-no-hit-lru.yaml, weighs it 1 beside prefix 2 and no load.
    """
    return _pipeline(random, facts, scorers={**PipelineOptions().scorers, "no_hit_lru": 1.0})


def active_request(random: Random, facts: FleetFacts) -> Policy:
    """prefix 3 and active-request-scorer 2: load is the router's own count, which is never stale.

    Source: test/integration/epp/wellknown_configs_test.go.
    """
    return _pipeline(random, facts, scorers={"prefix": 3.0, "active": 2.0})


def affinity_filter(random: Random, facts: FleetFacts) -> Policy:
    """prefix-cache-affinity-filter with its defaults, then token-load-scorer.

    0.8 of the prompt makes a replica sticky, until it would answer 18 s later at 15,928 tokens per second
    (filter/prefixcacheaffinity/README.md). Of those left the fewest tokens to prefill win.
    """
    return _pipeline(random, facts, filters=("prefix_affinity",), scorers={"token_load": 1.0})
