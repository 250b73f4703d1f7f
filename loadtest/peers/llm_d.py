"""llm-d's scheduler in the profiles that its charts, deploy files and plugin documents give.

Source: llm-d/llm-d-router, pkg/epp/config/loader/defaults.go and pkg/epp/framework/plugins. The size of the
index tunes itself from what engines tell, as there. Liberty: an engine that was not scraped yet counts as the
mean of the others, not as 0.
"""

from random import Random

from loadtest.peers.facts import FleetFacts
from policies.routing.pipeline.pipeline import Pipeline
from policies.routing.policy import Policy


def default(random: Random, _facts: FleetFacts) -> Policy:
    """prefix 3, queue 2, KV use 2, the best score: defaults.go."""
    return Pipeline(Pipeline.Options(), random)


def precise(random: Random, _facts: FleetFacts) -> Policy:
    """The default with precise-prefix-cache-scorer, which lives by KV events.

    Liberty: speculative entries, off by default there, are not there.
    """
    return Pipeline(Pipeline.Options(prefix_from="kv_events"), random)


def no_hit_lru(random: Random, _facts: FleetFacts) -> Policy:
    """The default with no-hit-lru-scorer: cold prompts go round, so that caches grow evenly.

    Liberty: its sample, deploy/config/sim-epp-no-hit-lru.yaml, weighs it 1 beside prefix 2 and no load.
    """
    scorers = {**Pipeline.Options().scorers, "no_hit_lru": 1.0}
    return Pipeline(Pipeline.Options(scorers=scorers), random)


def active_request(random: Random, _facts: FleetFacts) -> Policy:
    """prefix 3 and active-request-scorer 2: load is the router's own count, which is never stale.

    Source: test/integration/epp/wellknown_configs_test.go.
    """
    return Pipeline(Pipeline.Options(scorers={"prefix": 3.0, "active": 2.0}), random)


def affinity_filter(random: Random, _facts: FleetFacts) -> Policy:
    """prefix-cache-affinity-filter with its defaults, then token-load-scorer.

    0.8 of the prompt makes a replica sticky, until it would answer 18 s later at 15,928 tokens per second
    (filter/prefixcacheaffinity/README.md). Of those left the fewest tokens to prefill win.
    """
    options = Pipeline.Options(filters=("prefix_affinity",), scorers={"token_load": 1.0})
    return Pipeline(options, random)
