"""LMetric: prefill work times batch size, and nothing to tune.

Source: Zhang et al., "LMetric: Simple is Better - Multiplication May Be All You Need for LLM Request
Scheduling", arXiv 2603.15202, 2026. As in Dynamo's router_selection_policy=lmetric one is added to the batch,
so that an idle replica still pays for its prefill.
"""

from collections.abc import Sequence
from math import inf
from random import Random

from loadtest.peers.facts import FleetFacts
from loadtest.peers.prefill_book import PrefillBook
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Event, Prompt
from policies.routing.policy import Policy, ReplicaView


class LMetric(Rule):
    """(pending + own uncached tokens) x (requests in flight + 1)."""

    def __init__(self, random: Random, capacity_tokens: float) -> None:
        super().__init__(random)
        self._book = PrefillBook(capacity_tokens)

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        uncached = self._book.uncached(prompt, ids_of(candidates))
        return [
            ((self._book.pending(replica.id) + own) * (replica.in_flight + 1), 0.0)
            for replica, own in zip(candidates, uncached, strict=True)
        ]

    def observe(self, event: Event) -> None:
        self._book.observe(event)


def lmetric(random: Random, _facts: FleetFacts) -> Policy:
    """As published. Liberty: its index remembers all that was sent, and knows no eviction."""
    return LMetric(random, inf)


def lmetric_with_mirror(random: Random, facts: FleetFacts) -> Policy:
    """Helped by an index of the size of the replicas' caches, which no release of it has."""
    return LMetric(random, facts.kv_capacity_tokens)
