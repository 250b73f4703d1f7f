"""Filters, weighted scorers and a picker: llm-d's way to put a policy together.

Its plugins, and the words for them here:

    prefix-cache-affinity-filter   filter prefix_affinity
    utilization-filter             filter utilisation (never empties the list: then all stay)
    prefix-cache-scorer            scorer prefix
    precise-prefix-cache-scorer    scorer prefix with prefix_from = "kv_events"
    queue-scorer                   scorer queue
    kv-cache-utilization-scorer    scorer kv_utilisation
    running-requests-size-scorer   scorer running
    active-request-scorer          scorer active
    token-load-scorer              scorer token_load
    load-aware-scorer              scorer load_aware
    no-hit-lru-scorer              scorer no_hit_lru
    session-affinity-scorer        scorer session
    max-score-picker               picker max_score
    weighted-random-picker         picker weighted_random
    random-picker                  picker random

Producers need not be named: approx-prefix-cache-producer is `block_tokens`, `auto_tune` and
`lru_capacity_per_replica`, inflight-load-producer is always there. A plugin's parameters are options of the
pipeline, in this project's spelling, with seconds for milliseconds. Scores are 0 to 1.

Rules and defaults are those of llm-d-router in August 2026, which took over the endpoint picker of the
Gateway API Inference Extension. What an engine does not tell counts as the mean of those that do, where llm-d
takes 0: beside engines that tell, one that does not would look idle for ever.
"""
