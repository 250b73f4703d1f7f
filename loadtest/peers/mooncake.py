"""Mooncake's conductor: the least estimated time to first token.

Source: Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025, algorithm 1.
"""

from collections.abc import Sequence
from random import Random

from loadtest.peers.facts import FleetFacts
from loadtest.peers.prefill_book import PrefillBook
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Event, Prompt
from policies.routing.policy import Policy, ReplicaView


class LeastTimeToFirstToken(Rule):
    """Queue time plus own prefill time, in seconds."""

    def __init__(self, random: Random, facts: FleetFacts) -> None:
        super().__init__(random)
        self._facts = facts
        self._book = PrefillBook(facts.kv_capacity_tokens)

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        uncached = self._book.uncached(prompt, ids_of(candidates))
        return [
            ((self._book.pending(replica.id) + own) / self._facts.prefill_rate(replica.id), 0.0)
            for replica, own in zip(candidates, uncached, strict=True)
        ]

    def observe(self, event: Event) -> None:
        self._book.observe(event)


def conductor(random: Random, facts: FleetFacts) -> Policy:
    """Helped by the true prefill rate of each replica, where it has a fitted model, and the true cache size.

    Liberties: no KV transfer between replicas, so the branch that fetches a remote prefix never pays; no
    rejection; prefill and decode share a replica.
    """
    return LeastTimeToFirstToken(random, facts)
